"""A finished model on new photos: how good it still is, and whether they are what it was made for.

Imports the foundation, `images` and `check` for reading photos, and `deploy` and `export` for running the model.
"""
