"""One network learns. No Optuna here."""
