"""The list of photos to label next: made, written as `RUN/suggest/suggestions.csv`, and read again.

suggestions.csv   path, suggested_class, doubt, why: in the order in which to label them
index.html        the same with small pictures, to read
suggestions.json  what the list was made from
labels.jsonl      the labels that `potstill suggest --label` has given
"""

import csv
import io
import itertools
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import ConfigError, PotstillError
from potstill.images.folder import NONE_OF_THEM
from potstill.run.files import read_json, write_json, write_text
from potstill.run.folder import Run
from potstill.run.layout import suggest_folder
from potstill.suggest.choice import choose, disagree, doubt, label_doubt
from potstill.suggest.pool import Pool, RunPhotos, read_pool
from potstill.wording import counted

COUNT = 50
"""Photos on a list, unless told otherwise."""

_SHOWN = 10
"""Photos that are printed."""

CLEAR = 0.5
"""Doubt below which a photo is on the list for its variety alone."""

DECIDED = 0.5
"""Probability from which on a photo is said to have a label, where it may have several: a hint, without thresholds."""

_NAMED = 3
"""Labels in doubt that are named of a photo."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A photo that should get a label."""

    path: str
    """In the photo folder."""
    suggested_class: str
    """What the models predict; a hint, not a label. Several labels have | between them."""
    doubt: float
    """In [0, 1], see `doubt` and `label_doubt` in `potstill.suggest.choice`."""
    why: str
    """In plain words."""
    row: int
    """In the pixel store."""
    sha256: str
    """Of the file, as the run has read it."""


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The photos to label next, and what is to be said about the choice."""

    photos: tuple[Suggestion, ...]
    pool: int
    """How many photos they were chosen from."""
    notes: tuple[str, ...]


def make_suggestions(run: Run, photos: RunPhotos, count: int) -> Suggestions:
    """Choose photos by what the run has stored, and write the list.

    Raises:
        ConfigError: `count` is below 1.
        DataError: the run has no photos to suggest.
    """
    if count < 1:
        raise ConfigError("--count must be 1 or more.")
    pool = read_pool(run, photos)
    if pool.several_labels:
        doubts = label_doubt(pool.teacher, pool.student).mean(1)
    else:
        doubts = doubt(pool.teacher, pool.student)
    positions = choose(pool.features, doubts, count)
    classes = run.classes()
    found = Suggestions(
        tuple(_suggestion(position, pool, doubts, photos, classes) for position in positions.tolist()),
        len(pool.rows),
        (*pool.notes, *([] if pool.student is not None else ["No student is trained yet: the teacher decides alone."])),
    )
    _write(run, found)
    return found


def _suggestion(position: int, pool: Pool, doubts: np.ndarray, photos: RunPhotos, classes: Sequence[str]) -> Suggestion:
    line = photos.lines[int(pool.rows[position])]
    teacher = pool.teacher[position]
    student = None if pool.student is None else pool.student[position]
    mean = teacher if student is None else (teacher + student) / 2
    if pool.several_labels:
        suggested = "|".join(_labels(mean, classes)) or NONE_OF_THEM
        why = _why_labels(teacher, student, classes)
    else:
        suggested = classes[int(mean.argmax())]
        why = _why(teacher, student, float(doubts[position]), classes)
    return Suggestion(
        path=line["path"],
        suggested_class=suggested,
        doubt=round(float(doubts[position]), 4),
        why=why,
        row=int(pool.rows[position]),
        sha256=line["sha256"],
    )


def _why(teacher: np.ndarray, student: np.ndarray | None, unknown: float, classes: Sequence[str]) -> str:
    """In plain words."""
    first, second = np.argsort(-teacher, kind="stable")[:2].tolist()
    by_teacher = f"{classes[first]} ({_percent(teacher[first])})"
    if disagree(teacher[None], None if student is None else student[None])[0]:
        assert student is not None
        best = int(student.argmax())
        return f"teacher: {by_teacher}, student: {classes[best]} ({_percent(student[best])})"
    if unknown < CLEAR:
        return f"probably {classes[first]}; for variety"
    return f"{by_teacher} or {classes[second]} ({_percent(teacher[second])})?"


def _labels(probabilities: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes that are more probable than not, the most probable first."""
    order = np.argsort(-probabilities, kind="stable").tolist()
    return [classes[place] for place in order if probabilities[place] >= DECIDED]


def _why_labels(teacher: np.ndarray, student: np.ndarray | None, classes: Sequence[str]) -> str:
    """In plain words, where a photo may have several labels."""
    if student is not None and ((teacher >= DECIDED) != (student >= DECIDED)).any():
        apart = np.where((teacher >= DECIDED) != (student >= DECIDED), np.abs(teacher - student), -1)
        place = int(apart.argmax())
        return f"{classes[place]}? teacher: {_percent(teacher[place])}, student: {_percent(student[place])}"
    mean = teacher if student is None else (teacher + student) / 2
    unknown = label_doubt(mean[None])[0]
    open_ones = [place for place in np.argsort(-unknown, kind="stable").tolist() if unknown[place] >= CLEAR]
    if not open_ones:
        return f"probably {' and '.join(_labels(mean, classes)) or 'none of the classes'}; for variety"
    return " ".join(f"{classes[place]} ({_percent(mean[place])})?" for place in open_ones[:_NAMED])


def _percent(probability: float) -> str:
    return f"{probability:.0%}".replace("%", " %")


_COLUMNS = [field.name for field in fields(Suggestion)][:4]


def _write(run: Run, found: Suggestions) -> None:
    folder = suggest_folder(run)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(photo, name) for name in _COLUMNS] for photo in found.photos)
    write_text(folder / "suggestions.csv", buffer.getvalue())
    values = {"soft_labels": run.stage("3_soft_labels").digest(), **asdict(found)}
    write_json(folder / "suggestions.json", values)


def has_open(found: Suggestions, photos: RunPhotos) -> bool:
    """Whether any photo of a list has no label yet."""
    return any(photo.path in photos.unlabeled for photo in found.photos)


def summary_lines(run: Run, photos: RunPhotos, found: Suggestions, *, labeled: bool = False) -> list[str]:
    """For people: what was chosen, where it is written, and what to type next.

    Args:
        labeled: the page to label them was used.
    """
    folder, shown = suggest_folder(run), found.photos[:_SHOWN]
    lines = (
        [] if labeled else [f"{counted(len(found.photos), 'photo')} to label next, of {found.pool:,} without labels:"]
    )
    if not labeled:
        width = max(len(photo.path) for photo in shown)
        lines += [f"  {photo.path:{width}}  {photo.why}" for photo in shown]
        if more := len(found.photos) - len(shown):
            lines.append(f"  and {more:,} more")
        lines += [*found.notes, f"List: {folder / 'suggestions.csv'}", f"Page: {folder / 'index.html'}"]
    path, data = shlex.quote(str(run.path)), shlex.quote(str(photos.data))
    again, recipe = shlex.quote(str(_next_run(run.path))), shlex.quote(str(run.path / "config.toml"))
    lines += ["", "Next:"]
    if photos.folder.from_table:
        lines.append("  write the labels into the table, and then:")
    elif not labeled:
        lines.append(f"  potstill suggest {path} --label     # label them with keys, in the browser")
    lines.append(f"  potstill distill {data} --recipe {recipe} --run {again}     # learn from the new labels")
    return lines


def _next_run(run: Path) -> Path:
    """A name for the run after this one: `RUN-2`, `RUN-3` …"""
    stem, _, number = run.name.rpartition("-")
    stem = stem if stem and number.isdecimal() and len(number) < 3 else run.name
    numbers = itertools.count(2)
    return next(path for path in (run.with_name(f"{stem}-{n}") for n in numbers) if not path.exists())


def read_suggestions(run: Run) -> Suggestions | None:
    """The list that was made last from the soft labels that the run has; None where there is none, or it is damaged."""
    try:
        values: dict[str, Any] = read_json(suggest_folder(run) / "suggestions.json")
        if values["soft_labels"] != run.stage("3_soft_labels").digest():
            return None
        photos = tuple(Suggestion(**photo) for photo in values["photos"])
        return Suggestions(photos, int(values["pool"]), tuple(values["notes"]))
    except (PotstillError, KeyError, TypeError):
        return None
