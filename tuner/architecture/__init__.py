"""What a network is: values, shape arithmetic, costs, and the torch module built from them. No Optuna, no files."""
