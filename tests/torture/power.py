"""Power loss: the process ends, and so does what was written but not synced, and renames in folders that were not.

A file that was never synced is gone, empty, zeros, cut, or there all the same; of one that has grown since, what was
synced is kept. Of the renames whose folder was not synced the first few have happened.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.torture.cases import REFUSED, RIGHT, WRONG, Case, Outcome
from tests.torture.forked import PowerLoss, server
from tests.torture.job import TinyJob, follows_advice, leftovers, result_of

MOST_TURNS = 260
"""Syncs and renames of the tiny job, about: a loss behind the last one never comes."""

LOSSES = ("gone", "empty", "zeros", "cut", "whole")


def power_cases(seed: int, home: Path) -> Iterator[Case]:
    """A run that ends at one moment, then the same command again."""
    job, number = TinyJob(home), 0
    while True:
        dice = random.Random(f"{seed} power {number}")
        number += 1
        turn = dice.randrange(1, MOST_TURNS)
        yield Case("power loss", f"at sync or rename {turn}", _lost(job, turn, dice))


def _lost(job: TinyJob, turn: int, dice: random.Random) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        target, output, record, backups = (folder / name for name in ("run", "output.txt", "record.json", "backups"))
        backups.mkdir()
        loss = PowerLoss(turn, str(target), str(record), str(backups))
        code = server().start(job.command(target), output, loss).wait()
        if code not in (0, 99):
            return Outcome(WRONG, f"exit code {code}\n{output.read_text('utf-8')[-4000:]}")
        lost = lose(target, json.loads(record.read_text("utf-8")), dice) if code == 99 else []
        code = server().start(job.command(target), output).wait()
        said = output.read_text("utf-8")
        if code == 2 and "Error: " in said and follows_advice(job, said, target):
            return Outcome(REFUSED, said.strip().splitlines()[-1])
        if code != 0:
            return Outcome(WRONG, f"{lost}\nnot resumed: exit code {code}\n{said[-4000:]}")
        if left := leftovers(target):
            return Outcome(WRONG, f"left behind: {left}")
        return (
            Outcome(RIGHT) if result_of(target) == job.result else Outcome(WRONG, f"{lost}\nother weights or numbers")
        )

    return run


def lose(run: Path, record: Mapping[str, Any], dice: random.Random) -> list[str]:
    """Take from a run folder what a power loss may take. Returns what it was."""
    lost = []
    renames = record["renames"]
    for source, target, backup in reversed(renames[dice.randint(0, len(renames)) :]):
        Path(target).replace(source)
        if backup:
            Path(backup).replace(target)
        lost.append(f"{Path(target).relative_to(run)}: not renamed")
    for path in sorted(run.rglob("*")):
        if not path.is_file():
            continue
        status, kept = path.stat(), record["synced"].get(str(path.stat().st_ino))
        if kept == [status.st_size, status.st_mtime_ns]:
            continue
        way = dice.choice(LOSSES)
        synced = path.read_bytes()[: kept[0] if kept else 0]
        if way == "gone" and not kept:
            path.unlink()
        elif way == "zeros":
            path.write_bytes(synced + bytes(status.st_size - len(synced)))
        elif way == "cut":
            path.write_bytes(path.read_bytes()[: dice.randint(len(synced), status.st_size)])
        elif way != "whole":
            path.write_bytes(synced)
        lost.append(f"{path.relative_to(run)}: {way}")
    return lost
