"""What one worker computes, and how the workers' results become one network. No word of Spark."""
