"""Getting photos: sources, polite downloads within limits, licenses and provenance.

A new source is one module in `sources` and one entry in `sources.registry`. Imports `images` for decoding, `data`,
`monitoring`, `processes` and `run`.
"""
