"""TODO room deploy."""
