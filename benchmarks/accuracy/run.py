"""Accuracy of distilled students against their twins, in several regimes, with today's defaults. Resumable.

    python benchmarks/accuracy/run.py --sets animals=PATH:cat,dog,bird flowers=PATH birds=PATH solar=demo \\
        --pool animals=PATH/unlabeled --students mobilenetv1_025@128=WEIGHTS --seeds 5

All regimes, or those that --regimes names:

few-labels        20 labels per class, all other training photos without theirs
pool              all labels, and a folder of other photos without labels (sets named by --pool)
all-labels        all labels
many-classes      all labels; the sets of more than 20 classes, which take part in no other regime
wrong-labels-10   10 % of the train and val photos lie in the folder of another class; test is as it was
wrong-labels-20   20 %
from-scratch      all labels, and students that start from random weights
label-efficiency  5, 10, 20, 50, 100 and all labels per class

Each set, student and condition is one `potstill distill` in a folder of its own in `--runs`, teacher included, so that
its minutes are those of a whole job. One row per trained model goes to results.csv, one per student, with the paired
interval, to differences.csv. What is there already, from the same defaults, is not trained again; a killed command goes
on where it was. A condition that belongs to two regimes is trained once and has a row in both. See rows.py for what
happens to rows when defaults change.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from regimes import REGIMES, Conditions, PhotoSet, open_set, photo_folder
from rows import DIFFERENCES, JOB, RESULTS, Row, Table, commit, defaults_digest, matching, today

from potstill import metrics
from potstill.config.load import from_mapping
from potstill.data.pixels import PixelStore
from potstill.errors import PotstillError
from potstill.models.classifier import describe, load_info
from potstill.pipeline import Result, distill
from potstill.planning import parse_students
from potstill.report.read import RunFiles
from potstill.run.layout import ARMS, model_folder
from potstill.run.results import Comparison, StudentResult, read_training
from potstill.wording import counted

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Job:
    """One student under one condition of a regime."""

    regime: str
    photos: PhotoSet
    conditions: Conditions
    student: str
    """As `student.models` has it."""
    teacher: str
    """One model, or several joined by +."""
    seeds: int
    more: Mapping[str, Any]
    """Further settings."""

    @property
    def settings(self) -> dict[str, Any]:
        # A student from scratch is the same student without its file.
        student = self.student if self.conditions.pretrained else self.student.partition("=")[0]
        return {
            "student.models": [student],
            "student.weights": "auto" if self.conditions.pretrained else "none",
            "teacher.model": self.teacher.split("+"),
            "images.classes": list(self.photos.classes),
            "images.per_class": self.conditions.labels,
            "seeds": self.seeds,
            **self.more,
        }

    @property
    def defaults(self) -> str:
        return defaults_digest(from_mapping(self.more))

    def key(self) -> Row:
        """What identifies its rows in both tables."""
        spec = parse_students(from_mapping(self.settings))[0]
        return {
            "regime": self.regime,
            "set": self.photos.name,
            "teacher": self.teacher,
            "student": spec.model,
            "size": str(describe(spec.model, (), size=spec.size).size),
            "pretrained": str(self.conditions.pretrained),
            "labels": str(self.conditions.labels or "all"),
        }

    def name(self) -> str:
        """Of its run folder. It does not name the regime: the same condition is the same run."""
        key = self.key()
        words = (key["set"], self.conditions.name, self.teacher, f"{key['student']}-{key['size']}px", self.seeds)
        return "_".join(str(word) for word in words)


def jobs(regimes: Sequence[str], sets: Sequence[PhotoSet], options: argparse.Namespace) -> Iterator[Job]:
    """Everything to measure, regime by regime."""
    for regime in regimes:
        for photos in sets:
            if photos.takes_part(regime):
                for conditions in REGIMES[regime]:
                    for student in options.students:
                        yield Job(regime, photos, conditions, student, options.teacher, options.seeds, options.settings)


@dataclass(frozen=True, slots=True)
class Tables:
    """Both tables."""

    results: Table
    differences: Table

    @classmethod
    def below(cls, folder: Path) -> "Tables":
        return cls(Table(folder / "results.csv", RESULTS), Table(folder / "differences.csv", DIFFERENCES))

    def known(self, job: Job) -> tuple[list[Row], list[Row]]:
        """The rows of a finished job, in results and differences: under its regime, or another that has its condition.
        A regime's own come first; there are none where one of the models is missing."""
        regimes = [job.regime, *(r for r, all_of in REGIMES.items() if job.conditions in all_of and r != job.regime)]
        for regime in regimes:
            wanted = {**job.key(), "regime": regime, "defaults": job.defaults}
            differences = matching(self.differences.read(), {**wanted, "seeds": str(job.seeds)})
            results = [row for row in matching(self.results.read(), wanted) if int(row["seed"]) < job.seeds]
            if differences and len({(row["arm"], row["seed"]) for row in results}) == len(ARMS) * job.seeds:
                return results, differences
        return [], []

    def add(self, results: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; those of single models that are there already (with fewer seeds, or of a kill) are left out."""
        identity = (*JOB, "arm", "seed", "defaults")
        there = {tuple(row[name] for name in identity) for row in self.results.read()}
        self.results.add([row for row in results if tuple(str(row[name]) for name in identity) not in there])
        self.differences.add(differences)


def finish(job: Job, tables: Tables, runs: Path) -> str:
    """Make the job's rows, by training or from another regime's. Returns what was done, for the screen."""
    results, differences = tables.known(job)
    if differences and differences[0]["regime"] == job.regime:
        return "has its rows already"
    if differences:
        other = differences[0]["regime"]
        tables.add(*([{**row, "regime": job.regime} for row in rows] for rows in (results, differences)))
        return f"has the rows of {other}"
    data = photo_folder(job.photos, job.conditions, runs / "photos")
    whole = {**job.settings, "machine.reuse": "off"}  # the minutes are those of a whole job
    result = distill(data, settings=whole, run=runs / job.defaults / job.name())
    made_by = {
        "minutes": sum(RunFiles(result.run).seconds.values()) / 60,
        "hardware": _hardware(result.comparison),
        "defaults": job.defaults,
        "commit": commit(ROOT),
        "date": today(),
    }
    tables.add(
        [{**job.key(), **row, **made_by} for row in model_rows(result)],
        [{**job.key(), **difference_row(result), **made_by}],
    )
    return result.verdicts()[0]


def model_rows(result: Result) -> Iterator[dict[str, Any]]:
    """One row per trained model of a run with one student."""
    (student,) = result.comparison.students
    with np.load(result.run.comparison / "predictions.npz", allow_pickle=False) as stored:
        answers = dict(stored)
    labels = answers["labels"]
    for arm in ARMS:
        for seed in range(result.comparison.seeds):
            folder = model_folder(result.run, student.name, seed, arm)
            trained = load_info(folder).trained
            logits = answers[f"{student.name}/{arm}"][seed]
            scaled = logits / trained.temperature
            yield {
                "arm": arm,
                "seed": seed,
                "epochs": trained.recipe["epochs"],
                "accuracy": metrics.accuracy(logits, labels),
                "errors": int(np.sum(logits.argmax(-1) != labels)),
                "n": len(labels),
                "nll": metrics.nll(scaled, labels),
                "ece": metrics.ece(scaled, labels),
                "agreement": metrics.agreement(logits, answers["teacher"]),
                "seconds": read_training(folder).seconds,
            }


def difference_row(result: Result) -> dict[str, Any]:
    """The student of a run against its twin."""
    comparison, store = result.comparison, PixelStore(result.run.images)
    student: StudentResult = comparison.students[0]
    distilled, alone, to_teacher = student.distilled, student.alone, student.to_teacher
    assert to_teacher is not None  # it is in every comparison of today
    return {
        "labels_per_class": len(store.rows("train")) / len(comparison.classes),
        "unlabeled": len(store.rows("unlabeled")),
        "teacher_accuracy": comparison.teacher.accuracy.value,
        "alone": alone.accuracy.value,
        "alone_low": alone.accuracy.low,
        "alone_high": alone.accuracy.high,
        "distilled": distilled.accuracy.value,
        "distilled_low": distilled.accuracy.low,
        "distilled_high": distilled.accuracy.high,
        "difference": student.difference.value,
        "low": student.difference.low,
        "high": student.difference.high,
        "relative_error_reduction": student.relative_error_reduction,
        "to_teacher": to_teacher.value,
        "to_teacher_low": to_teacher.low,
        "to_teacher_high": to_teacher.high,
        "macs_share": student.macs / comparison.teacher.macs,
        "nll_alone": alone.nll_scaled,
        "nll_distilled": distilled.nll_scaled,
        "n": comparison.test_photos,
        "seeds": comparison.seeds,
        "seconds": sum(sum(arm.seconds_per_seed) for arm in (distilled, alone)),
    }


def _hardware(comparison: Comparison) -> str:
    machine = comparison.environment
    device = machine.gpu if machine.machine["device"] == "cuda" else machine.processor
    return f"{counted(machine.machine['cores'], 'core')}, {device}, torch {machine.versions['torch']}"


def _pools(texts: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    """Folders of --pool by set. Raises PotstillError for a set that is not named, or no folder."""
    pools = {name: Path(path) for name, _, path in (text.partition("=") for text in texts)}
    for name, path in pools.items():
        if name not in names:
            raise PotstillError(f"--pool names the set {name!r}, --sets does not.")
        if not path.is_dir():
            raise PotstillError(f"--pool {name}: there is no folder {path}.")
    return pools


def main() -> int:
    """Run all jobs, one after the other. One that fails is reported, and the others go on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regimes", nargs="+", choices=list(REGIMES), default=list(REGIMES), metavar="REGIME")
    parser.add_argument("--sets", nargs="+", required=True, help="NAME=FOLDER or NAME=FOLDER:CLASS,CLASS; solar=demo")
    parser.add_argument("--pool", nargs="*", default=[], help="SET=FOLDER of photos without labels")
    parser.add_argument("--students", nargs="+", required=True, help="as potstill's --student.models")
    parser.add_argument("--teacher", default="efficientnet_lite0", help="one, or several joined by +")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON of settings to use as defaults instead")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of both tables")
    options = parser.parse_args()
    failed = []
    try:
        pools = _pools(options.pool, [text.partition("=")[0] for text in options.sets])
        sets = [open_set(text, pools, options.runs / "solar-photos") for text in options.sets]
        todo = list(jobs(options.regimes, sets, options))
        names = [f"{job.regime}: {job.name()}" for job in todo]  # a student's name that is wrong shows before any work
    except PotstillError as error:
        sys.exit(str(error))
    for name, job in zip(names, todo, strict=True):
        try:
            said = finish(job, Tables.below(options.out), options.runs)
        except PotstillError as error:
            failed.append(name)
            said = f"failed. {error}"
        print(f"{name}: {said}", flush=True)
    if failed:
        print(f"{len(failed)} of {len(todo)} failed:", *failed, sep="\n  ")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
