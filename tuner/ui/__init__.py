"""Everything that a user sees. This package makes no decisions."""
