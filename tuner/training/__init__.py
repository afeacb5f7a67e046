"""Training of one network. Nothing here imports Optuna."""
