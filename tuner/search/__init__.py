"""The search: sampling, early stopping, runners, and the study in which everything is stored."""
