"""The training loop and the losses, for teachers and students alike.

Imports `errors`, `compute` and `run`. A new distillation loss is one function and one entry in `losses`.
"""
