"""TODO room teacher."""
