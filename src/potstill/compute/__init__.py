"""TODO room compute."""
