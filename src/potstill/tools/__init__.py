"""Commands beside the main job: `doctor`, `demo`, and learning curves.

Imports anything but the command line.
"""
