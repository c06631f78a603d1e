"""Stage 6 from top to bottom: convert, score by the format's own runtime, and keep only files that are still right.

Which way to 8 bits is taken is read off the val photos: the one whose probabilities come nearest to the student's. The
test photos say what came out, and refuse what is wrong.
"""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from potstill import metrics
from potstill.data.splits import Split
from potstill.deploy.predictor import best_seed, chosen_student
from potstill.errors import ExportError
from potstill.export.attempts import Attempt, Comparison, Tolerance, compare
from potstill.export.card import write_card
from potstill.export.convert import Conversion, convert
from potstill.export.environments import python_for
from potstill.export.formats.registry import PRECISIONS, Format, find_formats
from potstill.export.int8.aware import distill_rounded
from potstill.export.int8.correction import correct_biases
from potstill.export.int8.ladder import LADDER, Rung, calibration_photos, write_calibration
from potstill.export.int8.sensitivity import PHOTOS as SENSITIVITY_PHOTOS
from potstill.export.int8.sensitivity import sensitive_layers
from potstill.export.load import write_manifest
from potstill.export.reference import Reference, Told
from potstill.export.results import AWARE, FileResult, open_results, read_results, write_results
from potstill.export.score import Answers, Scoring, score
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, sha256_of, write_json
from potstill.run.folder import Run


def export(
    run: Run | Path | str,
    formats: Sequence[str] = ("onnx",),
    precisions: Sequence[str] = PRECISIONS,
    *,
    student: str | None = None,
    seed: int | None = None,
    tolerance: Tolerance | None = None,
    isolated: bool = False,
    reporter: Reporter | None = None,
) -> list[FileResult]:
    """Write a student as files to deploy, and keep those that are still right.

    Args:
        formats: names in `potstill.export.formats.registry.FORMATS`.
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
    reporter = reporter or Reporter(log=run.path / "log.txt")
    chosen = find_formats(formats, installed=not isolated)
    unknown = sorted(set(precisions) - set(PRECISIONS))
    if unknown:
        raise ExportError(f"There is no precision {unknown[0]!r}. There are: {', '.join(PRECISIONS)}.")
    with run.only_here():
        results = _export(run, chosen, precisions, student, seed, tolerance or Tolerance(), reporter)
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
    reporter: Reporter,
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
        job = _Job(run, name, reference, tolerance, Path(work), reporter)
        for form in formats:
            python = None if form.is_installed else python_for(form, reporter)
            for precision in dict.fromkeys(precisions):
                result = job.made_before(form, precision) or job.make(form, precision, python)
                job.keep(result)
                reporter.info(result.line())
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
    reporter: Reporter

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
        tries = None
        if precision != "int8":
            attempt = self._convert(form, None, result, python)
        elif not form.runs_here:
            attempt = self._convert(form, LADDER[0], result, python)
        else:
            attempts = self._climb(form, result, python)
            attempt = max(attempts, key=Attempt.rank)
            tries = [attempt.facts() for attempt in attempts]
        result = self._judge(form, attempt, python)
        if result.status != "failed":
            result = self._ship(result, attempt.path)
        return replace(result, tries=tries, seconds=round(time.monotonic() - started, 1))

    def _climb(self, form: Format, result: FileResult, python: str | None) -> list[Attempt]:
        """All rungs, scored on the val photos; those that train only where none of the others is right."""
        attempts: list[Attempt] = []
        for rung in LADDER:
            if rung.aware and not all(attempt.reason for attempt in attempts):
                break
            attempt = self._convert(form, rung, result, python)
            if not attempt.reason:
                try:
                    answers = self._score(form, attempt.path, "val", python)
                    attempt = attempt.seen(self._compare(answers, self.reference.val), self.tolerance)
                except ExportError as error:
                    attempt = replace(attempt, reason=str(error))
            attempts.append(attempt)
            if attempt.reason:
                self.reporter.info(f"{form.title} int8, {rung.name}: {attempt.reason}")
        return attempts

    def _convert(self, form: Format, rung: Rung | None, result: FileResult, python: str | None) -> Attempt:
        """Write the file into the work folder; `reason` says why there is none."""
        student = self._student(form, rung)
        cache = self.work / f"graphs-{student.name}"
        cache.mkdir(exist_ok=True)
        stem = "student" if result.precision == "float32" else f"student-{result.precision}"
        path = Path(tempfile.mkdtemp(dir=self.work)) / f"{stem}{form.suffix}"
        result = replace(result, calibration=rung.name if rung else None)
        conversion = Conversion(
            student=str(student),
            format=form.name,
            precision=result.precision,
            path=str(path),
            metadata={**self.reference.metadata(), "precision": result.precision},
            calibration=str(write_calibration(self.run, self.reference.model.info, rung, self.work)) if rung else "",
            percentile=rung.percentile if rung else False,
            float_layers=self._sensitive(form) if rung and rung.float_layers else (),
            cache=str(cache),
        )
        try:
            convert(conversion, python)
        except ExportError as error:
            return Attempt(result, path, reason=str(error))
        return Attempt(result, path)

    def _score(self, form: Format, path: Path, split: Split, python: str | None) -> Answers:
        info, images = self.reference.model.info, str(self.run.images)
        scoring = Scoring(
            format=form.name, path=str(path), images=images, split=split, size=info.size, crop=info.crop_pct
        )
        return score(scoring, python)

    def _compare(self, answers: Answers, told: Told) -> Comparison:
        return compare(answers, told, self.reference.model.info.classes)

    def _judge(self, form: Format, attempt: Attempt, python: str | None) -> FileResult:
        """The result as the test photos have it. For int8 that is the first look at them."""
        result = attempt.result
        if attempt.reason and attempt.val is None:  # not even a file that runs
            return replace(result, reason=attempt.reason)
        if not form.runs_here:
            reason = f"converted and checked in structure; {form.title} runs on Apple machines only"
            return replace(result, status="not run", reason=reason)
        try:
            answers = self._score(form, attempt.path, "test", python)
        except ExportError as error:
            return replace(result, reason=str(error))
        found = self._compare(answers, self.reference.test)
        counts = found.lost, found.different, found.photos
        reason = found.wrong or self.tolerance.broken_by(*counts)
        held_to = self.tolerance.for_rounded() if result.precision == "int8" else self.tolerance
        failed = bool(found.wrong or held_to.broken_by(*counts))
        low, high = metrics.wilson_interval(found.right, found.photos, self.reference.confidence)
        return replace(
            result,
            status="failed" if failed else "ok",
            reason=reason,
            accuracy=found.right / found.photos,
            low=low,
            high=high,
            agreement=found.agreement,
            max_difference=found.max_difference,
            milliseconds=answers.milliseconds,
            peak_memory=answers.peak_memory,
            runtime=" ".join(next(iter(answers.versions.items()))),
            versions={"potstill": version("potstill"), **answers.versions},
        )

    def _ship(self, result: FileResult, path: Path) -> FileResult:
        """Move the files out of the work folder, and note what they are."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # What lies beside it already is another format's: student.bin belongs to student.xml, not to student.onnx.
        moved = [part.replace(self.folder / part.name) for part in (path, path.with_suffix(".bin")) if part.exists()]
        target = moved[0]
        parts = sorted(p for p in target.rglob("*") if p.is_file()) if target.is_dir() else moved
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

    def _student(self, form: Format, rung: Rung | None) -> Path:
        """The folder of what is converted."""
        if rung is None or (form.corrects_biases and not rung.aware):
            return self.reference.folder
        if rung.aware:
            return self._aware(form)
        folder = self.work / f"corrected-{form.weight_steps}{'-but-sensitive' if rung.float_layers else ''}"
        if not folder.exists():
            photos = calibration_photos(self.run, self.reference.model.info, plain=True)
            floats = self._sensitive(form) if rung.float_layers else ()
            correct_biases(self.reference.folder, photos, folder, steps=form.weight_steps, float_layers=floats)
        return folder

    def _sensitive(self, form: Format) -> tuple[str, ...]:
        """Found once for all formats that round alike."""
        found = self.work / f"sensitive-{form.weight_steps}.json"
        if not found.exists():
            photos = calibration_photos(self.run, self.reference.model.info, plain=True, most=SENSITIVITY_PHOTOS)
            write_json(found, sensitive_layers(self.reference.folder, photos, steps=form.weight_steps))
        return tuple(read_json(found))

    def _aware(self, form: Format) -> Path:
        """The student after quantization-aware distillation, trained once for all formats that round alike.

        It is kept beside the folder that is shipped, not in it: it is no file to deploy.
        """
        folder = self.run.export / AWARE / self.name / f"steps-{form.weight_steps}"
        if not (folder / "model.json").is_file():
            distill_rounded(
                self.reference.folder,
                self.run,
                folder,
                self.reporter,
                weight_steps=form.weight_steps,
                float_layers=self._sensitive(form),
            )
        return folder
