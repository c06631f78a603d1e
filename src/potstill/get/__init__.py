"""TODO room get."""
