"""What an int8 candidate is converted from, made once for all formats that round alike."""

from dataclasses import dataclass
from pathlib import Path

from potstill.export.formats.base import Format
from potstill.export.int8.aware import Grid, distill_rounded
from potstill.export.int8.candidates import Candidate, calibration_photos, write_calibration
from potstill.export.int8.correction import correct_biases
from potstill.export.int8.sensitivity import PHOTOS as SENSITIVITY_PHOTOS
from potstill.export.int8.sensitivity import sensitive_layers
from potstill.export.reference import Reference
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, write_json

AWARE = "quantization-aware"
"""Folder in 6_export/ for students after quantization-aware distillation."""


@dataclass(frozen=True, slots=True)
class Int8Sources:
    """Students, layers and photos for the int8 files of one student."""

    reference: Reference
    work: Path
    reporter: Reporter

    def student(self, format: Format, candidate: Candidate) -> Path:
        """The folder of the student to convert."""
        if candidate.aware:
            return self._aware(format)
        if format.corrects_biases:
            return self.reference.folder
        return self._corrected(format, candidate)

    def float_layers(self, format: Format, candidate: Candidate) -> tuple[str, ...]:
        """Names of the layers that stay in float."""
        return self._sensitive(format) if candidate.float_layers else ()

    def calibration(self, candidate: Candidate) -> Path:
        """The photos that show the ranges of activations."""
        return write_calibration(self.reference.run, self.reference.model.info, candidate, self.work)

    def _corrected(self, format: Format, candidate: Candidate) -> Path:
        kept = "-but-sensitive" if candidate.float_layers else ""
        folder = self.work / f"corrected-{format.weight_steps}{kept}"
        if not folder.exists():
            photos = calibration_photos(self.reference.run, self.reference.model.info, plain=True)
            layers = self.float_layers(format, candidate)
            correct_biases(self.reference.folder, photos, folder, steps=format.weight_steps, float_layers=layers)
        return folder

    def _sensitive(self, format: Format) -> tuple[str, ...]:
        found = self.work / f"sensitive-{format.weight_steps}.json"
        if not found.exists():
            info = self.reference.model.info
            photos = calibration_photos(self.reference.run, info, plain=True, most=SENSITIVITY_PHOTOS)
            write_json(found, sensitive_layers(self.reference.folder, photos, steps=format.weight_steps))
        return tuple(read_json(found))

    def _aware(self, format: Format) -> Path:
        """Kept beside the folder that is shipped, not in it: it is no file to deploy, and takes long to make."""
        folder = self.reference.run.export / AWARE / self.reference.name / f"steps-{format.weight_steps}"
        if not (folder / "model.json").is_file():
            distill_rounded(
                self.reference.folder,
                self.reference.run,
                folder,
                self.reporter,
                Grid(weight_steps=format.weight_steps, float_layers=self._sensitive(format)),
            )
        return folder
