"""What every file of a student is compared with: the torch student's own predictions on the val and test photos."""

import json
import math
import statistics
import time
import tomllib
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import metrics
from potstill.compute.timing import torch_threads
from potstill.data.pixels import PixelStore
from potstill.data.splits import Split
from potstill.deploy.deployable import Deployable
from potstill.export.score import TIMED_PHOTOS, WARM_UP
from potstill.metrics import multilabel
from potstill.metrics.classification import Classification
from potstill.models.classifier import Classifier, load
from potstill.run.files import read_toml_text, sha256_of
from potstill.run.folder import Run


@dataclass(frozen=True, slots=True)
class SplitPredictions:
    """Labels of the photos of a split, and the torch student's predictions."""

    labels: np.ndarray
    """(n,) class indices; (n, C) of 0 and 1 where a photo may have several labels."""
    probabilities: np.ndarray
    """(n, C)."""
    groups: np.ndarray | None = None
    """(n,) the group of each photo; None where no two are of one group."""
    thresholds: tuple[float, ...] = ()
    """With several labels per photo: of each class."""

    @property
    def score_title(self) -> str:
        """What `accuracy` is."""
        return Classification.of(bool(self.thresholds)).score_title

    def accuracy(self, probabilities: np.ndarray, confidence: float) -> metrics.Interval:
        """Of predictions (n, C) for these photos; with several labels per photo their mAP."""
        if self.thresholds:
            return self._mean_average_precision(probabilities, confidence)
        right = np.asarray(probabilities.argmax(-1) == self.labels)
        return metrics.accuracy_interval(right, confidence=confidence, groups=self.groups)

    def _mean_average_precision(self, probabilities: np.ndarray, confidence: float) -> metrics.Interval:
        measured = multilabel.average_precisions(probabilities, self.labels)
        drawn = multilabel.resampled_average_precisions(
            probabilities[None], self.labels, resamples=multilabel.RESAMPLES, groups=self.groups
        )
        return multilabel.mean_interval(measured, drawn, confidence)

    def right(self, probabilities: np.ndarray) -> int:
        """How many photos predictions (n, C) classify correctly; with several labels their mAP in numbers of photos."""
        if self.thresholds:
            return round(len(self.labels) * multilabel.mean_average_precision(probabilities, self.labels))
        return int(np.sum(probabilities.argmax(-1) == self.labels))

    def different(self, probabilities: np.ndarray) -> int:
        """For how many photos predictions (n, C) give another class than the torch student; with several labels, how
        many decisions differ, divided by the number of classes."""
        if self.thresholds:
            given, own = (values >= np.array(self.thresholds) for values in (probabilities, self.probabilities))
            return math.ceil(np.sum(given != own) / len(self.thresholds))
        return int(np.sum(probabilities.argmax(-1) != self.probabilities.argmax(-1)))


@dataclass(frozen=True, slots=True)
class Reference:
    """A torch student and its predictions."""

    run: Run
    name: str
    folder: Path
    model: Classifier
    confidence: float
    """Of all intervals, as in the run's comparison."""
    val: SplitPredictions
    """Candidates for an int8 file are compared here."""
    test: SplitPredictions
    """Every file is judged here."""
    milliseconds: float
    """Median of one photo on one thread, as for the files."""

    @classmethod
    def of(cls, run: Run, name: str, folder: Path) -> "Reference":
        """Run the student of `folder` on the val and test photos."""
        model = load(folder)
        deployable = Deployable(model, temperature=model.info.trained.temperature).eval()
        settings = tomllib.loads(read_toml_text(run.path / "config.toml"))
        confidence = float(settings["comparison"]["confidence"])
        store, thresholds = PixelStore(run.images), model.info.trained.thresholds
        val, _ = _predict(deployable, store, "val", thresholds)
        test, milliseconds = _predict(deployable, store, "test", thresholds)
        return cls(run, name, folder, model, confidence, val, test, milliseconds)

    def facts(self) -> dict[str, Any]:
        """The fields of `ExportedStudent`, without the tolerance and the files."""
        info = self.model.info
        return {
            "model": info.name,
            "seed": info.trained.seed,
            "arm": info.trained.arm,
            "weights_sha256": sha256_of(self.folder / "model.safetensors"),
            "size": info.size,
            "crop": info.crop_pct,
            "classes": info.classes,
            "temperature": self.model.info.trained.temperature,
            "threshold": info.trained.threshold,
            "operating_point": info.trained.operating_point,
            "thresholds": info.trained.thresholds,
            "gray_levels": info.trained.gray_levels,
            "confidence": self.confidence,
            "test_photos": len(self.test.labels),
            "accuracy": self.test.accuracy(self.test.probabilities, self.confidence),
            "milliseconds": self.milliseconds,
        }

    def metadata(self) -> dict[str, str]:
        """The texts that travel in every file, beside the labels."""
        info, point = self.model.info, self.model.info.trained.operating_point
        return {
            "made_by": f"potstill {version('potstill')}",
            "student": self.name,
            "run": self.run.path.name,
            "fingerprint": self.run.stage("3_soft_labels").digest(),
            "weights_sha256": sha256_of(self.folder / "model.safetensors"),
            "size": str(info.size),
            "crop": repr(info.crop_pct),
            "input": input_rule(info.size, info.crop_pct, several_labels=info.several_labels),
            "temperature": repr(self.model.info.trained.temperature),
            "threshold": repr(info.trained.threshold),
            **({"thresholds": json.dumps(info.trained.thresholds)} if info.several_labels else {}),
            **({"operating_point": json.dumps(asdict(point), ensure_ascii=False)} if point else {}),
            "license": json.dumps(licenses(self.model), ensure_ascii=False),
        }


def input_rule(size: int, crop: float, *, several_labels: bool = False) -> str:
    """What goes into a file, in words."""
    square = "the center square" if crop == 1 else f"the middle {100 * crop:g} % (of the side) of the center square"
    return (
        f"one upright RGB photo, uint8, height x width x 3. A file that takes any size cuts {square} and "
        f"resizes it itself; one that takes {size} x {size} wants {square}, resized with an antialiased "
        "bilinear filter (Pillow's BILINEAR) on floats, then rounded. Normalization and "
        f"{'sigmoid' if several_labels else 'softmax'} are inside."
    )


def licenses(model: Classifier) -> dict[str, str]:
    """What is known of the licenses of what the student is made from."""
    weights = model.info.weights
    if weights.get("source") == "none":
        return {"starting weights": "none: trained from scratch"}
    return {"starting weights": str(weights.get("license") or "not stated; see their source")}


def _predict(
    deployable: Deployable, store: PixelStore, split: Split, thresholds: tuple[float, ...]
) -> tuple[SplitPredictions, float]:
    """Predictions for the photos of the split on one thread, and the median milliseconds of one photo."""
    rows = store.rows(split)
    probabilities, times = [], []
    with torch_threads(1), torch.inference_mode():
        for row in rows:
            photo = torch.from_numpy(np.array(store.photo(int(row))))
            started = time.perf_counter()
            probabilities.append(deployable(photo)[0].numpy())
            times.append(1000 * (time.perf_counter() - started))
    timed = times[WARM_UP : WARM_UP + TIMED_PHOTOS] or times
    predictions = SplitPredictions(store.labels(rows), np.stack(probabilities), store.groups_of(rows), thresholds)
    return predictions, round(statistics.median(timed), 3)
