"""Stage 7: the page to read. Everything is read from the run folder and nothing is measured here.

Imports `errors`, `run`, `data`, `monitoring`, `metrics`, and of the export what reads its results.
"""
