"""What a run has stored of its photos without labels: the teacher's mean soft labels and features of each.

Nothing is computed anew but the student's predictions, of which a run stores none for these photos.
"""

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from potstill.compute.device import decide
from potstill.compute.inference import plain_outputs
from potstill.compute.precision import Precision
from potstill.config.load import from_mapping
from potstill.config.schema import Config, MachineConfig
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.splits import Split
from potstill.data.unlike import read_unlike
from potstill.deploy.predictor import best_seed, chosen_student
from potstill.errors import DataError
from potstill.images.folder import Folder, plain_name
from potstill.images.selection import assigned_split, drawn_splits, read_for_training
from potstill.metrics.classification import Classification
from potstill.models.classifier import load
from potstill.run.files import read_toml_text
from potstill.run.folder import Run
from potstill.run.layout import journal_path, usable_students
from potstill.suggest.journal import read_steps
from potstill.wording import counted

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class RunPhotos:
    """The photos of a run, and its photo folder as it is today."""

    data: Path
    """As the run's config.toml names it."""
    folder: Folder
    config: Config
    lines: tuple[Mapping[str, str], ...]
    """Of images.csv: the position is the row of the pixel store."""
    labeled: frozenset[str]
    """The files that have a label in the folder today, by their path in it."""
    unlabeled: frozenset[str]
    """Those of them that have no label, neither in the folder nor, where photos are copied, by `suggest --label`."""
    drawn: tuple[Split, ...]
    """The splits that are drawn from train."""

    @classmethod
    def of(cls, run: Run) -> "RunPhotos":
        """Read the list of photos, and list the folder. Raises DataError where there is none any more."""
        values = tomllib.loads(read_toml_text(run.path / "config.toml"))
        data = Path(values.pop("data"))
        config = from_mapping(values)
        if config.update.run:
            raise DataError(
                f"`potstill suggest` is for photos in one photo folder, and {run.path} has those of "
                f"{config.update.run}, too.\n  Run `potstill distill` on a folder with all photos first."
            )
        folder = read_for_training(data, config.images, runs=run.path.parent)
        with (run.images / "images.csv").open(encoding="utf-8", newline="") as file:
            lines = tuple(csv.DictReader(file))
        files = {plain_name(file.path.relative_to(folder.root)): file for file in folder.files}
        labeled = frozenset(name for name, file in files.items() if file.split != "unlabeled")
        given = {step.path for step in read_steps(journal_path(run))}
        unlabeled = frozenset(files) - labeled - given
        return cls(data, folder, config, lines, labeled, unlabeled, drawn_splits(folder))

    def becomes(self, row: int) -> str:
        """The split that a photo without a label is in once it lies in a class folder."""
        line = self.lines[row]
        given = None if self.folder.flat else "train"
        key = line.get("group") or line["sha256"]
        config = self.config.images
        return assigned_split(given, key, self.drawn, config, config.test_share)


@dataclass(frozen=True, slots=True)
class Pool:
    """The photos to choose from, and what the run knows of them."""

    rows: np.ndarray
    """(n,) of the pixel store."""
    teacher: np.ndarray
    """(n, C) the teacher's mean soft labels, as probabilities."""
    student: np.ndarray | None
    """(n, C) probabilities of the student; None where none is trained."""
    features: np.ndarray
    """(n, D) the teacher's features, standardized and of length 1."""
    notes: tuple[str, ...]
    """What is not in it, and why; one sentence each."""
    several_labels: bool = False
    """Whether a photo may have several labels: every class has a probability of its own then."""


def read_pool(run: Run, photos: RunPhotos) -> Pool:
    """The photos without labels that may be suggested.

    Raises:
        DataError: there are none.
        PotstillError: the soft labels are not finished.
    """
    store, soft = PixelStore(run.images), SoftLabels.open(run)
    rows = soft.photos
    known, kind = store.is_labeled(rows), Classification.of(store.several_labels)
    if known.all() and not (unlike := len(read_unlike(run))):
        rest = ' Those that images.rest = "out" leaves out were not read.' if photos.config.images.per_class else ""
        raise DataError(
            f"{run.path} has no photos without labels, so there is nothing to suggest.{rest}\n"
            "  Put photos that nobody has labeled into a folder unlabeled/ beside train/ or the class folders, and run "
            "`potstill distill` again."
        )
    unlike = len(read_unlike(run))
    names = [photos.lines[row]["path"] for row in rows.tolist()]
    withheld = ~known & np.array([name in photos.labeled for name in names], bool)
    gone = ~known & ~withheld & ~np.array([name in photos.unlabeled for name in names], bool)
    held = np.zeros(len(rows), bool)
    for position in np.flatnonzero(~known & ~gone & ~withheld):
        held[position] = photos.becomes(int(rows[position])) != "train"
    chosen = np.flatnonzero(~known & ~gone & ~held)
    notes = tuple(_notes(unlike, int(gone.sum()), int(held.sum()), int(withheld.sum())))
    if not len(chosen):
        raise DataError("\n  ".join(["No photo is left to suggest.", *notes]))
    probabilities, features = _means(soft, kind)
    features = (features - soft.feature_mean) / soft.feature_std
    features /= np.linalg.norm(features, axis=1, keepdims=True) + 1e-8
    return Pool(
        rows=rows[chosen],
        teacher=probabilities[chosen],
        student=_student_probabilities(run, store, rows[chosen], kind),
        features=features[chosen],
        notes=notes,
        several_labels=store.several_labels,
    )


def _notes(unlike: int, gone: int, held: int, withheld: int) -> list[str]:
    notes = []
    if unlike:
        notes.append(
            f"{counted(unlike, 'photo')} unlike any of the labeled ones (2_teacher/unlike.csv): not suggested. If your "
            "classes are among them, label a few of that kind by hand."
        )
    if held:
        notes.append(
            f"{counted(held, 'photo')} would become val or test photos: not suggested, so that these stay as they are."
        )
    if gone:
        notes.append(f"{counted(gone, 'photo')} moved or labeled since the run: not suggested.")
    if withheld:
        notes.append(
            f"{counted(withheld, 'photo')} in class folders, whose labels images.per_class withholds: counted as "
            "photos without labels."
        )
    return notes


def _means(soft: SoftLabels, kind: Classification) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, C) and features (N, D), float32: the means over the views in which a photo is least blended
    with another one, for most photos not at all."""
    weights = np.asarray(soft.views["weight"])
    pure = weights == weights.max(axis=1, keepdims=True)
    temperature = float(soft.meta["val_temperature"])
    parts = []
    for start in range(0, len(pure), _BLOCK):
        photo, view = np.nonzero(pure[start : start + _BLOCK])
        first = np.flatnonzero(np.diff(photo, prepend=-1))
        count = np.diff(first, append=len(photo))[:, None]
        values = (
            kind.probabilities(soft.logits(photo + start, view).astype(np.float32) / temperature),
            soft.features(photo + start, view).astype(np.float32),
        )
        parts.append([np.add.reduceat(value, first) / count for value in values])
    probabilities, features = (np.concatenate(part) for part in zip(*parts, strict=True))
    return probabilities, features


def _student_probabilities(run: Run, store: PixelStore, rows: np.ndarray, kind: Classification) -> np.ndarray | None:
    """(n, C) of the distilled student that was chosen on val."""
    if not usable_students(run):
        return None
    machine = decide(MachineConfig())
    model = load(best_seed(run, chosen_student(run), "distilled")).to(machine.device).eval()
    precision = Precision(torch.device(machine.device))
    _, logits = plain_outputs(model, store, rows, precision, threads=machine.cores)
    return kind.probabilities(logits / model.info.trained.temperature)
