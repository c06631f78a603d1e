"""Teachers that are not trained here: files whose outputs are soft labels as they are.

`open_external` reads and checks the file before anything long begins, `ExternalTeacher.take` is the whole of stage 2.
From there on an ONNX classifier is a network like any other, stored as `model.onnx`.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from potstill.compute.inference import plain_outputs
from potstill.compute.precision import Precision
from potstill.compute.timing import photos_per_second
from potstill.config.schema import Config, ExternalConfig
from potstill.context import Context
from potstill.data.arrays import save_array
from potstill.data.class_map import read_class_map
from potstill.data.given_labels import GivenLabels, photo_rows, read_given_labels
from potstill.data.pixels import PixelStore
from potstill.errors import ConfigError, DataError, ModelError
from potstill.metrics.classification import Classification
from potstill.metrics.outputs import LEFT_OUT, SUM_TOLERANCE, Kind, Outputs, fault_of, kind_of
from potstill.models.classifier import ModelInfo
from potstill.models.onnx_classifier import OnnxClassifier, arguments_of
from potstill.models.onnx_file import OnnxFile, OnnxSession, num_macs, read_onnx
from potstill.run.files import sha256_of, write_bytes, write_json
from potstill.run.layout import given_path
from potstill.run.trained import Trained
from potstill.wording import counted

MOSTLY = 0.9
"""From this share of rows that are probabilities on, a row that is not is an error, and does not make all logits."""

VIEWS_ALIKE = (
    "every augmented view of a photo gets the photo's one soft label, and a view that blends two photos gets the blend "
    "of theirs; a model that sees each view labels it more exactly (onnx:FILE)"
)
"""The limit of soft labels from a file."""

NOISE = 4
"""Pictures of noise by which it is found out what an ONNX classifier gives."""


class ExternalTeacher(Protocol):
    """Where soft labels come from, when no teacher is trained for them."""

    @property
    def name(self) -> str:
        """As logs and reports call it."""

    @property
    def size(self) -> int:
        """Input side in pixels; 0 where no photo is shown to it."""

    def lines(self) -> list[str]:
        """How it was understood, for people."""

    def identity(self) -> dict[str, Any]:
        """What its outputs depend on, as plain JSON values."""

    def take(self, context: Context) -> tuple[np.ndarray, dict[str, Any]]:
        """Store it in `2_teacher/`. Returns its logits (n, C) on val, and facts for the stage."""


def open_external(
    config: Config, classes: Sequence[str], photos: Collection[str], *, several_labels: bool = False
) -> ExternalTeacher | None:
    """The file that is the teacher, checked; None where the teacher is trained here.

    Args:
        classes: of the run.
        photos: paths of all photos in the photo folder.
        several_labels: whether a photo may have several labels.
    Raises:
        ModelError, DataError, ConfigError: the file or its class map cannot be used.
    """
    external = config.teacher.external
    if external is None:
        return None
    if external.kind == "file":
        return GivenTeacher.open(external.path, external.name, config, classes, photos, several_labels=several_labels)
    return OnnxTeacher.open(external.path, external.name, config, classes, several_labels=several_labels)


@dataclass(frozen=True, slots=True)
class OnnxTeacher:
    """An ONNX classifier."""

    info: ModelInfo
    file: OnnxFile
    notes: tuple[str, ...]

    @classmethod
    def open(
        cls, path: Path, name: str, config: Config, classes: Sequence[str], *, several_labels: bool = False
    ) -> "OnnxTeacher":
        """Read and check the file, and run it once on noise to see what it gives."""
        file, external = read_onnx(path), config.external
        size, crop_pct = _size(file, config, path), external.crop_pct
        mean, std = external.normalization
        if file.signature.takes_gray_levels:
            _refuse_normalization(external, path)
            mean, std = (0.0,) * 3, (1 / 255,) * 3
        values = _outputs_for_noise(file, size, mean, std, name)
        outputs, notes = _outputs(values, file.labels, external, classes, path, several_labels)
        info = ModelInfo(
            name=name,
            classes=tuple(classes),
            size=size,
            mean=mean,
            std=std,
            architecture="onnx",
            arguments=dict(
                arguments_of(
                    file.signature,
                    outputs,
                    channels=external.channels,
                    parameters=file.parameters,
                    macs=num_macs(file.data, size),
                )
            ),
            crop_pct=crop_pct,
            several_labels=several_labels,
            weights={"source": "file", "file": path.name, "sha256": hashlib.sha256(file.data).hexdigest()},
        )
        return cls(info, file, (_input_note(file, info, external), *notes))

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def size(self) -> int:
        return self.info.size

    def model(self) -> OnnxClassifier:
        """Ready to run."""
        return OnnxClassifier(self.info, self.file.data)

    def lines(self) -> list[str]:
        return [f"{self.name}: {note}" for note in self.notes]

    def identity(self) -> dict[str, Any]:
        known = asdict(self.info)
        return {key: known[key] for key in ("name", "size", "mean", "std", "crop_pct", "arguments", "weights")}

    def take(self, context: Context) -> tuple[np.ndarray, dict[str, Any]]:
        folder, machine = context.run.teacher, context.machine
        write_bytes(folder / "model.onnx", self.file.data)
        store, model, precision = PixelStore(context.run.images), self.model(), Precision.on(machine.device)
        speed, _ = photos_per_second(model, self.size, precision, training=False)
        rows = store.rows("val")
        _, logits = plain_outputs(model, store, rows, precision, threads=machine.cores)
        trained = Trained(
            role="teacher",
            method="onnx",
            temperature=Classification.of(store.several_labels).fit_temperature(logits, store.labels(rows)),
            gray_levels=context.run.gray_levels(),
            runtime="onnxruntime",
        )
        info = replace(self.info, trained=trained)
        write_json(folder / "model.json", {**asdict(info), "sha256": sha256_of(folder / "model.onnx")})
        return logits, {"method": "onnx", "photos_per_second": {"onnxruntime": round(speed, 1)}}


@dataclass(frozen=True, slots=True)
class GivenTeacher:
    """Soft labels from a file: one row for each photo, and no model."""

    name: str
    given: GivenLabels
    outputs: Outputs
    sha256: str
    notes: tuple[str, ...]

    @classmethod
    def open(
        cls,
        path: Path,
        name: str,
        config: Config,
        classes: Sequence[str],
        photos: Collection[str],
        *,
        several_labels: bool = False,
    ) -> "GivenTeacher":
        """Read and check the file."""
        given, external = read_given_labels(path, config.external.order, photos), config.external
        several = several_labels
        kind = kind_of(given.values, several_labels=several) if external.output == "auto" else external.output
        fault = fault_of(given.values, kind, several_labels=several)
        if fault is None and kind == "logits" and external.output == "auto":
            fault = _almost_probabilities(given.values, several_labels=several)
        if fault:
            raise DataError(f"{given.where(fault[0])} {fault[1]}.")
        notes = [f"{counted(len(given.values), 'row')} of {kind} ({_reason(external, kind, several)})"]
        places, note = _places(given.values.shape[1], given.labels, external, classes, path)
        notes += [note, VIEWS_ALIKE]
        outputs = Outputs(kind=kind, classes=len(classes), places=places, several_labels=several)
        return cls(name, given, outputs, sha256_of(path), tuple(notes))

    @property
    def size(self) -> int:
        return 0

    def lines(self) -> list[str]:
        return [f"{self.name}: {note}" for note in self.notes]

    def identity(self) -> dict[str, Any]:
        order = hashlib.sha256("\n".join(self.given.rows).encode()).hexdigest()
        weights = {"source": "file", "file": self.given.path.name, "sha256": self.sha256}
        outputs = asdict(self.outputs)
        if not self.outputs.several_labels:  # as it was before there was a choice
            del outputs["several_labels"]
        return {"name": self.name, "outputs": outputs, "order": order, "weights": weights}

    def take(self, context: Context) -> tuple[np.ndarray, dict[str, Any]]:
        run, store = context.run, PixelStore(context.run.images)
        used, rows = photo_rows(run.images), self.given.rows
        if missing := [photo for photo in used if photo not in rows]:
            more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            test = set(store.rows("test").tolist())
            why = "\n  These are test photos. No model learns from them, but by their rows the teacher is scored there."
            raise DataError(
                f"{self.given.path} has no row for the photo {missing[0]!r}{more}. It needs one for every photo that "
                "is used: those to train on, with labels or without, val and test."
                + (why if all(used[photo] in test for photo in missing) else "")
            )
        logits = np.empty((len(store), self.outputs.classes), np.float32)
        logits[list(used.values())] = self.outputs.logits(self.given.values[[rows[photo] for photo in used]])
        save_array(given_path(run), logits)
        return logits[store.rows("val")], {"method": "file"}


def _almost_probabilities(values: np.ndarray, *, several_labels: bool = False) -> tuple[int, str] | None:
    """The row that keeps outputs from being probabilities, where nearly all of them are."""
    fits = ((values >= 0) & (values <= 1)).all(-1)
    if not several_labels:
        fits &= np.abs(values.sum(-1) - 1) <= SUM_TOLERANCE
    if fits.mean() < MOSTLY:
        return None
    row, text = fault_of(values, "probabilities", several_labels=several_labels) or (0, "")
    return row, f"{text}, while {fits.mean():.1%} of the rows are probabilities (external.output says what they are)"


def _size(file: OnnxFile, config: Config, path: Path) -> int:
    """Side of the photos that the classifier is given."""
    wanted, fixed, stated = config.teacher.size, file.signature.size, file.texts.get("size", "")
    if fixed:
        if wanted not in ("auto", fixed):
            raise ConfigError(f"teacher.size = {wanted}, but {path} takes photos of {fixed} x {fixed} pixels only.")
        return fixed
    if wanted != "auto":
        return wanted
    if file.texts.get("made_by", "").startswith("potstill") and stated.isdecimal():
        return int(stated)
    raise ConfigError(f"{path} takes photos of any size. Say at which it was trained: --teacher.size 224, for example.")


def _refuse_normalization(external: ExternalConfig, path: Path) -> None:
    default = ExternalConfig()
    for name in ("mean", "std", "input_range"):
        if getattr(external, name) != getattr(default, name):
            raise ConfigError(
                f"{path} takes gray levels 0 to 255 (uint8) and normalizes them itself: leave out external.{name}."
            )


def _outputs_for_noise(file: OnnxFile, size: int, mean: Sequence[float], std: Sequence[float], name: str) -> np.ndarray:
    """(NOISE, K) what the classifier gives for pictures of noise."""
    noise = np.random.default_rng(0).uniform(0, 1, (NOISE, 3, size, size))
    shape = (1, 3, 1, 1)
    pixels = (noise - np.reshape(mean, shape)) / np.reshape(std, shape)
    return OnnxSession(file.data, file.signature, name)(pixels.astype(np.float32))


def _outputs(
    values: np.ndarray,
    labels: Sequence[str],
    external: ExternalConfig,
    classes: Sequence[str],
    path: Path,
    several_labels: bool,
) -> tuple[Outputs, list[str]]:
    """What the outputs (n, K) for noise are and to which classes they belong, and notes about it."""
    kind = kind_of(values, several_labels=several_labels) if external.output == "auto" else external.output
    if fault := fault_of(values, kind, several_labels=several_labels):
        raise ModelError(f"{path}: of a picture of noise, it {fault[1].replace('holds', 'gives', 1)}.")
    count = values.shape[1]
    places, note = _places(count, labels if len(labels) == count else (), external, classes, path)
    notes = [f"its outputs are taken for {kind} ({_reason(external, kind, several_labels)})", note]
    return Outputs(kind=kind, classes=len(classes), places=places, several_labels=several_labels), notes


def _reason(external: ExternalConfig, kind: Kind, several_labels: bool) -> str:
    """Why outputs are taken for what they are."""
    if external.output != "auto":
        return "as external.output says"
    if several_labels:
        return "every value lies in 0…1" if kind == "probabilities" else "they do not all lie in 0…1"
    return "every row lies in 0…1 and adds up to 1" if kind == "probabilities" else "they do not add up to 1"


def _places(
    count: int, labels: Sequence[str], external: ExternalConfig, classes: Sequence[str], path: Path
) -> tuple[tuple[int, ...], str]:
    """The class of the run that each of the `count` outputs belongs to, and how that was decided.

    Args:
        labels: their names, where the file has any.
    """
    if external.class_map:
        map_path = Path(external.class_map)
        places = read_class_map(map_path, labels, count, classes)
        return places, _map_note(map_path, places, classes)
    if set(labels) == set(classes) and len(labels) == len(classes):
        return tuple(classes.index(label) for label in labels), "its classes are matched by their names"
    if labels:
        missing = [name for name in classes if name not in labels]
        others = [name for name in labels if name not in classes]
        differing = [f"it has no {_some(missing)}"] if missing else []
        differing += [f"the run has no {_some(others)}"] if others else []
        raise ConfigError(
            f"{path} has other classes than the run: {'; '.join(differing)}. Say which belongs to which: "
            "--class-map FILE."
        )
    if count != len(classes):
        raise ConfigError(
            f"{path} has {counted(count, 'output')}, the run {counted(len(classes), 'class')}. Say which output "
            "belongs to which class: --class-map FILE, with the numbers of the outputs from 0."
        )
    return tuple(range(count)), f"the order of its classes is taken to be {_some(classes)}"


def _map_note(path: Path, places: Sequence[int], classes: Sequence[str]) -> str:
    left_out = sum(place == LEFT_OUT for place in places)
    rest = (
        f"; the probabilities of the other {left_out:,} are left out, and the rest is divided by its sum"
        if left_out
        else ""
    )
    return (
        f"{len(places) - left_out:,} of its {counted(len(places), 'class')} belong to classes of the run "
        f"({path.name}){rest}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _input_note(file: OnnxFile, info: ModelInfo, external: ExternalConfig) -> str:
    """What it is given, defaults included."""
    if file.signature.takes_gray_levels:
        values = "gray levels 0 to 255"
    elif external.input_range:
        values = f"black {external.input_range[0]:g} and white {external.input_range[1]:g}"
    else:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (info.mean, info.std))
        default = " of ImageNet" if external.normalization == ExternalConfig().normalization else ""
        values = f"mean {mean} and std {std}{default}"
    crop = "" if info.crop_pct == 1 else f", the middle {info.crop_pct:.1%} of"
    return (
        f"photos of {info.size} x {info.size} pixels as {file.signature.layout} {file.signature.dtype}, "
        f"{external.channels.upper()}, {values}; val and test photos are shown by{crop} their center square, resized "
        "bilinearly"
    )
