"""Runs of the tiny job, killed up to three times at random moments and then finished."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support import processes_of
from tests.torture.cases import RIGHT, WRONG, Case, Outcome
from tests.torture.forked import Command, server
from tests.torture.job import TinyJob, leftovers, result_of

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
WHOM = ("the command", "its process group", "one child")
TWO_STUDENTS = {"student.models": ["mobilenetv1_025@32", "mobilenetv1_025@48"], "machine.jobs": 2, "seeds": 1}
ORPHAN_SECONDS = 30


def kill_cases(seed: int, home: Path) -> Iterator[Case]:
    """Each kill has a signal, a target and a moment of its own."""
    job, number = TinyJob(home), 0
    while True:
        dice = random.Random(f"{seed} kills {number}")
        number += 1
        kills = [(dice.choice(list(SIGNALS)), dice.choice(WHOM), dice.random()) for _ in range(dice.randint(1, 3))]
        name = f"{len(kills)} kill{'s' if len(kills) > 1 else ''}, the first by {kills[0][0]} to {kills[0][1]}"
        yield Case(name, "; ".join(f"{n} to {w} at {share:.3f}" for n, w, share in kills), _killed(job, kills))


def _killed(job: TinyJob, kills: list[tuple[str, str, float]]) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        reference, seconds = _undisturbed(job)
        target = folder / "run"
        for name, whom, share in kills:
            command = server().start(job.command(target, **TWO_STUDENTS), folder / "output.txt")
            _kill(command, SIGNALS[name], whom, share * seconds)
            command.wait()
            _wait_for_children(target)
        command = server().start(job.command(target, **TWO_STUDENTS), folder / "output.txt")
        code = command.wait()
        said = (folder / "output.txt").read_text("utf-8")
        if code != 0:
            return Outcome(WRONG, f"exit code {code}\n{said[-4000:]}")
        if (left := leftovers(target)) or (left := processes_of(target)):
            return Outcome(WRONG, f"left behind: {left}")
        return Outcome(RIGHT) if result_of(target) == reference else Outcome(WRONG, "other weights or numbers")

    return run


_REFERENCES: dict[Path, tuple[dict[str, object], float]] = {}


def _undisturbed(job: TinyJob) -> tuple[dict[str, object], float]:
    """What the unbroken run ends with, and how long it takes."""
    if job.home not in _REFERENCES:
        run, started = job.home / f"undisturbed-{os.getpid()}", time.monotonic()
        assert server().start(job.command(run, **TWO_STUDENTS), job.home / "output.txt").wait() == 0
        _REFERENCES[job.home] = result_of(run), time.monotonic() - started
    return _REFERENCES[job.home]


def _kill(command: Command, number: int, whom: str, seconds: float) -> None:
    """Wait, then send the signal; nothing where the command has ended by then."""
    time.sleep(seconds)
    try:
        if whom == "its process group":
            os.killpg(command.pid, number)
        elif whom == "one child" and (children := _children_of(command.pid)):
            os.kill(children[0], number)
        else:
            os.kill(command.pid, number)
    except ProcessLookupError:
        pass


def _children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.is_file() else []


def _wait_for_children(run: Path) -> None:
    """Children of a killed parent stop within seconds."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while processes_of(run) and time.monotonic() < deadline:
        time.sleep(0.1)
