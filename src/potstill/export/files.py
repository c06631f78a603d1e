"""The files of one student: converted into a work folder, scored, and moved to the folder that is shipped."""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from potstill.data.splits import Split
from potstill.errors import ExportError
from potstill.export.convert import Conversion, convert
from potstill.export.formats.base import Format
from potstill.export.int8.candidates import CANDIDATES, Candidate
from potstill.export.int8.prepare import Int8Sources
from potstill.export.reference import Reference
from potstill.export.results import CandidateResult, FileResult
from potstill.export.score import Score, Scoring, score
from potstill.export.tolerance import Comparison, Tolerance, compare
from potstill.monitoring.progress import Reporter
from potstill.run.files import sha256_of


@dataclass(frozen=True, slots=True)
class Target:
    """What to make: one format at one precision."""

    format: Format
    precision: str
    python: str | None = None
    """The interpreter of the format's own environment; None works in this one."""


@dataclass(frozen=True, slots=True)
class ConvertedFile:
    """A file that is still in the work folder, and for int8 how it did on the val photos."""

    path: Path
    candidate: Candidate | None = None
    reason: str = ""
    """Why it is outside the tolerance; empty when it is inside."""
    val: Comparison | None = None

    @property
    def calibration(self) -> str | None:
        """Name of the candidate."""
        return self.candidate.name if self.candidate else None

    def rank(self) -> tuple[bool, float]:
        """Higher is better: a usable file, then the nearest. A few correct predictions more or less on a few hundred
        val photos are chance, so they do not count here."""
        return bool(self.val and not self.val.wrong), -self.val.distance if self.val else -1.0

    def result(self) -> CandidateResult:
        """For `FileResult.candidates`."""
        name, val = self.calibration, self.val
        if val is None:
            return CandidateResult(calibration=name, accuracy=None, agreement=None, distance=None, reason=self.reason)
        return CandidateResult(
            calibration=name,
            accuracy=val.right / val.photos,
            agreement=val.agreement,
            distance=val.distance,
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class StudentFiles:
    """Makes the files of one student."""

    reference: Reference
    tolerance: Tolerance
    work: Path
    reporter: Reporter

    @property
    def folder(self) -> Path:
        """Where files are kept."""
        return self.reference.run.export / self.reference.name

    def make(self, target: Target) -> FileResult:
        """Convert and score; for int8 every candidate, of which the nearest on val is kept."""
        format, size = target.format, self.reference.model.info.size
        result = FileResult(
            format=format.name,
            precision=target.precision,
            status="failed",
            input="any size" if format.any_size else f"{size} x {size}",
            isolated=target.python is not None,
            metric=self.reference.test.score_title,
        )
        if target.precision not in format.precisions:
            reason = f"{format.title} files have no {target.precision} here"
            return replace(result, status="unsupported", reason=reason)
        started = time.monotonic()
        self._remove(target)
        if target.precision != "int8":
            converted = self._convert(target)
        elif not format.runs_here:
            converted = self._convert(target, CANDIDATES[0])
        else:
            tried = self._try_candidates(target)
            converted = max(tried, key=ConvertedFile.rank)
            result = replace(result, candidates=tuple(file.result() for file in tried))
        result = replace(result, calibration=converted.calibration)
        result = self._judge(result, converted, target)
        if result.status != "failed":
            result = self._keep(result, converted.path, format)
        return replace(result, seconds=round(time.monotonic() - started, 1))

    def _try_candidates(self, target: Target) -> list[ConvertedFile]:
        """All candidates, scored on val; those that train only where none of the others is inside the tolerance."""
        tried: list[ConvertedFile] = []
        for candidate in CANDIDATES:
            if candidate.aware and not all(file.reason for file in tried):
                break
            file = self._convert(target, candidate)
            if not file.reason:
                file = self._score_on_val(file, target)
            if file.reason:
                self.reporter.info(f"{target.format.title} int8, {candidate.name}: {file.reason}")
            tried.append(file)
        return tried

    def _score_on_val(self, file: ConvertedFile, target: Target) -> ConvertedFile:
        try:
            found = self._compare(self._score(file.path, "val", target), "val")
        except ExportError as error:
            return replace(file, reason=str(error))
        broken = self._broken(self.tolerance, found, "val")
        return replace(file, reason=found.wrong or broken, val=found)

    def _convert(self, target: Target, candidate: Candidate | None = None) -> ConvertedFile:
        """Write the file into the work folder; `reason` says why there is none."""
        format, int8 = target.format, Int8Sources(self.reference, self.work, self.reporter)
        student = int8.student(format, candidate) if candidate else self.reference.folder
        cache = self.work / f"graphs-{student.name}"
        cache.mkdir(exist_ok=True)
        path = Path(tempfile.mkdtemp(dir=self.work)) / format.file_name(target.precision)
        conversion = Conversion(
            student=str(student),
            format=format.name,
            module=format.export.__module__,
            precision=target.precision,
            path=str(path),
            metadata={**self.reference.metadata(), "precision": target.precision},
            calibration=str(int8.calibration(candidate)) if candidate else "",
            percentile=candidate is not None and candidate.percentile,
            float_layers=int8.float_layers(format, candidate) if candidate else (),
            cache=str(cache),
        )
        try:
            convert(conversion, target.python)
        except ExportError as error:
            return ConvertedFile(path, candidate, reason=str(error))
        return ConvertedFile(path, candidate)

    def _score(self, path: Path, split: Split, target: Target) -> Score:
        info = self.reference.model.info
        scoring = Scoring(
            format=target.format.name,
            module=target.format.open.__module__,
            path=str(path),
            images=str(self.reference.run.images),
            split=split,
            size=info.size,
            crop=info.crop_pct,
        )
        return score(scoring, target.python)

    def _compare(self, found: Score, split: Split) -> Comparison:
        predictions = self.reference.val if split == "val" else self.reference.test
        return compare(found, predictions, self.reference.model.info.classes)

    def _broken(self, tolerance: Tolerance, found: Comparison, split: Split) -> str:
        """Why a file is outside the tolerance; empty when it is inside."""
        counts = found.lost, found.different, found.photos
        return tolerance.broken_by(*counts, split, measure=self.reference.test.score_title)

    def _judge(self, result: FileResult, file: ConvertedFile, target: Target) -> FileResult:
        """The result on the test photos. For int8 they are read here for the first time."""
        format = target.format
        if file.reason and file.val is None:  # there is no file that runs
            return replace(result, reason=file.reason)
        if not format.runs_here:
            reason = f"converted and checked in structure; {format.title} runs on Apple machines only"
            return replace(result, status="not run", reason=reason)
        try:
            measured = self._score(file.path, "test", target)
        except ExportError as error:
            return replace(result, reason=str(error))
        found = self._compare(measured, "test")
        allowed = self.tolerance.for_rounded() if result.precision == "int8" else self.tolerance
        accuracy = self.reference.test.accuracy(measured.probabilities, self.reference.confidence)
        return replace(
            result,
            status="failed" if found.wrong or self._broken(allowed, found, "test") else "ok",
            reason=found.wrong or self._broken(self.tolerance, found, "test"),
            accuracy=accuracy.value,
            low=accuracy.low,
            high=accuracy.high,
            agreement=found.agreement,
            max_difference=found.max_difference,
            milliseconds=measured.milliseconds,
            peak_memory=measured.peak_memory,
            runtime=" ".join(next(iter(measured.versions.items()))),
            versions={"potstill": version("potstill"), **measured.versions},
        )

    def _keep(self, result: FileResult, path: Path, format: Format) -> FileResult:
        """Move the file and its companion out of the work folder, and note their size and sha256."""
        self.folder.mkdir(parents=True, exist_ok=True)
        moved = [part.replace(self.folder / part.name) for part in _parts(path, format)]
        target = moved[0]
        parts = sorted(p for p in target.rglob("*") if p.is_file()) if target.is_dir() else moved
        export = self.reference.run.export
        return replace(
            result,
            file=str(target.relative_to(export)),
            sha256={str(part.relative_to(export)): sha256_of(part) for part in parts},
            bytes=sum(part.stat().st_size for part in parts),
        )

    def _remove(self, target: Target) -> None:
        """Remove what an earlier call left under this name."""
        for part in _parts(self.folder / target.format.file_name(target.precision), target.format):
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)


def _parts(path: Path, format: Format) -> list[Path]:
    """A file, and the one that belongs to it."""
    return [path, path.with_suffix(format.companion)] if format.companion else [path]
