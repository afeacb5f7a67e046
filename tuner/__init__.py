"""Neural architecture search and hyperparameter tuning for image classifiers."""

__version__ = "0.1.0"
