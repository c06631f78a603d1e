"""Loading an exported file, after checking that it is, to the byte, the file that was scored."""

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.resize import fit
from potstill.deploy.batches import predict_all
from potstill.deploy.predictor import (
    Photo,
    Predictor,
    best_seed,
    chosen_student,
    load_predictor,
    prediction_of,
    to_image,
)
from potstill.errors import ExportError, ModelError
from potstill.export.formats.base import Format, Runner
from potstill.export.formats.registry import FORMATS, format_of
from potstill.export.manifest import MANIFEST, Manifest, read_manifest
from potstill.export.results import read_results
from potstill.run.files import sha256_of
from potstill.run.folder import Run
from potstill.run.trained import OperatingPoint, read_trained
from potstill.storage.runs import local_run


def verify(path: Path | str) -> Manifest:
    """The manifest of an exported file that is what it should be.

    Raises:
        ExportError: no manifest beside it, not in the manifest, a part is missing, damaged or of another file, or a
            folder that belongs to it holds anything else.
    """
    path = Path(path)
    manifest = read_manifest(path.parent)
    entry = manifest.files.get(path.name)
    if entry is None:
        known = ", ".join(manifest.files) or "no file"
        raise ExportError(f"{path.name} is not in {path.parent / MANIFEST}, which lists {known}.")
    for name, sha in entry.sha256.items():
        part = path.parent / name
        if not part.is_file():
            raise ExportError(f"{part} is missing. Export again.")
        if sha256_of(part) != sha:
            raise ExportError(
                f"{part} is not the file that was scored: its sha256 differs from {MANIFEST}. It is damaged, cut off "
                "or swapped. Export again, or copy it again."
            )
    if path.is_dir():
        extra = {str(p.relative_to(path.parent)) for p in path.rglob("*") if p.is_file()} - set(entry.sha256)
        if extra:
            raise ExportError(f"{path} holds {sorted(extra)[0]}, which does not belong to it. Export again.")
    return manifest


@dataclass(frozen=True, slots=True)
class ExportedPredictor:
    """An exported file, ready for photos: used as a `Predictor` is."""

    path: Path
    manifest: Manifest
    format: Format
    _run: Runner
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """For runtimes that several threads must not use at once."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.labels

    @property
    def threshold(self) -> float:
        """Probability below which an answer counts as unknown."""
        return self.manifest.threshold

    @property
    def thresholds(self) -> tuple[float, ...]:
        """With several labels per photo: of each class the probability from which on a photo has it."""
        return self.manifest.thresholds

    @property
    def size(self) -> int:
        return self.manifest.size

    @property
    def crop(self) -> float:
        return self.manifest.crop

    @property
    def operating_point(self) -> OperatingPoint | None:
        return self.manifest.operating_point

    @property
    def works_in_processes(self) -> bool:
        """Not for a format that is defined in a script or notebook, which other processes cannot import."""
        return not self.format.in_process

    def worker(self, *, processes: bool = False) -> Callable[[Photo], np.ndarray]:
        """For `potstill.deploy.batches`: a photo to its probabilities (C,)."""
        return functools.partial(_run_file, str(self.path)) if processes else self.run

    def from_workers(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """(B, C)."""
        return np.stack(parts)

    def run(self, photo: Photo) -> np.ndarray:
        """(C,) probabilities of one photo. Several threads may call it."""
        image = to_image(photo, self.manifest.gray_levels)
        pixels = np.array(image) if self.format.any_size else fit(image, self.size, self.crop)
        with contextlib.nullcontext() if self.format.any_thread else self._one_at_a_time:
            return np.array(self._run(pixels), np.float32)

    def predict(self, photo: Photo) -> Any:
        """Classify one photo, as `Predictor.predict` does."""
        return prediction_of(self, self.run(photo))

    def predict_many(self, photos: Iterable[Photo]) -> list[Any]:
        """Classify many photos, as `Predictor.predict_many` does."""
        return predict_all(self, photos)


def _run_file(path: str, photo: Photo) -> np.ndarray:
    """In another process: each opens the file once."""
    return _opened(path).run(photo)


@functools.cache
def _opened(path: str) -> ExportedPredictor:
    return load_exported(path)


def load_exported(path: Path | str) -> ExportedPredictor:
    """A predictor from an exported file.

    Raises:
        ExportError: it is not the file that was scored, its runtime is not installed or not made for this machine, or
            the labels in it are not those beside it.
    """
    path = Path(path)
    manifest = verify(path)
    format = format_of(path)
    if not format.is_installed:
        raise ExportError(f"The runtime of {format.title} is not installed. Install it: {format.install}")
    try:
        run = format.open(path)
        labels = tuple(json.loads(format.read_metadata(path).get("labels", "[]")))
    except ExportError:
        raise
    except Exception as error:  # whatever a runtime raises
        message = (str(error).strip().splitlines() or [""])[0][:300]
        raise ExportError(
            f"The installed {format.packages[0]} does not load {path}, which is the file that was scored: {message}\n"
            f"  {format.install} gets the versions that are known to work."
        ) from error
    if labels != manifest.labels:
        raise ExportError(f"{path} has the labels {labels} inside, {MANIFEST} says {manifest.labels}.")
    return ExportedPredictor(path, manifest, format, run)


def open_predictor(
    path: Path | str, *, student: str | None = None, arm: str = "distilled", seed: int | None = None
) -> Predictor | ExportedPredictor:
    """What predicts fastest: an exported file, also one of a run's student, else the model itself.

    Args:
        path: a run folder, a folder with model.json, or an exported file; also in storage.
        student, arm, seed: as in `potstill.deploy.predictor.load_predictor`.
    Raises:
        ModelError: there is no such model, or the path names another one than the other arguments.
        ExportError: as `load_exported` does.
    """
    path = local_run(path)
    if any(path.suffix == format.suffix for format in FORMATS.values()) and not (path / "config.toml").is_file():
        given = [f"{name} {value}" for name, value in (("student", student), ("seed", seed)) if value is not None]
        if given := [*given, *([arm] if arm != "distilled" else [])]:
            raise ModelError(f"{path} is one model; {' and '.join(given)} can be chosen from a run folder only.")
        if not path.exists():
            raise ExportError(f"There is no file {path}.")
        return load_exported(path)
    exported = find_exported(path, student=student, seed=seed) if arm == "distilled" else None
    return exported or load_predictor(path, student=student, arm=arm, seed=seed)


def find_exported(path: Path | str, *, student: str | None = None, seed: int | None = None) -> ExportedPredictor | None:
    """The ONNX file of a run's student, which needs no torch; None where no file of exactly this student will do.

    It was made from the weights that the run holds, in float32, and was inside the tolerance on the test photos.

    Args:
        path: a run folder.
        student, seed: as in `potstill.deploy.predictor.load_predictor`.
    Raises:
        ModelError: there is no such student or seed.
    """
    if not (Path(path) / "6_export").is_dir():
        return None
    run = Run.open(path)
    name = student or chosen_student(run)
    folder = best_seed(run, name, "distilled", seed)
    try:
        results = read_results(run)
        exported = results.students.get(name) if results else None
        file = exported.file("onnx", "float32") if exported else None
        if exported is None or file is None or file.status != "ok" or file.file is None:
            return None
        if exported.operating_point != read_trained(folder).operating_point:  # it was given another one since
            return None
        if exported.arm != "distilled" or exported.weights_sha256 != sha256_of(folder / "model.safetensors"):
            return None
        return load_exported(run.export / file.file)
    except ExportError:  # damaged, of another version, or without its runtime: the student itself is still there
        return None
