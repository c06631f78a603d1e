"""TODO room tools."""
