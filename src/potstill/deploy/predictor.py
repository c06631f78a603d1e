"""Using a trained model: label and probability of a photo.

Importing this does not import torch, which takes seconds and which exported files do not need.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
from PIL import Image

from potstill.data.resize import fit
from potstill.errors import DataError, ModelError
from potstill.images.decode import decode, decode_file, normalize
from potstill.images.depth import GrayLevels
from potstill.images.errors import BadPhotoError
from potstill.run.folder import Run
from potstill.run.label_results import read_label_comparison
from potstill.run.layout import ARMS, comparison_path, given_path, usable_students
from potstill.run.results import read_chosen, read_comparison, read_training, several_labels_in
from potstill.run.trained import OperatingPoint
from potstill.storage.runs import local_run
from potstill.wording import counted

if TYPE_CHECKING:
    from potstill.models.classifier import Classifier

BARS = 10
"""A notebook shows the probabilities of at most so many classes."""

_BAR = "height: .8em; min-width: 1px; background: #0067a5"

Photo = str | Path | bytes | BinaryIO | Image.Image | np.ndarray


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model predicts for one photo."""

    label: str
    """The class of the model's operating point where its threshold is reached; otherwise the most probable of the
    others. Without an operating point, the most probable class."""
    probability: float
    """Of the label, after the temperature that was fitted on val."""
    probabilities: dict[str, float]
    """Of every class, in the order of the classes."""
    known: bool
    """False when the model is less sure than it was on 95 % of the val photos: perhaps none of these classes."""

    @classmethod
    def of(
        cls, values: np.ndarray, classes: Sequence[str], threshold: float, point: OperatingPoint | None = None
    ) -> "Prediction":
        """From the probabilities (C,) of the classes.

        Args:
            threshold: probability of the most probable class below which the prediction counts as unknown.
            point: the operating point that decides for or against its class.
        """
        by_name = {name: float(p) for name, p in zip(classes, values, strict=True)}
        label = predicted_class(by_name, point)
        return cls(label, by_name[label], by_name, bool(values.max() >= threshold))

    def _repr_html_(self) -> str:
        """What a notebook shows: the label, and a bar for each of the most probable classes."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        bars = "".join(
            f'<tr><td style="text-align: left">{escape(name)}</td><td>{100 * value:.1f} %</td>'
            f'<td style="width: 12em"><div style="width: {100 * value:.1f}%; {_BAR}"></div></td></tr>'
            for name, value in ranked[:BARS]
        )
        unsure = "" if self.known else "<p>Unsure: perhaps not one of these classes.</p>"
        more = f"<p><small>and {counted(len(ranked) - BARS, 'more class')}</small></p>" if len(ranked) > BARS else ""
        return f"<p><strong>{escape(self.label)}</strong></p>{unsure}<table><tbody>{bars}</tbody></table>{more}"


@dataclass(frozen=True, slots=True)
class LabelsPrediction:
    """What a model for several labels per photo predicts for one photo."""

    labels: tuple[str, ...]
    """The classes whose threshold is reached, the most probable first; none where it shows none of them."""
    probabilities: dict[str, float]
    """Of every class for itself, in the order of the classes; they do not sum to 1."""

    @classmethod
    def of(cls, values: np.ndarray, classes: Sequence[str], thresholds: Sequence[float]) -> "LabelsPrediction":
        """From the probabilities (C,) of the classes, and the threshold of each."""
        by_name = {name: float(p) for name, p in zip(classes, values, strict=True)}
        found = [name for name, least in zip(classes, thresholds, strict=True) if by_name[name] >= least]
        return cls(tuple(sorted(found, key=lambda name: -by_name[name])), by_name)


def prediction_of(model: "Decides", values: np.ndarray) -> Prediction | LabelsPrediction:
    """What a model makes of the probabilities (C,) of a photo."""
    if model.thresholds:
        return LabelsPrediction.of(values, model.classes, model.thresholds)
    return Prediction.of(values, model.classes, model.threshold, model.operating_point)


class Decides(Protocol):
    """What is known of how a model decides: a `Predictor`, or an exported file."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def threshold(self) -> float: ...
    @property
    def thresholds(self) -> tuple[float, ...]:
        """One for each class of a model for several labels per photo; empty for others."""
        ...

    @property
    def operating_point(self) -> OperatingPoint | None: ...


def predicted_class(probabilities: Mapping[str, float], point: OperatingPoint | None) -> str:
    """The class by the operating point, if there is one, or else the most probable one."""
    others = dict(probabilities)
    if point is not None and others.pop(point.class_name) >= point.threshold:
        return point.class_name
    return max(others, key=lambda name: others[name])


class Predictor:
    """A trained classifier, ready for photos."""

    def __init__(
        self,
        model: "Classifier",
        folder: Path,
        *,
        shift: Sequence[float] = (),
        point: OperatingPoint | None = None,
        thresholds: Sequence[float] = (),
    ) -> None:
        """Take a model with what it knows of itself.

        Args:
            shift: (C,) added to its logits, of a teacher that predicts as if all classes were equally frequent.
            point: of a teacher, which does not know of its operating point itself.
            thresholds: (C,) of a teacher that gives a photo several labels, for the same reason.
        """
        from potstill.deploy.deployable import Deployable

        self.model, self.folder, self.info = model, folder, model.info
        self.operating_point = point or model.info.trained.operating_point
        """Where a photo counts as one of a class; None where it is the most probable one."""
        self._thresholds = tuple(thresholds) or model.info.trained.thresholds
        self._deployable = Deployable(model, temperature=model.info.trained.temperature, shift=shift).eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.info.classes

    @property
    def gray(self) -> GrayLevels:
        """Black and white of gray photos with more than 8 bits."""
        return GrayLevels.of(self.info.trained.gray_levels)

    @property
    def threshold(self) -> float:
        """Below it a prediction counts as unknown: of the largest probability, or with several labels per photo of the
        mean certainty of the decisions. 0 where it is not known."""
        return self.info.trained.threshold

    @property
    def thresholds(self) -> tuple[float, ...]:
        """With several labels per photo: of each class the probability from which on a photo has it. A teacher's are
        0.5 before there is a comparison."""
        if not self.info.several_labels:
            return ()
        return self._thresholds or (0.5,) * len(self.classes)

    def predict(self, photo: Photo) -> Any:
        """Classify one photo: a path, the bytes of a file, a binary file, a Pillow image, or an upright (H, W, 3) uint8
        RGB array. All but the array are turned upright and converted to sRGB.

        Gives a `Prediction`, or where photos may have several labels a `LabelsPrediction`.

        Raises:
            DataError: it is not a usable photo, or the array has another shape.
        """
        import torch

        with torch.inference_mode():
            values = self._deployable(torch.from_numpy(to_pixels(photo, self.info.trained.gray_levels)))[0].numpy()
        return prediction_of(self, values)

    def predict_many(self, photos: Iterable[Photo]) -> list[Any]:
        """Classify many photos: as `predict` does, several times as fast, on all cores and in batches.

        Raises:
            DataError: as `predict`, for the first photo that is not usable.
        """
        from potstill.deploy.batches import predict_all

        return predict_all(self, photos)

    works_in_processes = True

    def worker(self, *, processes: bool = False) -> Callable[[Photo], np.ndarray]:
        """For `potstill.deploy.batches`: a photo to (S, S, 3) uint8 as `fit` resizes it, which needs no torch."""
        info = self.info
        return functools.partial(_fitted, size=info.size, crop=info.crop_pct, gray_levels=info.trained.gray_levels)

    def from_workers(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """(B, C) probabilities of pixels (S, S, 3) uint8 of B photos."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float()
            return self._deployable.probabilities(pixels).numpy()

    def __repr__(self) -> str:
        return f"<Predictor {self.info.name} {self.info.size} px, {counted(len(self.classes), 'class')}, {self.folder}>"


def load_predictor(
    path: Path | str, *, student: str | None = None, arm: str = "distilled", seed: int | None = None
) -> Predictor:
    """A predictor from a run folder, or from a folder with model.json.

    Args:
        student: name of the student; the one that the comparison chose on val when None.
        arm: "distilled", "alone" (the twin) or "teacher".
        seed: None takes the seed with the lowest loss on val.
    Raises:
        ModelError: there is no such model, or the path names another one than the other arguments.
    """
    from potstill.models.classifier import load

    path = local_run(path)
    given = [f"{name} {value}" for name, value in (("student", student), ("seed", seed)) if value is not None]
    if (path / "model.json").is_file():
        given += [arm] if arm != "distilled" else []
        if given:
            raise ModelError(f"{path} holds one model; {' and '.join(given)} can be chosen from a run folder only.")
        return Predictor(load(path), path)
    run = Run.open(path)
    if arm == "teacher":
        if given:
            raise ModelError(f"The teacher has neither students nor seeds; leave out {' and '.join(given)}.")
        if given_path(run).is_file():
            raise ModelError(f"The teacher of {run.path} is a file of soft labels: it cannot classify other photos.")
        folders = sorted(run.teacher.rglob("model.json"))
        if len(folders) != 1:
            raise ModelError(f"{run.teacher} holds {counted(len(folders), 'model')}; name one of their folders.")
        return teacher_predictor(run, folders[0].parent)
    if arm not in ARMS:
        raise ModelError(f"There is no arm {arm!r}; choose distilled, alone or teacher.")
    folder = best_seed(run, student or chosen_student(run), arm, seed)
    return Predictor(load(folder), folder)


def teacher_predictor(run: Run, folder: Path) -> Predictor:
    """One of the teacher's networks, with what the comparison found of the teacher on val."""
    from potstill.models.classifier import load

    path = comparison_path(run)
    if not path.is_file():
        return Predictor(load(folder), folder)
    if several_labels_in(path):
        return Predictor(load(folder), folder, thresholds=read_label_comparison(path).teacher.thresholds)
    comparison = read_comparison(path)
    teacher, target, point = comparison.teacher, comparison.operating_point, None
    if teacher.operating and target:
        (threshold,) = teacher.operating.thresholds
        point = OperatingPoint(class_name=target.class_name, recall=target.recall, threshold=threshold)
    return Predictor(load(folder), folder, shift=teacher.logit_shift, point=point)


def chosen_student(run: Run) -> str:
    """The student that the comparison chose on val; before there is a comparison, the first one that is trained.

    Raises:
        ModelError: none is trained yet.
    """
    path = comparison_path(run)
    if path.is_file():
        return read_chosen(path).name
    names = usable_students(run)
    if not names:
        raise ModelError(f"No student of {run.path} is trained yet. To see its progress: potstill status {run.path}")
    return names[0]


def best_seed(run: Run, student: str, arm: str, seed: int | None = None) -> Path:
    """The folder of the seed with the lowest loss on val, or of the seed asked for. Raises ModelError."""
    names = usable_students(run)
    if student not in names:
        trained = f"Trained are: {', '.join(names)}." if names else "None is trained yet."
        raise ModelError(f"The run {run.path} has no trained student {student!r}. {trained}")
    found: dict[int, Any] = {
        int(done.parent.parent.name.removeprefix("seed-")): done.parent
        for done in (run.students / student).glob(f"seed-*/{arm}/done.json")
    }
    if seed is not None:
        if seed not in found:
            raise ModelError(f"{student} has no seed {seed}. It has: {', '.join(map(str, sorted(found)))}.")
        return Path(found[seed])
    if not found:
        raise ModelError(f"{student} has no finished {arm} model in {run.path}.")
    return Path(min(found.values(), key=lambda folder: read_training(folder).rank))


def _fitted(photo: Photo, *, size: int, crop: float, gray_levels: Mapping[str, Sequence[float]]) -> np.ndarray:
    return fit(to_image(photo, gray_levels), size, crop)


def to_pixels(photo: Photo, gray_levels: Mapping[str, Sequence[float]] | None = None) -> np.ndarray:
    """An upright (H, W, 3) uint8 RGB array of the photo. Arguments and errors as of `to_image`."""
    return np.array(to_image(photo, gray_levels))


def to_image(photo: Photo, gray_levels: Mapping[str, Sequence[float]] | None = None) -> Image.Image:
    """An upright RGB picture of the photo.

    Args:
        gray_levels: black and white of gray photos with more than 8 bits, as stored with the model.
    Raises:
        DataError: as `Predictor.predict` does.
    """
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or photo.size == 0:
            raise DataError(f"A photo array must be (H, W, 3) uint8 RGB, got {photo.shape} {photo.dtype}.")
        return Image.fromarray(photo)
    name = str(photo) if isinstance(photo, str | Path) else f"This {type(photo).__name__}"
    try:
        return _to_image(photo, GrayLevels.of(gray_levels))
    except BadPhotoError as error:
        raise DataError(f"{name} is not a usable photo ({error.code}: {error.reason}).") from None


def _to_image(photo: object, gray: GrayLevels) -> Image.Image:
    if isinstance(photo, str | Path):
        return decode_file(Path(photo), gray=gray).image
    if isinstance(photo, Image.Image):
        return normalize(photo, gray=gray)
    if isinstance(photo, bytes | bytearray | memoryview):
        return decode(bytes(photo), gray=gray).image
    if hasattr(photo, "read"):
        data = photo.read()
        if isinstance(data, bytes):
            return decode(data, gray=gray).image
        raise DataError("A file object must be opened in binary mode: open(path, 'rb').")
    raise DataError(
        "A photo must be a path, bytes, a binary file, a Pillow image or an (H, W, 3) uint8 RGB array, "
        f"not {type(photo).__name__}."
    )
