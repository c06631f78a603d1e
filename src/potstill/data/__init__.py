"""What training reads: packed pixels, splits, folds, views of photos, and stored soft labels.

Imports errors, `config`, `metrics` and `run`; knows no model. A new augmentation is one operation in `ops`.
"""
