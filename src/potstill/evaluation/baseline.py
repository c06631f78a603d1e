"""What a model is compared with: the run that it comes from, its own test photos, and what it learned from."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.check.inspect import Inspected
from potstill.data.pixels import PixelStore
from potstill.deploy.batches import Model, probabilities_of_each
from potstill.images.copies import LEAK_BITS
from potstill.images.duplicates import THUMB, Fingerprint, fingerprint, same_pairs
from potstill.images.tables import packed_hashes_by_split
from potstill.processes.pools import in_order
from potstill.run.files import read_toml_text
from potstill.run.folder import Run
from potstill.run.layout import comparison_path

DEFAULT_CONFIDENCE = 0.95

UNLABELED, UNKNOWN = -1, -2
"""Instead of a class index: no label, and a class that the model does not have."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Labels and probabilities on some photos."""

    labels: np.ndarray
    """(n,) class indices, UNLABELED or UNKNOWN; (n, C) of 0 and 1 where a photo may have several labels, with rows of
    UNLABELED."""
    probabilities: np.ndarray
    """(n, C)."""

    @property
    def unlabeled(self) -> np.ndarray:
        """(n,) bool."""
        return np.asarray(self.labels.reshape(len(self.labels), -1)[:, 0] == UNLABELED)

    def __getitem__(self, which: np.ndarray) -> "Outputs":
        """Those of some of the photos."""
        return Outputs(self.labels[which], self.probabilities[which])

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool."""
        return np.asarray(self.probabilities.argmax(-1) == self.labels)

    def of_known_classes(self) -> "Outputs":
        """The photos with a label that the model has."""
        return self[self.labels >= 0]

    def counts(self, which: np.ndarray | None = None) -> np.ndarray:
        """(C,) photos of each class, of those `which` (n,) bool."""
        labels = self.labels if which is None else self.labels[which]
        return np.bincount(labels, minlength=self.probabilities.shape[1])


def run_of(model: Path) -> Run | None:
    """The run that a model belongs to: the folder itself, or one that it lies in; None where there is none."""
    for folder in (model, *model.resolve().parents[:5]):
        if (folder / "config.toml").is_file() and (folder / "1_images").is_dir():
            return Run.open(folder)
    return None


def confidence_of(run: Run | None) -> float:
    """Of intervals, as in the run's comparison."""
    if run is None:
        return DEFAULT_CONFIDENCE
    return float(tomllib.loads(read_toml_text(run.path / "config.toml"))["comparison"]["confidence"])


def test_outputs(run: Run | None, model: Model) -> Outputs | None:
    """The model on the test photos of its run; None before the run has compared its models on them."""
    if run is None or not comparison_path(run).is_file() or tuple(run.classes()) != model.classes:
        return None
    store = PixelStore(run.images)
    rows = store.rows("test")
    photos = ((row, store.photo(int(row))) for row in rows)
    found = [values for _, values in probabilities_of_each(model, photos) if isinstance(values, np.ndarray)]
    return Outputs(store.labels(rows), np.stack(found))


@dataclass(frozen=True, slots=True)
class Seen:
    """New photos by position that show the same picture as a photo of the run."""

    learned_from: frozenset[int]
    """As one of train, val or unlabeled."""
    in_test: frozenset[int]


def seen_before(run: Run | None, photos: list[Inspected]) -> Seen:
    """Find new photos that the run had, by their bytes or by their looks (`potstill.images.duplicates`)."""
    if run is None:
        return Seen(frozenset(), frozenset())
    found = dict(_same_bytes(run, photos))
    store = PixelStore(run.images)
    usable = [i for i, photo in enumerate(photos) if photo.marks is not None and i not in found]
    if usable:
        marks = [photo.marks for i in usable if (photo := photos[i]).marks is not None]
        known = list(in_order(_fingerprints_of(store), range(len(store)), chunk=64, processes=False))
        every = [*known, *marks]
        pairs = same_pairs(
            np.array([m.hash for m in every], np.uint64),
            np.array([m.mirrored for m in every], np.uint64),
            np.array([m.thumb for m in every], np.uint8).reshape(-1, THUMB, THUMB),
            max_bits=LEAK_BITS,
        )
        test = set(store.rows("test").tolist())
        for first, second, _ in pairs:
            if first < len(known) <= second:
                i = usable[second - len(known)]
                found[i] = found.get(i, False) or first not in test
    learned_from = frozenset(i for i, learned in found.items() if learned)
    return Seen(learned_from, frozenset(found.keys() - learned_from))


def _fingerprints_of(store: PixelStore) -> Callable[[Sequence[int]], list[Fingerprint]]:
    return lambda rows: [fingerprint(store.photo(row)) for row in rows]


def _same_bytes(run: Run, photos: list[Inspected]) -> Iterator[tuple[int, bool]]:
    """Position of every photo that the run had byte for byte, and whether it learned from it."""
    splits = packed_hashes_by_split(run.images)
    for i, photo in enumerate(photos):
        if split := splits.get(photo.sha256):
            yield i, split != "test"
