"""Getting photos: sources, polite downloads within limits, licenses and provenance.

A new source is one module in `sources`. Imports `images` for decoding, `data`, `monitoring`, `processes` and `run`.
"""
