"""How rows reach a training step: storage-independent rows, and seeded mini-batches."""
