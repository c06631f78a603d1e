"""Every error that a user can cause or fix. The command line prints it and exits with code 2.

    PotstillError
    ├── ConfigError        a setting is unknown, out of range or contradicts another
    ├── DataError          the folder of photos cannot be used as it is
    ├── WeightsError       weights are missing, unreachable, of the wrong shape or damaged
    ├── ModelError         no such model, or a stored model that does not match its description
    ├── TeacherError       the teacher did not learn: it knows no more of the classes than their shares
    ├── StaleError         a finished stage was made from other inputs or settings
    ├── DamageError        a file of a run is not as it was written
    ├── SpaceError         the disk is too small for what would be written
    ├── SourceError        a photo source cannot be reached, refuses, or does not know the class
    │   └── UnreachableError   it did not answer at all
    ├── LostProcessError   another process of the same training has ended
    ├── StorageError       object storage cannot be reached, refuses, or has something else than it should
    └── ExportError        an exporter is missing, or its file is outside the tolerance

A message says what happened, where, and what to do. A bug in Potstill is an `AssertionError`, never one of these.
"""

import difflib
from collections.abc import Iterable


class PotstillError(Exception):
    """Base of all errors that users can fix."""


class ConfigError(PotstillError):
    """A setting is unknown, out of range or contradicts another."""


class DataError(PotstillError):
    """The folder of photos cannot be used as it is."""


class WeightsError(PotstillError):
    """Weights are missing, unreachable, of the wrong shape or damaged."""


class ModelError(PotstillError):
    """No such model, or a stored model that does not match its description."""


class TeacherError(PotstillError):
    """The teacher has learned nothing that could be distilled."""


class StaleError(PotstillError):
    """A finished stage was made from other inputs or settings."""


class DamageError(PotstillError):
    """A file of a run is not as it was written."""


class SpaceError(PotstillError):
    """The disk is too small for what would be written."""


class SourceError(PotstillError):
    """A photo source cannot be reached, refuses, or does not know the class."""


class UnreachableError(SourceError):
    """A photo source did not answer at all: no network, or a server that is down."""


class LostProcessError(PotstillError):
    """Another process of the same training has ended, which has its own reason."""


class StorageError(PotstillError):
    """Object storage cannot be reached, refuses, or holds something else than it should."""


class ExportError(PotstillError):
    """An exporter is missing, or the file that it made is outside the tolerance."""


def did_you_mean(name: str, valid: Iterable[str], *, cutoff: float = 0.6) -> str:
    """` Did you mean 'x'?`, for the end of a message about an unknown name; empty where no valid name is near.

    Args:
        cutoff: of difflib's similarity, in [0, 1].
    """
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]!r}?" if near else ""
