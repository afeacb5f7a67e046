"""The search over many networks: sampling, scheduling, stopping and storing trials."""
