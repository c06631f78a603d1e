"""TODO room int8."""
