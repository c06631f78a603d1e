"""What a run is doing, read from its folder by another process: `potstill status`."""

import datetime
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from potstill.errors import PotstillError
from potstill.monitoring.progress import duration
from potstill.run.files import REMOVE, read_json
from potstill.run.folder import STAGES, Run
from potstill.run.layout import ARMS, is_trained, num_seeds, progress_path
from potstill.run.results import read_training
from potstill.storage.addresses import refuse_storage
from potstill.wording import counted

LOG_LINES = 5
WATCH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class TrainedStudent:
    """What is finished of a student or its twin."""

    name: str
    arm: str
    seeds: int
    """That are trained."""
    of_seeds: int
    """That are to be trained."""
    val_accuracy: float
    """Mean over the seeds that are trained."""
    val_map: float | None
    """mAP on val, the same mean; None where photos have one label each."""
    usable: bool
    """Whether student and twin are trained with all seeds, so that `predict` and `export` take them."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a run is doing."""

    run: str
    state: Literal["working", "finished", "stopped", "unknown"]
    """unknown: a run that no command has worked on since there is progress.json."""
    reason: str
    """Why it stopped, as far as the process could say."""
    stage: str
    """Of the run folder, such as "4_students"."""
    doing: str
    """In words."""
    done: int
    total: int
    unit: str
    share: float
    """Of the time of the whole command."""
    seconds: float
    """Since the command began, until now or until it stopped."""
    seconds_left: float
    started: str
    updated: str
    process: int
    command: str
    stages: dict[str, bool]
    """Whether each is finished."""
    students: tuple[TrainedStudent, ...]
    log: tuple[str, ...]
    """The last lines."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{self.run}: {self._what()}"]
        if self.stage and self.state != "finished":
            how_far = f", {self.done:,} of {self.total:,} {self.unit}".rstrip() if self.total else ""
            lines.append(f"  {self.stage}: {self.doing}{how_far}")
        for student in self.students:
            usable = ", can be used" if student.usable and student.arm == "distilled" else ""
            score = f"accuracy {student.val_accuracy:.1%}" if student.val_map is None else f"mAP {student.val_map:.1%}"
            lines.append(
                f"  {student.name} {student.arm}: {student.seeds} of {counted(student.of_seeds, 'seed')} trained, val "
                f"{score}{usable}"
            )
        if self.state in ("stopped", "unknown") and not self.stages["5_comparison"]:
            lines.append(f"  To resume: {self.command or Run(Path(self.run)).resume}")
        return [*lines, "", *self.log] if self.log else lines

    def _what(self) -> str:
        if self.state == "working" and not self.started:
            return "a command is at work and has not told its progress yet"
        if self.state == "working":
            since = f"since {self.started[11:16]}, process {self.process}"
            if self.seconds_left < 1:
                return f"working, almost finished after {duration(self.seconds)} ({since})"
            total = duration(self.seconds + self.seconds_left)
            return f"working, {self.share:.0%}, {duration(self.seconds_left)} left of about {total} ({since})"
        if self.state == "stopped":
            why = f": {self.reason}" if self.reason else ", its process is gone"
            return f"stopped after {duration(self.seconds)} ({self.updated[:16].replace('T', ' ')}){why}"
        if self.state == "finished":
            return f"finished in {duration(self.seconds)} ({self.updated[:16].replace('T', ' ')})"
        finished = [name for name, done in self.stages.items() if done]
        return f"not working; finished: {', '.join(finished) or 'nothing'}"


def read_status(path: Path) -> Status:
    """What the run is doing. Raises PotstillError where there is no run."""
    refuse_storage(path, "`potstill status`")
    run = Run.open(path)
    noted = read_json(progress_path(path), REMOVE) if progress_path(path).is_file() else {}
    if run.is_worked_on and noted.get("state") != "working":
        noted = {"state": "working"}  # what stands there is of an earlier command; this one is starting
    state = noted.get("state", "unknown")
    seconds, left = float(noted.get("seconds", 0.0)), float(noted.get("seconds_left", 0.0))
    if state == "working":
        if run.is_worked_on:
            # Some parts cannot say how far they are.
            passed = _seconds_since(noted["updated"]) if "updated" in noted else 0.0
            later = float(noted.get("seconds_left_after_part", 0.0))
            seconds, left = seconds + passed, max(left - passed, later)
        else:
            state = "stopped"
    share = float(noted.get("share", 0.0))
    return Status(
        run=str(path),
        state=state,
        share=seconds / max(seconds + left, 1e-9) if state == "working" else share,
        seconds=round(seconds, 1),
        seconds_left=round(left, 1),
        process=int(noted.get("process", 0)),
        done=int(noted.get("done", 0)),
        total=int(noted.get("total", 0)),
        **{
            key: str(noted.get(key, ""))
            for key in ("reason", "stage", "doing", "unit", "started", "updated", "command")
        },
        stages={name: run.stage(name).is_done for name in STAGES},
        students=tuple(_students(run)),
        log=_last_lines(path / "log.txt"),
    )


def newest_run(runs: Path = Path("runs")) -> Path:
    """The run that was worked on last. Raises PotstillError where there is none."""
    found = [path.parent for path in runs.glob("*/config.toml")]
    if not found:
        raise PotstillError(f"There is no run in {runs.resolve()}. Name a run folder: potstill status RUN")
    return max(found, key=_worked_on)


def watch_status(path: Path, *, as_json: bool) -> None:
    """Print what the run is doing every two seconds until it ends: on a terminal always in the same place."""
    console = Console(highlight=False, soft_wrap=True)
    if as_json or not console.is_terminal:
        for status in _until_it_ends(path):
            print(json.dumps(status.to_json(), ensure_ascii=False) if as_json else status.lines()[0], flush=True)
        return
    with Live(console=console, auto_refresh=False) as live:
        for status in _until_it_ends(path):
            live.update(Text("\n".join(status.lines())), refresh=True)


def _until_it_ends(path: Path) -> Iterator[Status]:
    while (status := read_status(path)).state == "working":
        yield status
        time.sleep(WATCH_SECONDS)
    yield status


def _worked_on(path: Path) -> float:
    """When a command last worked on a run."""
    return max(file.stat().st_mtime for file in (path / "config.toml", progress_path(path)) if file.is_file())


def _students(run: Run) -> list[TrainedStudent]:
    seeds, found = num_seeds(run), []
    for folder in sorted(path for path in run.students.glob("*") if path.is_dir()):
        for arm in ARMS:
            trained = [path.parent for path in sorted(folder.glob(f"seed-*/{arm}/done.json"))]
            if trained:
                facts = [read_training(path) for path in trained]
                accuracy = float(np.mean([each.val_accuracy for each in facts]))
                maps = [each.val_map for each in facts if each.val_map is not None]
                usable = is_trained(run, folder.name, seeds, (arm,))
                score = float(np.mean(maps)) if maps else None
                found.append(TrainedStudent(folder.name, arm, len(trained), seeds, accuracy, score, usable))
    return found


def _last_lines(log: Path) -> tuple[str, ...]:
    return tuple(log.read_text("utf-8").splitlines()[-LOG_LINES:]) if log.is_file() else ()


def _seconds_since(moment: str) -> float:
    return max((datetime.datetime.now().astimezone() - datetime.datetime.fromisoformat(moment)).total_seconds(), 0.0)
