"""Which test photos the report shows, and their small pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from potstill.data.label_errors import Suspect
from potstill.data.pixels import PixelStore
from potstill.data.unlike import Unlike
from potstill.report.read import ModelPredictions as Model
from potstill.report.read import Predictions, RunFiles
from potstill.wording import counted

SHOWN = 12
"""Photos per list."""

SIDE = 176
"""Longer side of a small picture, in pixels: sharp at 150 px on the page, about 5 kB."""

MIN_CONFIDENCE = 0.75
"""A label counts as doubtful when teacher and student both give another class at least this probability."""


@dataclass(frozen=True, slots=True)
class CardPrediction:
    """What one model predicts for one photo."""

    who: str
    label: str
    probability: float
    right: bool
    seeds: str
    """ "right with 2 of 3 seeds", empty for the teacher."""


@dataclass(frozen=True, slots=True)
class Card:
    """One photo on the page."""

    path: str
    truth: str
    picture: str
    """A data URI."""
    predictions: tuple[CardPrediction, ...]
    author: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class PhotoLists:
    """The photos worth a look, for one student."""

    fixed: list[Card]
    broken: list[Card]
    most_wrong: list[Card]
    most_uncertain: list[Card]
    wrong_labels: list[Card]
    """Of test."""
    suspects: list[Card]
    """Of train, by the teacher's out-of-fold predictions."""
    unlike: list[Card]
    """Without a label, and not used."""
    fixed_total: int
    broken_total: int
    wrong_total: int
    wrong_labels_total: int
    suspects_total: int | None
    """None where the teacher has no out-of-fold predictions."""


def wrong_labels(teacher: Model, distilled: Model, labels: np.ndarray) -> np.ndarray:
    """Positions of test photos for which teacher and student confidently predict the same wrong class, by confidence.

    Source: the idea of confident learning (Northcutt et al. 2021), reduced to two models and one threshold.
    """
    position = np.arange(len(labels))
    other = teacher.best
    doubtful = (other != labels) & (distilled.best == other)
    confidence = np.minimum(teacher.probabilities[position, other], distilled.probabilities[position, other])
    doubtful &= confidence >= MIN_CONFIDENCE
    found = np.flatnonzero(doubtful)
    return found[np.argsort(-confidence[found], kind="stable")]


def choose(files: RunFiles, teacher: Model, distilled: Model, alone: Model) -> PhotoLists:
    """Pick the photos and make their cards."""
    predictions = files.predictions
    labels, position = predictions.labels, np.arange(len(predictions))
    gain = distilled.right_seeds - alone.right_seeds
    truth = distilled.probabilities[position, labels]
    change = truth - alone.probabilities[position, labels]
    confidence = distilled.probabilities.max(-1)
    wrong = np.flatnonzero(distilled.best != labels)
    doubtful = wrong_labels(teacher, distilled, labels)
    maker = _Maker(files, predictions, teacher, distilled, alone)
    return PhotoLists(
        fixed=maker.cards(_top(np.flatnonzero(gain > 0), gain, change)),
        broken=maker.cards(_top(np.flatnonzero(gain < 0), -gain, -change)),
        most_wrong=maker.cards(wrong[np.argsort(truth[wrong], kind="stable")][:SHOWN]),
        most_uncertain=maker.cards(np.argsort(confidence, kind="stable")[:SHOWN]),
        wrong_labels=maker.cards(doubtful[:SHOWN]),
        suspects=maker.suspects((files.suspects or [])[:SHOWN]),
        unlike=maker.unlike(files.unlike[-SHOWN:][::-1]),
        fixed_total=int(np.sum(gain > 0)),
        broken_total=int(np.sum(gain < 0)),
        wrong_total=len(wrong),
        wrong_labels_total=len(doubtful),
        suspects_total=None if files.suspects is None else len(files.suspects),
    )


def _top(found: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The SHOWN positions with the largest `first`, ties by `second`."""
    return found[np.lexsort((-second[found], -first[found]))][:SHOWN]


class _Maker:
    """Makes cards; a photo that is on several lists is read once."""

    def __init__(
        self,
        files: RunFiles,
        predictions: Predictions,
        teacher: Model,
        distilled: Model,
        alone: Model,
    ) -> None:
        self._files, self._predictions = files, predictions
        self._models = (("alone", alone), ("distilled", distilled), ("teacher", teacher))
        self._authors = {
            row["path"]: ", ".join(filter(None, (row.get("author"), row.get("license")))) for row in files.attribution
        }
        self._made: dict[int, Card] = {}

    def cards(self, positions: Sequence[int] | np.ndarray) -> list[Card]:
        return [self._card(int(position)) for position in positions]

    def suspects(self, found: Sequence[Suspect]) -> list[Card]:
        """Cards of training photos."""
        rows = {photo["sha256"]: row for row, photo in enumerate(self._files.photos)} if found else {}
        return [self._suspect(rows[suspect.sha256], suspect) for suspect in found]

    def unlike(self, found: Sequence[Unlike]) -> list[Card]:
        """Cards of photos that were left out."""
        return [self._unlike(photo) for photo in found]

    def _unlike(self, photo: Unlike) -> Card:
        picture, author = small_picture(self._files.store, photo.row), self._authors.get(photo.path, "")
        return Card(photo.path, "", picture, (), author, f"Similarity {photo.similarity:.2f}")

    def _suspect(self, row: int, suspect: Suspect) -> Card:
        photo = self._files.photos[row]
        return Card(
            photo["path"],
            photo["class"],
            small_picture(self._files.store, row),
            (),
            self._authors.get(photo["path"], ""),
            f"Looks like {suspect.likely}; the label gets {100 * suspect.probability:.0f} %",
        )

    def _card(self, position: int) -> Card:
        if position not in self._made:
            row, label = int(self._predictions.rows[position]), int(self._predictions.labels[position])
            path = self._files.photos[row]["path"]
            self._made[position] = Card(
                path,
                self._files.classes[label],
                small_picture(self._files.store, row),
                tuple(self._prediction(who, model, position, label) for who, model in self._models),
                self._authors.get(path, ""),
            )
        return self._made[position]

    def _prediction(self, who: str, model: Model, position: int, label: int) -> CardPrediction:
        best = int(model.best[position])
        several = who != "teacher" and model.seeds > 1
        return CardPrediction(
            who,
            self._files.classes[best],
            float(model.probabilities[position, best]),
            best == label,
            f"right with {model.right_seeds[position]} of {counted(model.seeds, 'seed')}" if several else "",
        )


def small_picture(store: PixelStore, row: int) -> str:
    """A photo of the store as a data URI."""
    image = store.photo(row)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=76, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
