"""How rows reach a training step: rows however stored, and seeded mini-batches."""
