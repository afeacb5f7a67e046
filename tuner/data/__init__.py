"""Data sets: from files to batches of tensors, their splits, and the test set that is set aside."""
