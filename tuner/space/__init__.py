"""Search spaces: what may be sampled."""
