"""`labels.jsonl` of a run: the labels that `potstill suggest --label` has given, one line per step."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Step:
    """A label that was given. Paths are relative to the photo folder."""

    path: str
    """Where the photo was."""
    to: str
    """Where it is now, or its copy."""
    label: str
    copied: bool


def read_steps(journal: Path) -> list[Step]:
    """The labels that were given and not undone, in order, as far as the lines are whole."""
    steps: list[Step] = []
    for kind, step in _lines(journal):
        if kind == "give":
            steps.append(step)
        elif step in steps:
            steps.remove(step)
    return steps


def _lines(journal: Path) -> Iterator[tuple[str, Step]]:
    for line in journal.read_bytes().splitlines() if journal.is_file() else []:
        try:
            ((kind, values),) = json.loads(line).items()
            yield kind, Step(**values)
        except (ValueError, TypeError, AttributeError):  # a line that was being written when the program was stopped
            continue


def note(journal: Path, kind: Literal["give", "undo"], step: Step) -> None:
    """Append a line that is on the disk when this returns."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("ab") as file:
        # After a line that was cut off, this one must not become a part of it.
        file.write(b"\n" * bool(file.tell()) + json.dumps({kind: asdict(step)}, ensure_ascii=False).encode())
        file.flush()
        os.fsync(file.fileno())
