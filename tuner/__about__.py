"""The version of the package, which hatch also writes into its metadata."""

__version__ = "0.1.0"
