"""A whole job, from photos to a report or an exported file, killed up to three times and then finished."""

import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tests.support import processes_of
from tests.torture.cases import RIGHT, WRONG, Case, Outcome
from tests.torture.forked import Command, server
from tests.torture.job import TinyJob, leftovers, result_of

from potstill.run.files import sha256_of

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
COMMAND, GROUP, CHILD = "the command", "its process group", "one child"
TWO_STUDENTS = {"student.models": ["mobilenetv1_025@32", "mobilenetv1_025@48"], "seeds": 1}
SIDE_BY_SIDE = 0.4
"""Share of the cases in which students are trained in processes of their own, which takes longer to start."""
EXPORTED = 0.3
"""Share of the cases with an export, which takes as long as the rest."""
ORPHAN_SECONDS = 30
"""How long children may outlive their parent, on a busy machine."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One signal."""

    name: str
    whom: str
    moment: float
    """As a share of the time that the unbroken job takes, with its export or without."""

    def __str__(self) -> str:
        return f"{self.name} to {self.whom} at {self.moment:.3f}"


@dataclass(frozen=True, slots=True)
class Way:
    """How the job is done."""

    jobs: int
    """Trainings at a time; of several, each is a process."""
    exported: bool

    def __str__(self) -> str:
        return f"{self.jobs} at a time{', exported' if self.exported else ''}"


@dataclass(frozen=True, slots=True)
class Unbroken:
    """What the job ends with when nothing happens."""

    result: dict[str, Any]
    exported: dict[str, str]
    seconds: float


def kill_cases(seed: int, home: Path) -> Iterator[Case]:
    """Each kill has a signal, a target and a moment of its own."""
    job, number = TinyJob(home), 0
    while True:
        dice = random.Random(f"{seed} kills {number}")
        number += 1
        way = Way(2 if dice.random() < SIDE_BY_SIDE else 1, dice.random() < EXPORTED)
        whom = (COMMAND, GROUP, CHILD) if way.jobs > 1 else (COMMAND, GROUP)
        kills = [Kill(dice.choice(list(SIGNALS)), dice.choice(whom), dice.random()) for _ in range(dice.randint(1, 3))]
        times = f"{len(kills)} kill{'s' if len(kills) > 1 else ''}"
        name = f"{times}, the first by {kills[0].name} to {kills[0].whom}"
        yield Case(name, f"{way}: {'; '.join(map(str, kills))}", _killed(job, kills, way, dice))


def _killed(job: TinyJob, kills: list[Kill], way: Way, dice: random.Random) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        unbroken = _unbroken(job, way.exported)
        target, output = folder / "run", folder / "output.txt"
        for kill in kills:
            hit = _run(job, target, output, way, kill, kill.moment * unbroken.seconds, dice)
            said = output.read_text("utf-8")
            if "Traceback" in said:
                return Outcome(WRONG, f"after {kill}: {hit}\n{said[-4000:]}")
            if orphans := _outliving(target):
                return Outcome(WRONG, f"after {kill}, still there: {orphans}")
        if failed := _run(job, target, output, way):
            return Outcome(WRONG, f"{failed}\n{output.read_text('utf-8')[-4000:]}")
        if left := [*leftovers(target), *processes_of(target), *_held_locks(target)]:
            return Outcome(WRONG, f"left behind: {left}")
        if result_of(target) != unbroken.result:
            return Outcome(WRONG, "other weights or numbers")
        if way.exported and _exported(target) != unbroken.exported:
            return Outcome(WRONG, "another exported file")
        return Outcome(RIGHT)

    return run


def _commands(job: TinyJob, target: Path, way: Way) -> list[list[str | Path]]:
    distill = job.command(target, **TWO_STUDENTS, **{"machine.jobs": way.jobs})
    export: list[str | Path] = ["export", target, "--to", "onnx", "--precision", "float32"]
    return [distill, export] if way.exported else [distill]


def _run(
    job: TinyJob,
    target: Path,
    output: Path,
    way: Way,
    kill: Kill | None = None,
    seconds: float = 0.0,
    dice: random.Random | None = None,
) -> str:
    """Run the commands up to the kill. Returns "" where all ended well, else what happened."""
    end = time.monotonic() + seconds
    for arguments in _commands(job, target, way):
        command = server().start(arguments, output)
        while kill and not command.has_ended and time.monotonic() < end:
            time.sleep(0.02)
        if kill and dice and not command.has_ended:
            _send(command, kill, dice)
            return f"killed, exit code {command.wait()}"
        if code := command.wait():
            return f"{arguments[0]}: exit code {code}"
    return ""


@functools.cache
def _unbroken(job: TinyJob, exported: bool) -> Unbroken:
    """Measured once in each campaign, and again when it is taken up: how fast it is depends on what else runs."""
    folder, output, started = job.home / f"undisturbed-{os.getpid()}", job.home / "output.txt", time.monotonic()
    run = folder / "run"  # exported files name the run that they are of
    failed = _run(job, run, output, Way(1, exported))
    assert not failed, f"{failed}\n{output.read_text('utf-8')}"
    found = Unbroken(result_of(run), _exported(run), time.monotonic() - started)
    shutil.rmtree(folder)
    return found


def _exported(run: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted((run / "6_export").rglob("*.onnx"))}


def _send(command: Command, kill: Kill, dice: random.Random) -> None:
    """Send the signal; nothing where the process has ended by then."""
    children = _descendants_of(command.pid)
    try:
        if kill.whom == GROUP:
            os.killpg(command.pid, SIGNALS[kill.name])
        else:
            os.kill(dice.choice(children) if kill.whom == CHILD and children else command.pid, SIGNALS[kill.name])
    except ProcessLookupError:
        pass
    if kill.whom == CHILD and children:
        deadline = time.monotonic() + 10 * ORPHAN_SECONDS
        while not command.has_ended and time.monotonic() < deadline:  # it may go on without that child, or stop
            time.sleep(0.1)


def _descendants_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(word) for word in path.read_text().split()] if path.is_file() else []
    return children + [number for child in children for number in _descendants_of(child)]


def _outliving(run: Path) -> list[str]:
    """Processes of a killed command that are still there after ORPHAN_SECONDS."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (found := processes_of(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _held_locks(run: Path) -> list[str]:
    held = []
    for path in run.glob(".*lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            held.append(f"{path.name} is held")
    return held
