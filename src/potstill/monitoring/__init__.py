"""What a person sees while a run works: progress bars, the log, and experiment trackers.

`progress` has bars and the log, `tables` the tables of the terminal, `track` passes new lines of metrics.jsonl to a
tracker. Imports `errors` and `run`. A new tracker is one module in `trackers`, imported in `trackers/__init__.py`.
"""
