"""TODO room check."""
