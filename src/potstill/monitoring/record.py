"""progress.json in the run folder: what a run is doing, for `potstill status` in another terminal."""

import datetime
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from potstill.monitoring.overall import WholeRun
from potstill.run.command import typed_command
from potstill.run.files import write_json
from potstill.run.layout import progress_path
from potstill.wording import counted, noun

State = Literal["working", "finished", "stopped"]

WRITE_SECONDS = 2.0
"""The file is written at most this often, and whenever other work begins: that may say nothing for minutes."""


@dataclass(frozen=True, slots=True)
class Doing:
    """What is being done at the moment, and how far it is."""

    text: str
    unit: str = ""
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.text}: {self.done:,} of {counted(self.total, self.unit)}".rstrip() if self.total else self.text


@dataclass(slots=True)
class Record:
    """Writes progress.json of one command on a run."""

    run: Path
    whole: WholeRun
    started: str = field(default_factory=lambda: _now())
    _written: float = -WRITE_SECONDS
    _noted: str = ""

    def write(self, doing: Doing, state: State = "working", reason: str = "") -> None:
        """Write the present state, but not more often than every two seconds while the same work goes on."""
        now = time.monotonic()
        if state == "working" and doing.text == self._noted and now - self._written < WRITE_SECONDS:
            return
        self._written, self._noted = now, doing.text
        write_json(progress_path(self.run), self._content(doing, state, reason))

    def _content(self, doing: Doing, state: State, reason: str) -> dict[str, Any]:
        whole = self.whole
        return {
            "state": state,
            "reason": reason,
            "command": typed_command(),
            "process": os.getpid(),
            "started": self.started,
            "updated": _now(),
            "stage": whole.part.stage if whole.part else "",
            "doing": doing.text,
            "done": doing.done,
            "total": doing.total,
            "unit": noun(doing.total, doing.unit),
            "share": 1.0 if state == "finished" else round(whole.share, 4),
            "seconds": round(whole.elapsed, 1),
            "seconds_left": 0.0 if state == "finished" else round(whole.left, 1),
            "seconds_left_after_part": round(whole.left_after_part, 1),
            "parts": [
                {
                    "name": part.name,
                    "stage": part.stage,
                    "expected_seconds": round(part.seconds, 1),
                    "seconds": round(whole.measured[position], 1) if position in whole.measured else None,
                }
                for position, part in enumerate(whole.parts)
            ],
        }


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
