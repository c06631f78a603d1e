"""TODO room formats."""
