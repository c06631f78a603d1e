"""Loading an exported file, after checking that it is, to the byte, the file that was scored."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.resize import fit
from potstill.deploy.predictor import Photo, Prediction, to_pixels
from potstill.errors import ExportError
from potstill.export.formats.registry import FORMATS, Format, Runner, format_of
from potstill.export.results import read_results
from potstill.run.files import read_json, sha256_of, write_json
from potstill.run.folder import Run

MANIFEST = "manifest.json"


def write_manifest(run: Run, student: str) -> None:
    """`manifest.json` beside the files: labels, input size, crop, threshold, and the sha256 of every file."""
    facts = read_results(run)["students"][student]
    files = [f for f in facts["files"] if f["file"] is not None]
    prefix = f"{student}/"
    manifest = {
        "format": 1,
        "student": student,
        "fingerprint": run.stage("4_students").digest(),
        "labels": facts["classes"],
        "size": facts["size"],
        "crop": facts["crop"],
        "threshold": facts["threshold"],
        "files": {
            f["file"].removeprefix(prefix): {
                "format": f["format"],
                "precision": f["precision"],
                "sha256": {name.removeprefix(prefix): sha for name, sha in f["sha256"].items()},
            }
            for f in files
        },
    }
    if files:
        write_json(run.export / student / MANIFEST, manifest)
    else:
        (run.export / student / MANIFEST).unlink(missing_ok=True)


def verify(path: Path | str) -> dict[str, Any]:
    """The manifest of an exported file that is what it should be.

    Raises:
        ExportError: no manifest beside it, not in the manifest, a part is missing, damaged or of another file, or a
            folder that belongs to it holds anything else.
    """
    path = Path(path)
    if not (path.parent / MANIFEST).is_file():
        raise ExportError(f"{path.parent} has no {MANIFEST}; keep exported files in the folder they were written to.")
    manifest = dict(read_json(path.parent / MANIFEST))
    entry = manifest["files"].get(path.name)
    if entry is None:
        known = ", ".join(manifest["files"]) or "no file"
        raise ExportError(f"{path.name} is not in {path.parent / MANIFEST}, which lists {known}.")
    for name, sha in entry["sha256"].items():
        part = path.parent / name
        if not part.is_file():
            raise ExportError(f"{part} is missing. Export again.")
        if sha256_of(part) != sha:
            raise ExportError(
                f"{part} is not the file that was scored: its sha256 differs from {MANIFEST}. It is damaged, cut off "
                "or swapped. Export again, or copy it again."
            )
    if path.is_dir():
        extra = {str(p.relative_to(path.parent)) for p in path.rglob("*") if p.is_file()} - set(entry["sha256"])
        if extra:
            raise ExportError(f"{path} holds {sorted(extra)[0]}, which does not belong to it. Export again.")
    return manifest


@dataclass(frozen=True, slots=True)
class ExportedPredictor:
    """An exported file, ready for photos: used as a `Predictor` is."""

    path: Path
    classes: tuple[str, ...]
    threshold: float
    size: int
    crop: float
    format: Format
    _run: Runner

    def predict(self, photo: Photo) -> Prediction:
        """Classify one photo, as `Predictor.predict` does."""
        pixels = to_pixels(photo)
        if not self.format.any_size:
            from PIL import Image

            pixels = fit(Image.fromarray(pixels), self.size, self.crop)
        return Prediction.of(np.asarray(self._run(pixels), np.float32), self.classes, self.threshold)


def load_exported(path: Path | str) -> ExportedPredictor:
    """A predictor from an exported file.

    Raises:
        ExportError: it is not the file that was scored, its runtime is not installed or not made for this machine, or
            the labels in it are not those beside it.
    """
    path = Path(path)
    manifest = verify(path)
    form = format_of(path)
    if not form.is_installed:
        raise ExportError(f"The runtime of {form.title} is not installed. Install it: {form.install}")
    try:
        run = form.open(path)
        inside = json.loads(form.read_metadata(path).get("labels", "[]"))
    except ExportError:
        raise
    except Exception as error:  # whatever a runtime raises
        told = (str(error).strip().splitlines() or [""])[0][:300]
        raise ExportError(
            f"The installed {form.packages[0]} does not load {path}, which is the file that was scored: {told}\n"
            f"  {form.install} gets the versions that are known to work."
        ) from error
    if inside != manifest["labels"]:
        raise ExportError(f"{path} has the labels {inside} inside, {MANIFEST} says {manifest['labels']}.")
    crop = float(manifest.get("crop", 1.0))  # files from before there was a choice look at the whole square
    return ExportedPredictor(path, tuple(inside), float(manifest["threshold"]), int(manifest["size"]), crop, form, run)


def is_exported(path: Path) -> bool:
    """Whether the path looks like an exported file."""
    return path.suffix in {form.suffix for form in FORMATS.values()}
