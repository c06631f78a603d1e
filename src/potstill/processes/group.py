"""Children that work together, so that none can go on without the others.

Only the standard library, like `child`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from potstill.errors import LostProcessError, PotstillError
from potstill.processes.child import Child, ChildCrashError

_POLL_SECONDS = 0.1

GRACE_SECONDS = 5.0
"""In which the others may say what is wrong with them, once one has failed."""


def run_together(
    module: str, jobs: Sequence[Path], *, threads: int, environment: Mapping[str, str] | None = None
) -> None:
    """Run a child per job to its end. Where one fails, the others are killed.

    Args:
        module, threads, environment: as of `Child.start`.
        jobs: each in a folder of its own.
    Raises:
        PotstillError: that of the child that failed first; one that only lost contact with it comes last.
    """
    children: list[Child] = []
    try:
        for job in jobs:
            children.append(Child.start(module, job, threads=threads, environment=environment))
        while not all(child.has_ended for child in children):
            if any(child.has_ended and child.process.returncode for child in children):
                _wait(children, GRACE_SECONDS)
                break
            time.sleep(_POLL_SECONDS)
        errors = [error for number, child in enumerate(children) if (error := _error_of(child, number, len(jobs)))]
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
    if errors:
        raise min(errors, key=lambda error: isinstance(error, LostProcessError))


def _wait(children: Sequence[Child], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not all(child.has_ended for child in children):
        time.sleep(_POLL_SECONDS)


def _error_of(child: Child, number: int, count: int) -> PotstillError | None:
    """Why a child failed; None for one that has not."""
    if not child.has_ended:
        return None
    try:
        child.check()
    except ChildCrashError as error:
        code = child.process.returncode
        reason = f"was killed by signal {-code}" if code < 0 else "stopped unexpectedly"
        return PotstillError(f"Process {number + 1} of {count} {reason}:\n{error}")
    except PotstillError as error:
        return error
    return None
