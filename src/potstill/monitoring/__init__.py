"""TODO room monitoring."""
