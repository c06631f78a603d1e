"""TODO room soft_labels."""
