"""How far students and twins follow the teacher: on views of photos that students learn from, on val and on test.

train_views.npz     photos (m,) and views (m,) of the soft labels; NAME/distilled and NAME/alone (S, m, C): logits

No teacher is run for it: its outputs for train views are the stored soft labels, for val they are stored too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from potstill import metrics
from potstill.compute.inference import BATCH, outputs
from potstill.compute.precision import Precision
from potstill.context import Context
from potstill.data.arrays import open_arrays
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer
from potstill.models.classifier import load, load_info
from potstill.run.files import replacing
from potstill.run.folder import Run
from potstill.run.layout import ARMS, model_folder
from potstill.run.results import Agreement

MAX_TRAIN_VIEWS = 1_000
"""Standard error of an agreement of 95 %: 0.7 points."""

Logits = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class TrainViews:
    """One unmixed view of each of some photos that students learn from, labeled or not."""

    photos: np.ndarray
    """(m,) positions in the soft labels."""
    numbers: np.ndarray
    """(m,) the view of each."""

    @classmethod
    def of(cls, soft: SoftLabels) -> "TrainViews":
        """The same ones whenever they are drawn; none where every view is mixed."""
        unmixed = soft.views["partner"] < 0
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(unmixed.any(1)))[:MAX_TRAIN_VIEWS]
        photos = np.sort(drawn)
        return cls(photos, unmixed[photos].argmax(1))

    def logits(self, name: str, seeds: int, soft: SoftLabels, context: Context) -> dict[str, np.ndarray]:
        """NAME/distilled and NAME/alone: (S, m, C)."""
        run, machine = context.run, context.machine
        store = PixelStore(run.images)
        precision = Precision(torch.device(machine.device), torch.float32)
        size = load_info(model_folder(run, name, 0, ARMS[0])).size
        renderer = Renderer(store, soft.photos, soft.views, size, threads=machine.cores)
        pixels = renderer(self.photos, self.numbers)
        found = {}
        for arm in ARMS:
            models = [load(model_folder(run, name, seed, arm)).to(machine.device) for seed in range(seeds)]
            blocks = [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]
            found[f"{name}/{arm}"] = np.stack(
                [np.concatenate([outputs(model, block, precision)[1] for block in blocks]) for model in models]
            )
        return found


@dataclass(frozen=True, slots=True)
class Agreements:
    """What is needed for the agreement of any student or twin of a run."""

    run: Run
    seeds: int
    num_train_views: int
    train_logits: Logits
    """teacher (m, C), NAME/distilled and NAME/alone (S, m, C); empty without train views."""
    test_logits: Logits
    """The same on test."""
    shift: np.ndarray
    """(C,) added to the teacher's stored logits where it predicts classes."""

    @classmethod
    def measure(
        cls, context: Context, names: Sequence[str], seeds: int, known: Logits, test: Logits, shift: np.ndarray
    ) -> "Agreements":
        """Run students and twins on train views and store their logits.

        Args:
            known: what `train_views.npz` has of models that are still the same.
            test: logits on test, as in predictions.npz.
            shift: (C,) added to the teacher's stored logits where it predicts classes.
        """
        run = context.run
        soft = SoftLabels.open(run)
        views = TrainViews.of(soft)
        if not len(views.photos):
            return cls(run, seeds, 0, {}, test, shift)
        logits = {key: values for key, values in known.items() if values.shape[1] == len(views.photos)}
        todo = [name for name in names if not logits.keys() >= {f"{name}/{arm}" for arm in ARMS}]
        label = "Scoring on train views"
        with context.reporter.bar(label, len(todo), unit="student", part="train views") as update:
            for done, name in enumerate(todo, 1):
                logits |= views.logits(name, seeds, soft, context)
                update(done)
        _store(run.comparison / "train_views.npz", views, logits)
        teacher = soft.logits(views.photos, views.numbers).astype(np.float32) + shift
        return cls(run, seeds, len(views.photos), {**logits, "teacher": teacher}, test, shift)

    def of(self, name: str, arm: str) -> Agreement:
        """The means over the seeds."""
        key = f"{name}/{arm}"
        folders = [model_folder(self.run, name, seed, arm) for seed in range(self.seeds)]
        val_logits = np.stack([_val_logits(folder) for folder in folders])
        teacher_on_val = np.load(self.run.soft_labels / "val_logits.npy", allow_pickle=False) + self.shift
        on_train = self.train_logits
        return Agreement(
            train_views=metrics.agreement(on_train[key], on_train["teacher"]) if on_train else None,
            val=metrics.agreement(val_logits, teacher_on_val),
            test=metrics.agreement(self.test_logits[key], self.test_logits["teacher"]),
        )


def _store(path: Path, views: TrainViews, logits: Logits) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, photos=views.photos, views=views.numbers, **logits)


def _val_logits(folder: Path) -> np.ndarray:
    with open_arrays(folder / "val_predictions.npz") as stored:
        return np.asarray(stored["logits"])
