"""TODO room comparison."""
