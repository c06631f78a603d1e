"""Teachers that are not trained here: files whose outputs are soft labels as they are.

`open_external` reads and checks the file before anything long begins, `ExternalTeacher.take` is the whole of stage 2.
From there on an ONNX classifier is a network like any other, stored as `model.onnx`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from potstill import metrics
from potstill.compute.inference import plain_outputs
from potstill.compute.precision import Precision
from potstill.compute.timing import photos_per_second
from potstill.config.schema import Config, ExternalConfig
from potstill.context import Context
from potstill.data.class_map import read_class_map
from potstill.data.pixels import PixelStore
from potstill.errors import ConfigError, ModelError
from potstill.metrics.outputs import LEFT_OUT, Outputs, fault_of, kind_of
from potstill.models.classifier import ModelInfo
from potstill.models.onnx_classifier import OnnxClassifier, arguments_of
from potstill.models.onnx_file import OnnxFile, OnnxSession, num_macs, read_onnx
from potstill.run.files import sha256_of, write_bytes, write_json
from potstill.run.trained import Trained
from potstill.wording import counted

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


def open_external(config: Config, classes: Sequence[str]) -> ExternalTeacher | None:
    """The file that is the teacher, checked; None where the teacher is trained here.

    Args:
        classes: of the run.
    Raises:
        ModelError, DataError, ConfigError: the file or its class map cannot be used.
    """
    external = config.teacher.external
    if external is None:
        return None
    return OnnxTeacher.open(external.path, external.name, config, classes)


@dataclass(frozen=True, slots=True)
class OnnxTeacher:
    """An ONNX classifier."""

    info: ModelInfo
    file: OnnxFile
    notes: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, name: str, config: Config, classes: Sequence[str]) -> "OnnxTeacher":
        """Read and check the file, and run it once on noise to see what it gives."""
        file, external = read_onnx(path), config.external
        size, crop_pct = _size(file, config, path), external.crop_pct
        mean, std = external.normalization
        if file.signature.takes_gray_levels:
            _refuse_normalization(external, path)
            mean, std = (0.0,) * 3, (1 / 255,) * 3
        values = _outputs_for_noise(file, size, mean, std, name)
        outputs, notes = _outputs(values, file.labels, external, classes, path)
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
            temperature=metrics.fit_temperature(logits, store.labels(rows)),
            gray_levels=context.run.gray_levels(),
            runtime="onnxruntime",
        )
        info = replace(self.info, trained=trained)
        write_json(folder / "model.json", {**asdict(info), "sha256": sha256_of(folder / "model.onnx")})
        return logits, {"method": "onnx", "photos_per_second": {"onnxruntime": round(speed, 1)}}


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
    values: np.ndarray, labels: Sequence[str], external: ExternalConfig, classes: Sequence[str], path: Path
) -> tuple[Outputs, list[str]]:
    """What the outputs (n, K) are and to which classes they belong, and notes about it."""
    count = values.shape[1]
    labels = labels if len(labels) == count else ()
    kind = kind_of(values) if external.output == "auto" else external.output
    if fault := fault_of(values, kind):
        raise ModelError(f"{path}: of a picture of noise, it {fault[1].replace('holds', 'gives', 1)}.")
    how = (
        "as external.output says"
        if external.output != "auto"
        else ("every row lies in 0…1 and adds up to 1" if kind == "probabilities" else "they do not add up to 1")
    )
    notes = [f"its outputs are taken for {kind} ({how})"]
    if external.class_map:
        map_path = Path(external.class_map)
        places = read_class_map(map_path, labels, count, classes)
        notes.append(_map_note(map_path, places, classes))
    elif set(labels) == set(classes) and len(labels) == len(classes):
        places = tuple(classes.index(label) for label in labels)
        notes.append("its classes are matched by the names in its metadata")
    elif labels:
        raise ConfigError(
            f"{path} has {counted(count, 'class')} ({_some(labels)}), the run {len(classes)} ({_some(classes)}), and "
            "their names differ. Say which belongs to which: --class-map FILE."
        )
    elif count != len(classes):
        raise ConfigError(
            f"{path} has {counted(count, 'output')}, the run {counted(len(classes), 'class')}. Say which output "
            "belongs to which class: --class-map FILE, with the numbers of the outputs from 0."
        )
    else:
        places = tuple(range(count))
        notes.append(f"the order of its classes is taken to be {_some(classes)}")
    return Outputs(kind=kind, classes=len(classes), places=places), notes


def _map_note(path: Path, places: Sequence[int], classes: Sequence[str]) -> str:
    left_out = sum(place == LEFT_OUT for place in places)
    rest = (
        f"; the probabilities of the other {left_out:,} are left out, and the rest is divided by its sum"
        if left_out
        else ""
    )
    return (
        f"{len(places) - left_out:,} of its {len(places):,} classes belong to the {len(classes)} of the run "
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
