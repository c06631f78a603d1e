"""The run folder: what is finished, what is stale, and where every file lies.

`folder` has runs and stages, `layout` the place of each file, `files` atomic reading and writing. Imports errors only.
A new file of a run gets its place in `layout`.
"""
