"""Experiment trackers, one module each. Importing this package registers them."""

from potstill.monitoring.trackers import mlflow, tensorboard, trackio, wandb
from potstill.monitoring.trackers.registry import PROJECT, Tracker, find_tracker, register, tracker_names

__all__ = [
    "PROJECT",
    "Tracker",
    "find_tracker",
    "mlflow",
    "register",
    "tensorboard",
    "tracker_names",
    "trackio",
    "wandb",
]
