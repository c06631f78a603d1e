"""Classifiers by name: building them with timm, their starting weights, their costs, saving and loading.

Imports errors, `metrics` and `run`. A new name for a model goes to `zoo`.
"""
