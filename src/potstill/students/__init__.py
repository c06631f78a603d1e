"""TODO room students."""
