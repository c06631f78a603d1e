"""Everything that the report reads from a finished run, in one place. Needs no torch and no photo folder."""

import csv
import json
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from potstill import metrics
from potstill.data.arrays import open_arrays
from potstill.data.label_errors import Suspect, suspects
from potstill.data.pixels import PixelStore
from potstill.data.unlike import Unlike, read_unlike
from potstill.errors import DataError, ExportError
from potstill.export.results import FileResult, read_results
from potstill.run.files import REMOVE, read_json, read_toml_text
from potstill.run.folder import STAGES, Run
from potstill.run.forecast import Forecast, read_forecast
from potstill.run.layout import ARMS, comparison_path, controls_path, model_folder
from potstill.run.results import (
    Comparison,
    Controls,
    Environment,
    StudentResult,
    TrainingFacts,
    read_comparison,
    read_controls,
    read_training,
)
from potstill.run.trained import Trained, read_trained


@dataclass(frozen=True)
class RunFiles:
    """A finished run, read on demand."""

    run: Run

    @cached_property
    def comparison(self) -> Comparison:
        return read_comparison(comparison_path(self.run))

    @property
    def classes(self) -> list[str]:
        return list(self.comparison.classes)

    @property
    def students(self) -> tuple[StudentResult, ...]:
        return self.comparison.students

    @property
    def chosen(self) -> StudentResult:
        """The student to deploy, chosen on val."""
        return self.comparison.student(self.comparison.chosen.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        return tomllib.loads(self.config_text)

    @cached_property
    def config_text(self) -> str:
        return read_toml_text(self.run.path / "config.toml")

    @property
    def environment(self) -> Environment:
        """The machine that measured."""
        return self.comparison.environment

    @cached_property
    def exported(self) -> list[tuple[str, FileResult]]:
        """The exported files, each with the name of its student; none when nothing was exported, or by another
        version."""
        try:
            results = read_results(self.run)
        except ExportError:  # a report does not stop a run that is finished; `potstill export` says what to do
            return []
        students = results.students if results else {}
        return [(name, file) for name, student in students.items() for file in student.files]

    @cached_property
    def forecast(self) -> Forecast | None:
        """What `potstill forecast` found; None when it was not run, by another version, or for other models."""
        try:
            found = read_forecast(self.run)
        except DataError:  # as above
            return None
        return found if found and any(s.name == found.student for s in self.students) else None

    @cached_property
    def controls(self) -> Controls | None:
        """The controls of this very comparison; None where there are none."""
        path = controls_path(self.run)
        found = read_controls(path) if path.is_file() else None
        return found if found and found.comparison == self.run.stage("5_comparison").digest() else None

    @cached_property
    def suspects(self) -> list[Suspect] | None:
        """Training photos whose label the teacher's out-of-fold predictions contradict; None where there are none."""
        labels = {photo["sha256"]: photo["class"] for photo in self.photos if photo["split"] == "train"}
        try:
            return suspects(self.run.path, labels)
        except DataError:
            return None

    @cached_property
    def unlike(self) -> list[Unlike]:
        """Photos without labels that were left out, the least similar to the labeled ones first."""
        return read_unlike(self.run)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds of work per stage, as far as they were noted."""
        path = self.run.path / "timings.json"
        noted = read_json(path, REMOVE) if path.is_file() else {}
        own = noted.get("run", self.run.id) == self.run.id
        return {name: float(noted[name]) for name in STAGES if name in noted} if own else {}

    @cached_property
    def command(self) -> str | None:
        """The command that made the run; None where it was made from Python."""
        return self.run.command or None

    @cached_property
    def image_facts(self) -> dict[str, Any]:
        """What stage 1 counted."""
        return self.run.stage("1_images").facts()

    @cached_property
    def rejected(self) -> list[dict[str, str]]:
        """Files that were left out: path, split, class, code, reason."""
        with (self.run.images / "rejected.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @cached_property
    def photos(self) -> list[dict[str, str]]:
        """The lines of images.csv: the position in the list is the row of the pixel store."""
        with (self.run.images / "images.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def counts(self) -> dict[str, Counter[str]]:
        """Photos of each split, by class."""
        found: dict[str, Counter[str]] = {}
        for photo in self.photos:
            found.setdefault(photo["split"], Counter())[photo["class"]] += 1
        return found

    @cached_property
    def store(self) -> PixelStore:
        return PixelStore(self.run.images)

    @cached_property
    def attribution(self) -> list[dict[str, str]]:
        """Author, title, link and license by photo, where they came with the photos."""
        path = self.run.images / "ATTRIBUTION.csv"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @cached_property
    def attribution_text(self) -> str:
        """What the photo folder's ATTRIBUTION.txt says."""
        path = self.run.images / "ATTRIBUTION.txt"
        return path.read_text("utf-8", errors="replace").strip() if path.is_file() else ""

    @cached_property
    def predictions(self) -> "Predictions":
        return Predictions(self)

    def job_folder(self, student: str, seed: int, arm: str) -> Path:
        """Where a trained student or twin is stored."""
        return model_folder(self.run, student, seed, arm)

    def training(self, student: str, seed: int, arm: str) -> TrainingFacts:
        """The facts of a finished training."""
        return read_training(self.job_folder(student, seed, arm))

    def curve(self, student: str, seed: int, arm: str) -> list[dict[str, float]]:
        """The lines of metrics.jsonl."""
        path = self.job_folder(student, seed, arm) / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []

    def models(self) -> list[dict[str, Any]]:
        """model.json of the teacher's models and of seed 0 of each student and twin; of a file of soft labels as
        teacher, what is known of it."""
        folders = sorted(path.parent for path in self.run.teacher.rglob("model.json"))
        folders += [self.job_folder(s.name, 0, arm) for s in self.students for arm in ARMS]
        found = [{**read_json(folder / "model.json"), "trained": read_trained(folder)} for folder in folders]
        if self.comparison.teacher.method == ("file",):
            given = self.run.stage("2_teacher").facts()["inputs"]["external"]
            trained = Trained(role="teacher", method="file")
            found.insert(0, {**given, "trained": trained, "sha256": given["weights"]["sha256"]})
        return found


class Predictions:
    """The stored predictions on the test photos; each model's are read when needed, so memory holds one at a time."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self.labels: np.ndarray = self._stored("labels")
        """(n,) class indices."""
        self.rows: np.ndarray = self._stored("rows")
        """(n,) rows of the pixel store."""

    @cached_property
    def groups(self) -> np.ndarray | None:
        """(n,) the group of each photo; None where no two are of one group."""
        return self._files.store.groups_of(self.rows)

    def __len__(self) -> int:
        return len(self.labels)

    def logits(self, key: str) -> np.ndarray:
        """(S, n, C) logits of "teacher", "NAME/distilled" or "NAME/alone"."""
        found = self._stored(key)
        return found if found.ndim == 3 else found[None]

    def _stored(self, key: str) -> np.ndarray:
        with open_arrays(self._files.run.comparison / "predictions.npz") as stored:
            return np.asarray(stored[key])

    def teacher(self) -> tuple[np.ndarray, np.ndarray]:
        """(1, n, C) logits and (1,) the temperature that was fitted on val."""
        temperature = self._files.comparison.teacher.temperature
        return self.logits("teacher"), np.array([temperature], np.float32)

    def arm(self, student: str, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """(S, n, C) logits and (S,) the temperatures, one per seed."""
        logits = self.logits(f"{student}/{arm}")
        folders = [self._files.job_folder(student, seed, arm) for seed in range(len(logits))]
        temperatures = [read_trained(folder).temperature for folder in folders]
        return logits, np.array(temperatures, np.float32)


@dataclass(frozen=True, slots=True)
class ModelPredictions:
    """What one model, over its seeds, predicts for the test photos."""

    probabilities: np.ndarray
    """(n, C) after temperature scaling, the mean over seeds."""
    right_seeds: np.ndarray
    """(n,) the number of seeds whose prediction is the label."""
    seeds: int
    confusion: np.ndarray
    """(C, C) counts over all seeds: rows are the true classes, columns the predicted ones."""
    before: "Reliability"
    after: "Reliability"

    @property
    def best(self) -> np.ndarray:
        """(n,) the class with the largest mean probability."""
        return np.asarray(self.probabilities.argmax(-1))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Top probability against accuracy in equal-width bins, all seeds together."""

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """Expected calibration error over all predictions together."""
        used = self.count > 0
        gaps = np.abs(self.confidence[used] - self.accuracy[used]) * self.count[used]
        return float(gaps.sum() / self.count.sum())


def model_predictions(logits: np.ndarray, temperatures: np.ndarray, labels: np.ndarray) -> ModelPredictions:
    """Summarize (S, n, C) logits. One seed at a time, so memory stays near one (n, C) array."""
    seeds, photos, classes = logits.shape
    mean = np.zeros((photos, classes), np.float32)
    right_seeds = np.zeros(photos, int)
    confusion = np.zeros((classes, classes), int)
    tops: dict[str, list[np.ndarray]] = {"before": [], "after": []}
    rights: list[np.ndarray] = []
    for seed in range(seeds):
        right = logits[seed].argmax(-1) == labels
        scaled = metrics.softmax(logits[seed] / temperatures[seed])
        mean += scaled / seeds
        right_seeds += right
        confusion += metrics.confusion(logits[seed], labels)
        rights.append(right)
        tops["before"].append(metrics.softmax(logits[seed]).max(-1))
        tops["after"].append(scaled.max(-1))
    right = np.concatenate(rights)
    before, after = (reliability(np.concatenate(tops[name]), right) for name in ("before", "after"))
    return ModelPredictions(mean, right_seeds, seeds, confusion, before, after)


def reliability(top: np.ndarray, right: np.ndarray, bins: int = metrics.ECE_BINS) -> Reliability:
    """Bin (m,) top probabilities and whether the predictions were correct."""
    which = np.minimum((top * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    divisor = np.maximum(count, 1)
    confidence = np.bincount(which, top, bins) / divisor
    return Reliability(count, confidence, np.bincount(which, right.astype(float), bins) / divisor)
