"""Stage 7: the page to read. Everything is read from the run folder and nothing is measured here.

Imports `run`, `data`, `monitoring` and metrics, and no stage.
"""
