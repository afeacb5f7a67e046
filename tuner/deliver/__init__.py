"""The winner leaves the house."""
