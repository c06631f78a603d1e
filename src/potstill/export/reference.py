"""What every file of a student is compared with: the torch student's own answers to the val and test photos."""

import json
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import metrics
from potstill.data.pixels import PixelStore
from potstill.data.splits import Split
from potstill.deploy.deployable import Deployable
from potstill.export.score import TIMED_PHOTOS, WARM_UP
from potstill.models.classifier import Classifier, load
from potstill.run.files import sha256_of
from potstill.run.folder import Run
from potstill.run.results import read_comparison


@dataclass(frozen=True, slots=True)
class Told:
    """What the torch student says to the photos of a split."""

    labels: np.ndarray
    """(n,), what the photos show."""
    probabilities: np.ndarray
    """(n, C)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A torch student, and what it says."""

    run: Run
    name: str
    folder: Path
    model: Classifier
    val: Told
    """Ways to an int8 file are chosen here."""
    test: Told
    """Every file is judged here."""
    milliseconds: float
    """Median of one photo on one thread, as for the files."""
    confidence: float
    """Of all intervals: the one of the run's comparison."""

    @classmethod
    def of(cls, run: Run, name: str, folder: Path) -> "Reference":
        """Run the student of `folder` on the val and test photos."""
        model = load(folder)
        deployable = Deployable(model, temperature=_temperature(model)).eval()
        val, _ = _tell(deployable, PixelStore(run.images), "val")
        test, milliseconds = _tell(deployable, PixelStore(run.images), "test")
        confidence = read_comparison(run.comparison / "comparison.json").confidence
        return cls(run, name, folder, model, val, test, milliseconds, confidence)

    def facts(self) -> dict[str, Any]:
        """For export.json."""
        info, photos = self.model.info, len(self.test.labels)
        right = int(np.sum(self.test.probabilities.argmax(-1) == self.test.labels))
        low, high = metrics.wilson_interval(right, photos, self.confidence)
        return {
            "model": info.name,
            "seed": int(info.trained["seed"]),
            "arm": str(info.trained["arm"]),
            "weights_sha256": sha256_of(self.folder / "model.safetensors"),
            "size": info.size,
            "crop": info.crop_pct,
            "classes": list(info.classes),
            "temperature": _temperature(self.model),
            "threshold": float(info.trained.get("threshold", 0.0)),
            "test_photos": photos,
            "confidence": self.confidence,
            "accuracy": {"value": right / photos, "low": low, "high": high},
            "milliseconds": self.milliseconds,
        }

    def metadata(self) -> dict[str, str]:
        """The texts that travel in every file, beside the labels."""
        info = self.model.info
        return {
            "made_by": f"potstill {version('potstill')}",
            "student": self.name,
            "run": self.run.path.name,
            "fingerprint": self.run.stage("4_students").digest(),
            "weights_sha256": sha256_of(self.folder / "model.safetensors"),
            "size": str(info.size),
            "crop": repr(info.crop_pct),
            "input": input_rule(info.size, info.crop_pct),
            "temperature": repr(_temperature(self.model)),
            "threshold": repr(float(info.trained.get("threshold", 0.0))),
            "license": json.dumps(licenses(self.model), ensure_ascii=False),
        }


def input_rule(size: int, crop: float) -> str:
    """What goes into a file, in words."""
    square = "the center square" if crop == 1 else f"the middle {100 * crop:g} % (of the side) of the center square"
    return (
        f"one upright RGB photo, uint8, height x width x 3. A file that takes any size cuts {square} and "
        f"resizes it itself; one that takes {size} x {size} wants {square}, resized with an antialiased "
        "bilinear filter (Pillow's BILINEAR) on floats, then rounded. Normalization and softmax are inside."
    )


def licenses(model: Classifier) -> dict[str, str]:
    """What is known of the licenses of what the student is made from."""
    weights = model.info.weights
    if weights.get("source") == "none":
        return {"starting weights": "none: trained from scratch"}
    return {"starting weights": str(weights.get("license") or "not stated; see their source")}


def _tell(deployable: Deployable, store: PixelStore, split: Split) -> tuple[Told, float]:
    """What it says to the photos of the split on one thread, and the median milliseconds of one photo."""
    rows = store.rows(split)
    answers, times = [], []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for row in rows:
                photo = torch.from_numpy(np.array(store.photo(int(row))))
                started = time.perf_counter()
                answers.append(deployable(photo)[0].numpy())
                times.append(1000 * (time.perf_counter() - started))
    finally:
        torch.set_num_threads(threads)
    timed = times[WARM_UP : WARM_UP + TIMED_PHOTOS] or times
    return Told(store.labels(rows), np.stack(answers)), round(statistics.median(timed), 3)


def _temperature(model: Classifier) -> float:
    return float(model.info.trained.get("temperature", 1.0))
