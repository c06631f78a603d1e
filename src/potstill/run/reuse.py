"""Finished stages of earlier runs, taken over where they were made from the very same inputs."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import PotstillError
from potstill.run.files import read_json, replacing, sync_folder, write_bytes
from potstill.run.integrity import damages

REUSED = ("1_images", "2_teacher", "3_soft_labels")
"""What several runs can have in common. Nothing in these folders is written again in place once the stage is finished:
files are replaced or removed, so that runs may share them on the disk."""

_UNFINISHED = shutil.ignore_patterns("done.json", "inputs.json", "*.part", "*.growing", "*.checkpoint")


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """The runs that stages may be taken over from."""

    runs: tuple[Path, ...]
    """The preferred ones first."""
    say: Callable[[str], None]
    """Told what is taken over, or why nothing is."""

    def take_over(self, stage: Path, inputs: Mapping[str, Any]) -> bool:
        """Make `stage` from the same stage of another run that has these inputs.

        Returns:
            Whether there was one.
        """
        others: dict[Path, Any] = {}
        for run in self.runs:
            made_from = _inputs(run / stage.name)
            if made_from == inputs and (problem := next(damages(run / stage.name), None)):
                self.say(f"{stage.name} is not reused from {run}: {problem}")
            elif made_from == inputs and _copied(run / stage.name, stage):
                self.say(f"{stage.name} is reused from {run}: same photos and settings")
                return True
            elif made_from not in (None, inputs):
                others[run] = made_from
        if others:
            nearest = min(others, key=lambda run: len(differences(others[run], inputs)))
            found = differences(others[nearest], inputs)
            more = f" and {len(found) - 2} more" if len(found) > 2 else ""
            self.say(f"{stage.name} is recomputed: {nearest} has a different one ({'; '.join(found[:2])}{more})")
        return False


def differences(before: Any, after: Any, name: str = "") -> list[str]:
    """One line for each leaf that differs between two JSON values: `teacher.model: 'a' → 'b'`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        lines = []
        for key in sorted({*before, *after}):
            lines += differences(before.get(key), after.get(key), f"{name}.{key}" if name else str(key))
        return lines
    return [] if before == after else [f"{name}: {_short(before)} → {_short(after)}"]


def _inputs(stage: Path) -> Any:
    """What a finished stage was made from; None where it is not finished."""
    try:
        return read_json(stage / "done.json")["inputs"]
    except (PotstillError, KeyError, TypeError):
        return None


def _copied(source: Path, target: Path) -> bool:
    """Put the finished stage `source` in the place of `target`. False where it is being made again meanwhile."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        done = (source / "done.json").read_bytes()
        shutil.copytree(source, part, symlinks=True, ignore=_UNFINISHED, copy_function=_link)
        if (source / "done.json").read_bytes() != done:
            raise FileNotFoundError(source)
        write_bytes(part / "done.json", done)
    except (FileNotFoundError, shutil.Error):
        shutil.rmtree(part, ignore_errors=True)
        return False
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    sync_folder(target.parent)
    return True


def _link(source: str, target: str) -> str:
    """A hard link, or a copy where the disk has none."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        with replacing(Path(target)) as temporary:
            shutil.copyfile(source, temporary)
    return target


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
