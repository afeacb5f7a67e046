"""Pretrained weights: files that are read as data, where they come from, and copies under their digest."""
