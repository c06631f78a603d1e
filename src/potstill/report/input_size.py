"""What a larger input size costs and brings: measured where the run has a model at several, else the command to try."""

import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise

from potstill.report.read import RunFiles
from potstill.report.side_by_side import correct_predictions, difference
from potstill.run.layout import ARMS
from potstill.run.results import StudentResult

STEP = 32
"""Pixels from one size to the next: what the strides of most networks multiply to."""


def input_size_notes(files: RunFiles) -> list[str]:
    """A sentence for each step between two sizes of a model, and for the next one that was not tried."""
    by_model: dict[str, list[StudentResult]] = {}
    for student in sorted(files.students, key=lambda student: student.size):
        by_model.setdefault(student.model, []).append(student)
    notes = []
    for students in by_model.values():
        notes += list(_measured(files, students))
        notes += list(_untried(files, students[-1]))
    return notes


def _measured(files: RunFiles, students: Sequence[StudentResult]) -> Iterator[str]:
    for small, large in pairwise(students):
        if small.size == large.size:
            continue
        gains = []
        for arm in ARMS:
            first, second = (correct_predictions(files, f"{s.name}/{arm}") for s in (large, small))
            gains.append(f"{arm} {difference(first, second, confidence=files.comparison.confidence).points}")
        yield (
            f"{large.model} at {large.size} instead of {small.size} px: {', '.join(gains)}, for "
            f"{large.macs / max(small.macs, 1):.1f} times the MACs."
        )


def _untried(files: RunFiles, student: StudentResult) -> Iterator[str]:
    """Up to the size that the weights were trained at, and that the photos were packed for."""
    if not student.pretrained or student.pretrained_size is None or files.comparison.update is not None:
        return
    packed = max(0, *files.comparison.teacher.sizes, *(s.size for s in files.students))
    size = min(student.size // STEP * STEP + STEP, student.pretrained_size, packed)
    if size > student.size:
        run, words = files.run.path, ["--students", _spec(files, student, size)]
        command = ["potstill", "distill", files.config["data"], "--recipe", f"{run / 'config.toml'}", "--run", f"{run}"]
        yield (
            f"{student.model} was trained at {student.size} px, its starting weights at {student.pretrained_size} px. "
            f"What {size} px bring, for about {(size / student.size) ** 2:.1f} times the MACs, is measured by "
            f"{shlex.join([*command, *words])}"
        )


def _spec(files: RunFiles, student: StudentResult, size: int) -> str:
    """The student as the settings name it, at another size."""
    for text in files.config["student"]["models"]:
        head, equals, weights = text.partition("=")
        if head.partition("@")[0] == student.model:
            return f"{student.model}@{size}{equals}{weights}"
    return f"{student.model}@{size}"
