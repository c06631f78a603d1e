"""results.csv and differences.csv: their columns, which rows are the same measurement, and writing them.

Every row says which defaults it was measured with (`defaults`, a digest of all settings but those of the machine),
with which code (`commit`, "-dirty" where src/ had changes) and when (`date`). Rows are never replaced: rows of other
defaults stay, and the tables of the docs show those of the newest defaults only (tools/tables.py), so that no table
compares measurements of different settings. A change of the code that leaves the defaults alone does not show in the
digest: to measure it, remove the rows that it concerns.
"""

import csv
import datetime
import hashlib
import io
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import tomli_w

from potstill.config.load import from_mapping, to_mapping
from potstill.config.schema import Config, MachineConfig
from potstill.run.files import write_text

Row = dict[str, str]

JOB = ("regime", "set", "teacher", "student", "size", "pretrained", "labels")
"""What was measured. `labels` is the number per class that was asked for, or "all"."""
MADE_BY = ("minutes", "hardware", "defaults", "commit", "date")
"""`minutes`: of the whole run, from photos to comparison, with the teacher, the twin, all pilots and all seeds."""
RESULTS = (*JOB, "arm", "seed", "epochs", "accuracy", "errors", "n", "nll", "ece", "agreement", "seconds", *MADE_BY)
"""One row per trained model; `seconds` of its own training."""
DIFFERENCES = (
    *JOB,
    "labels_per_class",
    "unlabeled",
    "teacher_accuracy",
    "alone",
    "alone_low",
    "alone_high",
    "distilled",
    "distilled_low",
    "distilled_high",
    "difference",
    "low",
    "high",
    "relative_error_reduction",
    "to_teacher",
    "to_teacher_low",
    "to_teacher_high",
    "macs_share",
    "nll_alone",
    "nll_distilled",
    "n",
    "seeds",
    "seconds",
    *MADE_BY,
)
"""One row per student and its twin. `labels_per_class` and `unlabeled` are what was left to train on: val is taken off,
and copies."""


WITHOUT_EFFECT = (
    ("external",),
    ("update",),
    ("images", "labels_per_photo"),
    ("images", "without_label"),
    ("teacher", "wrong_labels"),
)
"""Sections and settings that came later than rows that they leave as they are: no run of these regimes uses them, but
for wrong_labels, of which no row of a regime with wrong labels is older."""

SAME_RESULT: Mapping[str, Any] = {"twin.length_shares": (1.0, 0.33, 0.11)}
"""Settings whose default has changed without an effect on the rows that are kept, and the default that these were
measured with. The twin's shorter lengths: where val had chosen the shortest, they were no better (docs/LOG.md,
2026-11-28)."""


def defaults_digest(config: Config) -> str:
    """Eight letters that stand for all settings but those of the machine and those without effect here."""
    default = Config()
    same = {n: value for n, value in SAME_RESULT.items() if attrgetter(n)(config) == attrgetter(n)(default)}
    settings = to_mapping(from_mapping(same, base=replace(config, machine=MachineConfig())))
    for *sections, name in WITHOUT_EFFECT:
        section = settings
        for outer in sections:
            section = section[outer]
        del section[name]
    return hashlib.sha256(tomli_w.dumps(settings).encode()).hexdigest()[:8]


def commit(root: Path) -> str:
    """The short hash of the code, with "-dirty" where src/ differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True).stdout

    changed = git("status", "--porcelain", "--", str(root / "src")).strip()
    return git("rev-parse", "--short", "HEAD").strip() + ("-dirty" if changed else "")


def today() -> str:
    """The date as it stands in a row."""
    return datetime.date.today().isoformat()


@dataclass(frozen=True, slots=True)
class Table:
    """One CSV file."""

    path: Path
    columns: tuple[str, ...]

    def read(self) -> list[Row]:
        """All rows; none where there is no file yet."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the file anew with these rows at its end, under a temporary name first."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.read())
        writer.writerows({name: _text(row[name]) for name in self.columns} for row in rows)
        write_text(self.path, buffer.getvalue())


def matching(rows: Sequence[Row], wanted: Mapping[str, str]) -> list[Row]:
    """The rows that have all these values."""
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(round(value, 5)) if isinstance(value, float) else str(value)
