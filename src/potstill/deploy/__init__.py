"""Using a trained model: `predict`, the module that is exported, and the page to try photos on.

Imports `errors`, `processes`, `models`, `data`, `run`, and `images` for decoding photos.
"""
