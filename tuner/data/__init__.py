"""Data sets: images in, tensors out."""
