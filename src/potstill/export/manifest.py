"""`manifest.json` beside the exported files: what a program needs to run them. Written and read here only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from potstill.errors import ExportError
from potstill.export.results import exported_student
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run
from potstill.run.trained import OperatingPoint

VERSION = 1
"""Of manifest.json."""

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestFile:
    """One exported file; an .mlpackage is a folder."""

    format: str
    precision: str
    sha256: dict[str, str]
    """Of every file that belongs to it, by name relative to the manifest's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of manifest.json."""

    student: str
    fingerprint: str
    """Digest of the run's student stage."""
    labels: tuple[str, ...]
    """Class names, in the order of the output."""
    size: int
    """Side of the input, in pixels."""
    crop: float = 1.0
    """Share of the center square's side that the model sees; files from before there was a choice see all of it."""
    threshold: float
    """An answer with a lower probability may be none of the classes."""
    operating_point: OperatingPoint | None = None
    """From which probability on a photo counts as one of a class; None: the most probable class is the answer."""
    thresholds: tuple[float, ...] = ()
    """With several labels per photo: of each class the probability from which on a photo has it. Only then it is in
    manifest.json; the probabilities do not sum to 1 then."""
    gray_levels: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Black and white of gray photos with more than 8 bits; empty: every photo by its own values."""
    files: dict[str, ManifestFile]
    """By name."""

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        values = asdict(self)
        if not self.thresholds:
            del values["thresholds"]
        write_json(folder / MANIFEST, {"format": VERSION, **values})


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a folder of exported files.

    Raises:
        ExportError: there is none, it was written by another version of Potstill, or is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ExportError(f"{folder} has no {MANIFEST}; keep exported files in the folder they were written to.")
    values: dict[str, Any] = read_json(path)
    found = values.pop("format", None)
    if found != VERSION:
        raise ExportError(
            f"{path} was written by another version of Potstill (its format is {found}, this version reads {VERSION}). "
            "Export again."
        )
    try:
        files = {name: ManifestFile(**entry) for name, entry in values.pop("files").items()}
        point = OperatingPoint.of(values.get("operating_point"))
        values |= {"labels": tuple(values["labels"]), "thresholds": tuple(values.get("thresholds", ()))}
        return Manifest(files=files, **{**values, "operating_point": point})
    except (AttributeError, KeyError, TypeError) as error:
        raise ExportError(f"{path} is damaged: {error}. Export again.") from None


def write_manifest(run: Run, student: str) -> None:
    """Write the manifest of a student's files; remove it where no file was kept."""
    facts = exported_student(run, student)
    prefix = f"{student}/"
    files = {
        result.file.removeprefix(prefix): ManifestFile(
            format=result.format,
            precision=result.precision,
            sha256={name.removeprefix(prefix): sha for name, sha in (result.sha256 or {}).items()},
        )
        for result in facts.files
        if result.file is not None
    }
    if not files:
        (run.export / student / MANIFEST).unlink(missing_ok=True)
        return
    Manifest(
        student=student,
        fingerprint=run.stage("3_soft_labels").digest(),
        labels=facts.classes,
        size=facts.size,
        crop=facts.crop,
        threshold=facts.threshold,
        operating_point=facts.operating_point,
        thresholds=facts.thresholds,
        gray_levels=facts.gray_levels,
        files=files,
    ).write(run.export / student)
