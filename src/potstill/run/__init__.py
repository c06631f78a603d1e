"""TODO room run."""
