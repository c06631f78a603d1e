"""The trackers that `--track` offers. A tracker is one class and one call of `register`."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from potstill.errors import ConfigError

PROJECT = "potstill"


class Tracker(Protocol):
    """An open run of an experiment tracker. It is opened, fed and closed in one thread."""

    id: str
    """Kept with the run folder, and given to the tracker that resumes it."""

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        """Take the values of one line of metrics.jsonl.

        Args:
            name: of the training, such as `student/seed-0/distilled`; `comparison` at the end.
        """

    def close(self) -> None:
        """Send what is still waiting."""


class OpenTracker(Protocol):
    """A tracker's class, or a function that returns a tracker."""

    def __call__(self, folder: Path, name: str, earlier: str | None) -> Tracker:
        """Open a run of the tracker.

        Args:
            folder: where it may write files.
            name: of the run folder.
            earlier: the id of the tracker's run that is resumed, None for a new one.
        """


@dataclass(frozen=True, slots=True)
class Registered:
    """A tracker that can be chosen by name."""

    open: OpenTracker
    package: str | None
    """The package to install, None where it needs none."""


_TRACKERS: dict[str, Registered] = {}


def register(name: str, tracker: OpenTracker, *, package: str | None = None) -> None:
    """Make `tracker` available as `--track NAME` and `distill(track=NAME)`."""
    _TRACKERS[name] = Registered(tracker, package)


def tracker_names() -> tuple[str, ...]:
    """The names that `--track` takes."""
    return tuple(_TRACKERS)


def find_tracker(name: str) -> OpenTracker:
    """The tracker of this name.

    Raises:
        ConfigError: there is none, or its package is not installed.
    """
    if name not in _TRACKERS:
        raise ConfigError(f"There is no tracker {name!r}. Known are: {', '.join(_TRACKERS)}.")
    found = _TRACKERS[name]
    if found.package is not None and importlib.util.find_spec(found.package) is None:
        raise ConfigError(f"--track {name} needs a package. Install it: pip install {found.package}")
    return found.open
