"""What may be sampled."""
