"""What a person sees while a run works: progress bars, the log, and experiment trackers.

`progress` has bars and the log; `overall` knows the parts of a whole run and the time left, `display` shows it,
`record` keeps it in progress.json, and `status` reads that for `potstill status`. `tables` has the tables of the
terminal, `track` passes new lines of metrics.jsonl to a tracker. Imports `errors` and `run`. A new tracker is one
module in `trackers`, imported in `trackers/__init__.py`.
"""
