"""Confirmation, export and use of the winner of a search."""
