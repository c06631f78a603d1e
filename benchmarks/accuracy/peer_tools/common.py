"""What the peers' scripts share. They run in environments of their own, without Potstill.

A work folder, made by peers.py, holds {train,val,test}/CLASS/ROW.ext and unlabeled/ROW.ext (links; ROW is the photo's
row in the Potstill run), student.safetensors and teacher.safetensors (timm's names), and probe.npz: random pixels in
−1…1 and the student's pooled features of them, by which a converted network is checked.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

SIZE = 128
"""What the student sees, in pixels."""
TEACHER_SHARE = 0.3
"""Of the minutes, where a tool first trains a teacher on the labels."""
UNLABELED = -100
"""In place of a label; torch's cross-entropy leaves such photos out."""

Photo = tuple[Path, int]


class Job:
    """One training with one seed: where its photos are, and how much time it has."""

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("--work", type=Path, required=True)
        parser.add_argument("--minutes", type=float, required=True)
        parser.add_argument("--seed", type=int, required=True)
        parser.add_argument("--out", type=Path, required=True, help="folder for what the tool writes, and result.json")
        arguments = parser.parse_args()
        self.work: Path = arguments.work
        self.seconds: float = 60 * arguments.minutes
        self.seed: int = arguments.seed
        self.out: Path = arguments.out
        self.classes = sorted(path.name for path in (self.work / "train").iterdir())
        self.started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the training began."""
        return time.perf_counter() - self.started

    def photos(self, split: str) -> list[Photo]:
        """(file, class index) of a split."""
        return [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((self.work / split / name).glob("*"))
        ]

    def unlabeled(self) -> list[Photo]:
        """The photos without labels."""
        return [(path, UNLABELED) for path in sorted((self.work / "unlabeled").glob("*"))]

    def finish(self, predicted: Sequence[int], tools: Sequence[str], settings: str, **more: Any) -> None:
        """Write what was predicted for the test photos, in the order of `photos("test")`."""
        rows: Mapping[str, int] = {
            path.stem: int(label) for (path, _), label in zip(self.photos("test"), predicted, strict=True)
        }
        result = {
            "predicted": rows,
            "seconds": self.elapsed,
            "versions": {name: version(name) for name in tools},
            "settings": settings,
            **more,
        }
        temporary = self.out / "result.json.part"
        temporary.write_text(json.dumps(result))
        temporary.replace(self.out / "result.json")


def train_for(seconds: float, step: Callable[[float], None], check: Callable[[], None], checks: int = 12) -> int:
    """Train for so many seconds, the checks on val included, and no longer.

    Args:
        step: one training step; it is given the share of the time that is gone, for its learning rate.
        check: looks at val, so many times and at the end.
    Returns:
        The number of steps.
    """
    started, steps, checked = time.perf_counter(), 0, 0
    while (spent := time.perf_counter() - started) < seconds:  # never, where no time is left
        step(spent / seconds)
        steps += 1
        if spent / seconds * checks >= checked + 1:
            check()
            checked += 1
    check()
    return steps
