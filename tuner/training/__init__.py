"""Training of one network: recipe, engine, epoch loop and checkpoints. Without Optuna."""
