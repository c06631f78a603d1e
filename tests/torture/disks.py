"""Disks that fail: one of the run's files cannot be opened for writing, or the disk is full, when it is its turn."""

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture.cases import RIGHT, WRONG, Case, Outcome
from tests.torture.forked import Failure, server
from tests.torture.job import TinyJob, leftovers, result_of

ERRORS = {"disk full": errno.ENOSPC, "read or write error": errno.EIO, "no permission": errno.EACCES}
MOST_FILES = 120
"""Files that the tiny job writes, about: a failure behind the last one never comes."""


def disk_cases(seed: int, home: Path) -> Iterator[Case]:
    """A run in which one write fails; then the same command again, on a disk that works."""
    job, number = TinyJob(home), 0
    while True:
        dice = random.Random(f"{seed} disks {number}")
        number += 1
        name, turn = dice.choice(list(ERRORS)), dice.randrange(1, MOST_FILES)
        yield Case(name, f"file {turn}", _failing(job, Failure(turn, ERRORS[name])))


def _failing(job: TinyJob, failure: Failure) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        target, output = folder / "run", folder / "output.txt"
        code = server().start(job.command(target), output, Failure(failure.turn, failure.number, str(target))).wait()
        said = output.read_text("utf-8")
        if code not in (0, 2) or "Traceback" in said:
            return Outcome(WRONG, f"exit code {code}\n{said[-4000:]}")
        code = server().start(job.command(target), output).wait()
        if code != 0:
            return Outcome(WRONG, f"not resumed: exit code {code}\n{output.read_text('utf-8')[-4000:]}")
        if left := leftovers(target):
            return Outcome(WRONG, f"left behind: {left}")
        return Outcome(RIGHT) if result_of(target) == job.result else Outcome(WRONG, "other weights or numbers")

    return run
