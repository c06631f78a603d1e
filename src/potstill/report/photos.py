"""Which test photos the report shows, and their small pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from potstill.data.label_errors import Suspect
from potstill.data.pixels import PixelStore
from potstill.data.unlike import Unlike
from potstill.report.read import ModelPredictions as Model
from potstill.report.read import Predictions, RunFiles
from potstill.wording import counted

Photos = Literal["all", "blurred", "none"]
"""What a page shows of the photos themselves. Only with all of them it names their files, too."""

SHOWN = 12
"""Photos per list."""

BLURRED_SIDE = 10
"""Longer side of a blurred picture, in pixels: browsers enlarge it to spots of color. No more of it is in the page."""

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

    name: str
    """Its file, or its row in images.csv on pages without files' names."""
    truth: str
    picture: str
    """A data URI; empty on pages without photos."""
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


def choose(files: RunFiles, teacher: Model, distilled: Model, alone: Model, shown: Photos = "all") -> PhotoLists:
    """Pick the photos and make their cards."""
    predictions = files.predictions
    labels, position = predictions.labels, np.arange(len(predictions))
    gain = distilled.right_seeds - alone.right_seeds
    truth = distilled.probabilities[position, labels]
    change = truth - alone.probabilities[position, labels]
    confidence = distilled.probabilities.max(-1)
    wrong = np.flatnonzero(distilled.best != labels)
    doubtful = wrong_labels(teacher, distilled, labels)
    maker = _Maker(files, predictions, teacher, distilled, alone, shown)
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
        shown: Photos,
    ) -> None:
        self._files, self._predictions, self._shown = files, predictions, shown
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
        return self._made_of(photo.row, photo.path, "", (), f"Similarity {photo.similarity:.2f}")

    def _suspect(self, row: int, suspect: Suspect) -> Card:
        photo = self._files.photos[row]
        note = f"Looks like {suspect.likely}; the label gets {100 * suspect.probability:.0f} %"
        return self._made_of(row, photo["path"], photo["class"], (), note)

    def _card(self, position: int) -> Card:
        if position not in self._made:
            row, label = int(self._predictions.rows[position]), int(self._predictions.labels[position])
            predictions = tuple(self._prediction(who, model, position, label) for who, model in self._models)
            path, truth = self._files.photos[row]["path"], self._files.classes[label]
            self._made[position] = self._made_of(row, path, truth, predictions)
        return self._made[position]

    def _made_of(
        self, row: int, path: str, truth: str, predictions: tuple[CardPrediction, ...], note: str = ""
    ) -> Card:
        name = path if self._shown == "all" else f"row {row} of images.csv"
        side = {"all": SIDE, "blurred": BLURRED_SIDE, "none": 0}[self._shown]
        picture = small_picture(self._files.store, row, side) if side else ""
        return Card(name, truth, picture, predictions, self._authors.get(path, "") if picture else "", note)

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


def small_picture(store: PixelStore, row: int, side: int = SIDE) -> str:
    """A photo of the store as a data URI, its longer side of this many pixels."""
    image = store.photo(row)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=76, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
