"""Commands beside the pipeline: `doctor`, `demo`, and learning curves.

Imports `pipeline`, `get` and the foundation.
"""
