"""The run folder: what is finished, what is stale, and where every file is.

`folder` has runs and stages, `layout` the place of each file, `files` atomic reading and writing, `results` and
`trained` what comparison and training found. Imports `errors` and `metrics`. A new file of a run gets its place in
`layout`.
"""
