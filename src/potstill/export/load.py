"""Loading an exported file, after checking that it is, to the byte, the file that was scored."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potstill.data.resize import fit
from potstill.deploy.predictor import Photo, Prediction, best_seed, chosen_student, to_pixels
from potstill.errors import ExportError
from potstill.export.formats.base import Format, Runner
from potstill.export.formats.registry import format_of
from potstill.export.manifest import MANIFEST, Manifest, read_manifest
from potstill.export.results import read_results
from potstill.run.files import sha256_of
from potstill.run.folder import Run
from potstill.run.trained import read_trained


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

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.labels

    @property
    def threshold(self) -> float:
        """Probability below which an answer counts as unknown."""
        return self.manifest.threshold

    @property
    def size(self) -> int:
        return self.manifest.size

    @property
    def crop(self) -> float:
        return self.manifest.crop

    def predict(self, photo: Photo) -> Prediction:
        """Classify one photo, as `Predictor.predict` does."""
        pixels = to_pixels(photo, self.manifest.gray_levels)
        if not self.format.any_size:
            from PIL import Image

            pixels = fit(Image.fromarray(pixels), self.size, self.crop)
        probabilities = np.asarray(self._run(pixels), np.float32)
        return Prediction.of(probabilities, self.classes, self.threshold, self.manifest.operating_point)


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
