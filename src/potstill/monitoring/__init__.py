"""What a person sees while a run works: progress bars, the log, and experiment trackers.

Imports `errors` and `run`. A new tracker goes to `track`.
"""
