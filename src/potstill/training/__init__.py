"""TODO room training."""
