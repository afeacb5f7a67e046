"""Many networks compete."""
