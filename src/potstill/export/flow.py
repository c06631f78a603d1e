"""Stage 6 from top to bottom: convert, score by the format's own runtime, and keep only files that are still right."""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from potstill import metrics
from potstill.errors import ExportError
from potstill.export.aware import distill_rounded
from potstill.export.card import write_card
from potstill.export.convert import Conversion, convert
from potstill.export.environments import python_for
from potstill.export.formats import PRECISIONS, Format, find_formats
from potstill.export.ladder import LADDER, Rung, write_calibration
from potstill.export.load import write_manifest
from potstill.export.reference import Reference
from potstill.export.results import AWARE, FileResult, open_results, read_results, write_results
from potstill.export.score import Answers, Scoring, score
from potstill.predict import best_seed, chosen_student
from potstill.progress import Reporter
from potstill.run import Run, sha256_of

MAX_LOSS = 0.01
MIN_AGREEMENT = 0.99
MIN_ROUNDED_AGREEMENT = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """What an export may lose. One photo is always forgiven: few test photos know no finer step."""

    max_loss: float = MAX_LOSS
    """Accuracy, as a share of the test photos."""
    min_agreement: float = MIN_AGREEMENT
    """Share of test photos with the same class as the torch student."""
    min_rounded_agreement: float = MIN_ROUNDED_AGREEMENT
    """The same for int8, where no rung of the ladder reaches `min_agreement`: the one that comes nearest is kept."""

    def for_rounded(self) -> "Tolerance":
        """What the best of all rungs is held to."""
        return replace(self, min_agreement=min(self.min_agreement, self.min_rounded_agreement))

    def broken_by(self, lost: int, different: int, photos: int) -> str:
        """Why a file is not right any more; empty when it is.

        Args:
            lost: right answers less than the torch student's.
            different: photos with another class than the torch student's.
        """
        if lost > max(1, self.max_loss * photos):
            return f"loses {100 * lost / photos:.1f} points of accuracy ({lost} of {photos} test photos)"
        if different > max(1, (1 - self.min_agreement) * photos):
            return f"agrees with the torch student on {1 - different / photos:.1%} of {photos} test photos only"
        return ""


def export(
    run: Run | Path | str,
    formats: Sequence[str] = ("onnx",),
    precisions: Sequence[str] = PRECISIONS,
    *,
    student: str | None = None,
    seed: int | None = None,
    tolerance: Tolerance | None = None,
    isolated: bool = False,
    tell: Reporter | None = None,
) -> list[FileResult]:
    """Write a student as files to deploy, and keep those that are still right.

    Args:
        formats: names in `potstill.export.formats.FORMATS`.
        precisions: of "float32", "float16", "int8".
        student: the one that the comparison chose on val when None, as for `predict`.
        seed: the best on val when None.
        isolated: make an environment for each format whose tools are missing here, and work there.
    Returns:
        One result per format and precision; export.json has them too, beside those of earlier calls.
    Raises:
        ExportError: a tool is missing, before any work; or files failed, after all the others were made.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    tell = tell or Reporter(log=run.path / "log.txt")
    chosen = find_formats(formats, installed=not isolated)
    unknown = sorted(set(precisions) - set(PRECISIONS))
    if unknown:
        raise ExportError(f"There is no precision {unknown[0]!r}. There are: {', '.join(PRECISIONS)}.")
    with run.only_here():
        results = _export(run, chosen, precisions, student, seed, tolerance or Tolerance(), tell)
    failed = [r for r in results if r.status == "failed"]
    if failed:
        raise ExportError(
            "Not right any more, so no file was left:\n"
            + "\n".join(f"    {r.format} {r.precision}: {r.reason}" for r in failed)
            + f"\n  {run.export / 'export.json'} has the numbers. --max-loss, --min-agreement and "
            "--min-rounded-agreement set the tolerance."
        )
    return results


def _export(
    run: Run,
    formats: Sequence[Format],
    precisions: Sequence[str],
    student: str | None,
    seed: int | None,
    tolerance: Tolerance,
    tell: Reporter,
) -> list[FileResult]:
    """The files, good or failed. Tools that are missing here work in environments of their own."""
    name = student or chosen_student(run)
    reference = Reference.of(run, name, best_seed(run, name, "distilled", seed))
    open_results(run, name, {**reference.facts(), **asdict(tolerance)})
    results = []
    for leftover in run.export.glob(".part-*"):  # of a call that was killed
        shutil.rmtree(leftover)
    # What is not right yet is not in the folder that is shipped, whatever happens meanwhile.
    with tempfile.TemporaryDirectory(dir=run.export, prefix=".part-") as work:
        job = _Job(run, name, reference, tolerance, Path(work), tell)
        for form in formats:
            python = None if form.is_installed else python_for(form, tell)
            for precision in dict.fromkeys(precisions):
                result = job.made_before(form, precision) or job.make(form, precision, python)
                job.keep(result)
                tell.say(result.line())
                results.append(result)
    write_manifest(run, name)
    write_card(run, name)
    run.stage("6_export").finish()
    run.write_readme()
    return results


@dataclass(frozen=True, slots=True)
class _Job:
    """The files of one student."""

    run: Run
    name: str
    reference: Reference
    tolerance: Tolerance
    work: Path
    tell: Reporter

    @property
    def folder(self) -> Path:
        return self.run.export / self.name

    def made_before(self, form: Format, precision: str) -> FileResult | None:
        """The result of an earlier call with the same student and tolerance, when its files are still there."""
        for values in read_results(self.run)["students"][self.name]["files"]:
            if (values["format"], values["precision"]) == (form.name, precision) and values["status"] != "failed":
                files = values["sha256"] or {}
                paths = {self.run.export / name: sha for name, sha in files.items()}
                if all(path.is_file() and sha256_of(path) == sha for path, sha in paths.items()):
                    return FileResult(**values)
        return None

    def keep(self, result: FileResult) -> None:
        """Write the result into export.json, in the place of an earlier one."""
        results = read_results(self.run)
        files = results["students"][self.name]["files"]
        files = [f for f in files if (f["format"], f["precision"]) != (result.format, result.precision)]
        results["students"][self.name]["files"] = [*files, result.to_json()]
        write_results(self.run, results)

    def make(self, form: Format, precision: str, python: str | None) -> FileResult:
        """Convert and score; for int8 rung by rung."""
        size = self.reference.model.info.size
        result = FileResult(
            format=form.name,
            precision=precision,
            status="failed",
            input="any size" if form.any_size else f"{size} x {size}",
            isolated=python is not None,
        )
        if precision not in form.precisions:
            return replace(result, status="unsupported", reason=f"{form.title} files have no {precision} here")
        started = time.monotonic()
        self._remove(form, precision)
        rungs: Sequence[Rung | None] = [None] if precision != "int8" else LADDER if form.runs_here else LADDER[:1]
        attempts = []
        for rung in rungs:
            attempts.append(self._try(form, rung, result, python))
            if attempts[-1].result.status != "failed":
                break
            if rung is not None:
                self.tell.say(f"{form.title} int8, {rung.name}: {attempts[-1].result.reason}")
        result = self._best(attempts)
        tries = [attempt.facts() for attempt in attempts] if precision == "int8" else None
        return replace(result, tries=tries, seconds=round(time.monotonic() - started, 1))

    def _best(self, attempts: Sequence["_Attempt"]) -> FileResult:
        """The last one when it is right, else the one that agrees most, if that is enough for int8. Ships its file."""
        best = attempts[-1]
        if best.result.status == "failed":
            best = max(attempts, key=lambda attempt: (attempt.is_near, attempt.result.agreement or 0.0))
        result = best.result
        if best.is_near:
            reason = f"agrees on {result.agreement:.1%} of the test photos, the most of {len(attempts)} ways to 8 bits"
            result = replace(result, status="ok", reason=reason)
        return result if result.status == "failed" else self._ship(result, best.path)

    def _try(self, form: Format, rung: Rung | None, result: FileResult, python: str | None) -> "_Attempt":
        aware = rung is not None and rung.aware
        student = self._aware() if aware else self.reference.folder
        cache = self.work / ("aware" if aware else "trained")
        cache.mkdir(exist_ok=True)
        stem = "student" if result.precision == "float32" else f"student-{result.precision}"
        path = Path(tempfile.mkdtemp(dir=self.work)) / f"{stem}{form.suffix}"
        size = self.reference.model.info.size
        result = replace(result, calibration=rung.name if rung else None)
        conversion = Conversion(
            student=str(student),
            format=form.name,
            precision=result.precision,
            path=str(path),
            metadata={**self.reference.metadata(), "precision": result.precision},
            calibration=str(write_calibration(self.run, size, rung, self.work)) if rung else "",
            percentile=rung.percentile if rung else False,
            float_ends=rung.float_ends if rung else False,
            cache=str(cache),
        )
        try:
            convert(conversion, python)
            if not form.runs_here:
                reason = f"converted and checked in structure; {form.title} runs on Apple machines only"
                return _Attempt(replace(result, status="not run", reason=reason), path)
            answers = score(
                Scoring(format=form.name, path=str(path), images=str(self.run.images), split="test", size=size), python
            )
        except ExportError as error:
            return _Attempt(replace(result, reason=str(error)), path)
        return self._measured(result, answers, path)

    def _measured(self, result: FileResult, answers: Answers, path: Path) -> "_Attempt":
        """The result with its numbers; `reason` says what is wrong with them."""
        reference, labels = self.reference.probabilities, self.reference.labels
        photos = len(labels)
        right = int(np.sum(answers.probabilities.argmax(-1) == labels))
        different = int(np.sum(answers.probabilities.argmax(-1) != reference.argmax(-1)))
        lost = int(np.sum(reference.argmax(-1) == labels)) - right
        low, high = metrics.wilson_interval(right, photos)
        wrong = ""
        if json.loads(answers.metadata.get("labels", "[]")) != list(self.reference.model.info.classes):
            wrong = "the labels in the file are not the student's"
        if not _are_probabilities(answers.probabilities):
            wrong = "its answers are no probabilities: below 0, above 1, or not of sum 1"
        reason = wrong or self.tolerance.broken_by(lost, different, photos)
        rounded_reason = wrong or self.tolerance.for_rounded().broken_by(lost, different, photos)
        measured = replace(
            result,
            status="failed" if reason else "ok",
            reason=reason,
            accuracy=right / photos,
            low=low,
            high=high,
            agreement=1 - different / photos,
            max_difference=float(np.abs(answers.probabilities - reference).max()),
            milliseconds=answers.milliseconds,
            peak_memory=answers.peak_memory,
            runtime=" ".join(next(iter(answers.versions.items()))),
            versions={"potstill": version("potstill"), **answers.versions},
        )
        return _Attempt(measured, path, is_near=result.precision == "int8" and bool(reason) and not rounded_reason)

    def _ship(self, result: FileResult, path: Path) -> FileResult:
        """Move the files out of the work folder, and note what they are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / path.name
        for part in (path, path.with_suffix(".bin")):
            if part.exists():
                part.replace(self.folder / part.name)
        parts = [p for p in (target, target.with_suffix(".bin")) if p.is_file()]
        parts = parts or sorted(p for p in target.rglob("*") if p.is_file())
        names = {str(p.relative_to(self.run.export)): p for p in parts}
        return replace(
            result,
            file=str(target.relative_to(self.run.export)),
            sha256={name: sha256_of(p) for name, p in names.items()},
            bytes=sum(p.stat().st_size for p in parts),
        )

    def _remove(self, form: Format, precision: str) -> None:
        """What an earlier call left under this name."""
        stem = "student" if precision == "float32" else f"student-{precision}"
        target = self.folder / f"{stem}{form.suffix}"
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        if form.name == "openvino":
            target.with_suffix(".bin").unlink(missing_ok=True)

    def _aware(self) -> Path:
        """The student after quantisation-aware distillation, trained once for all formats.

        It is kept beside the folder that is shipped, not in it: it is no file to deploy.
        """
        folder = self.run.export / AWARE / self.name
        if not (folder / "model.json").is_file():
            distill_rounded(self.reference.folder, self.run, folder, self.tell)
        return folder


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way to a file: what came out, and the file, still in the work folder."""

    result: FileResult
    path: Path
    is_near: bool = False
    """int8, outside the tolerance, but inside the one for the best of all rungs."""

    def facts(self) -> dict[str, Any]:
        """For `FileResult.tries`."""
        reason = self.result.reason if self.result.status == "failed" else ""
        return {
            "calibration": self.result.calibration,
            "accuracy": self.result.accuracy,
            "agreement": self.result.agreement,
            "reason": reason,
        }


def _are_probabilities(values: np.ndarray) -> bool:
    """Whether every row of (n, C) is one, give or take the rounding of 8 bits per class."""
    sums = values.sum(-1, dtype=np.float64)
    slack = max(0.02, values.shape[1] / 512)
    return bool(
        np.all(np.isfinite(values)) and values.min() >= 0 and values.max() <= 1.001 and np.all(abs(sums - 1) < slack)
    )
