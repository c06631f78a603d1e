"""`potstill suggest`: which photos to label next, and a page on this machine to label them with keys.

Reads a finished run and its photo folder; writes to `RUN/suggest/`, and, by the page, moves photos into class folders.
Imports the foundation, and `images`, `deploy` and `report` for class folders, servers and small pictures.
"""
