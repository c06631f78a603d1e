"""Stage 6 from top to bottom: convert, score with the format's own runtime, and keep only files inside the tolerance.

Of the candidates for an int8 file, the one whose probabilities on the val photos come nearest to the student's is
taken. The test photos only say how good it is, and whether it is refused.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from potstill.compute.device import decide, environment
from potstill.config.schema import MachineConfig
from potstill.deploy.predictor import best_seed, chosen_student
from potstill.errors import ExportError, PotstillError
from potstill.export.card import write_card
from potstill.export.environments import python_for
from potstill.export.files import StudentFiles, Target
from potstill.export.formats.base import PRECISIONS, Format
from potstill.export.formats.registry import find_formats
from potstill.export.int8.prepare import AWARE
from potstill.export.manifest import write_manifest
from potstill.export.reference import Reference
from potstill.export.results import ExportedStudent, ExportResults, FileResult, exported_student, read_results
from potstill.export.tolerance import Tolerance
from potstill.monitoring.progress import Reporter
from potstill.run.files import sha256_of
from potstill.run.folder import Run
from potstill.run.integrity import require_whole
from potstill.run.private import without_owner


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
    """Write a student as files to deploy, and keep those that are inside the tolerance.

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
    tolerance = tolerance or Tolerance()
    chosen = find_formats(formats, installed=not isolated)
    unknown = sorted(set(precisions) - set(PRECISIONS))
    if unknown:
        raise ExportError(f"There is no precision {unknown[0]!r}. There are: {', '.join(PRECISIONS)}.")
    with run.only_here("export"):  # beside the training of other students
        run.stage("6_export").reopen()  # what lies there is checked, or made again, below
        require_whole(run.path, large=True)
        name = student or chosen_student(run)
        reference = Reference.of(run, name, best_seed(run, name, "distilled", seed))
        _begin(reference, tolerance)
        results = _make_files(reference, tolerance, chosen, precisions, reporter)
        write_manifest(run, name)
        if not write_card(run, name):
            reporter.info("The model card says that nothing was compared; once the twins are trained, export again")
        run.stage("6_export").finish()
        run.write_readme()
    _raise_failed(run, results)
    return results


def _begin(reference: Reference, tolerance: Tolerance) -> None:
    """Make 6_export/ and export.json ready for the files of a student.

    Results and files of earlier calls stay, unless they are of other weights; results alone are dropped where they
    were measured with another tolerance or confidence.
    """
    run, name = reference.run, reference.name
    fingerprint = run.stage("3_soft_labels").digest()
    try:
        results = read_results(run)
    except PotstillError:  # of another version, or damaged: made anew
        results = None
    students = results.students if results and results.fingerprint == fingerprint else {}
    before = students.get(name)
    student = ExportedStudent(**reference.facts(), **asdict(tolerance))
    if before is None or before.weights_sha256 != student.weights_sha256:
        shutil.rmtree(run.export / name, ignore_errors=True)
        shutil.rmtree(run.export / AWARE / name, ignore_errors=True)
    elif _measured_alike(before, student):
        student = before
    run.stage("6_export").begin({"soft_labels": fingerprint})
    for leftover in run.export.glob(".part-*"):  # of a call that was killed
        shutil.rmtree(leftover)
    ExportResults(
        run=run.path.name,
        fingerprint=fingerprint,
        environment=environment(decide(MachineConfig())),
        students={**students, name: student},
    ).write(run)


def _measured_alike(before: ExportedStudent, now: ExportedStudent) -> bool:
    """Whether results that were measured before would come out the same now; speed aside."""
    first, second = ({**asdict(student), "milliseconds": None, "files": None} for student in (before, now))
    return first == second


def _make_files(
    reference: Reference,
    tolerance: Tolerance,
    formats: Sequence[Format],
    precisions: Sequence[str],
    reporter: Reporter,
) -> list[FileResult]:
    """The files, good or failed. Tools that are missing here work in environments of their own."""
    results = []
    # A file enters the folder that is shipped only after it has passed, whatever happens meanwhile.
    with tempfile.TemporaryDirectory(dir=reference.run.export, prefix=".part-") as work:
        files = StudentFiles(reference, tolerance, Path(work), reporter)
        for format in formats:
            python = None if format.is_installed else python_for(format, reporter)
            for precision in dict.fromkeys(precisions):
                result = _made_before(reference, format, precision) or files.make(Target(format, precision, python))
                _record(reference, result)
                reporter.info(result.line())
                results.append(result)
    return results


def _made_before(reference: Reference, format: Format, precision: str) -> FileResult | None:
    """The result of an earlier call with the same student and tolerance, when its files are still there."""
    result = exported_student(reference.run, reference.name).file(format.name, precision)
    if result is None or result.status == "failed":
        return None
    paths = {reference.run.export / name: sha for name, sha in (result.sha256 or {}).items()}
    return result if all(path.is_file() and sha256_of(path) == sha for path, sha in paths.items()) else None


def _record(reference: Reference, result: FileResult) -> None:
    """Write a result into export.json, in the place of an earlier one, without the paths that errors name."""
    result = replace(
        result,
        reason=without_owner(result.reason),
        candidates=result.candidates and tuple(replace(c, reason=without_owner(c.reason)) for c in result.candidates),
    )
    results = read_results(reference.run)
    assert results is not None
    results.students[reference.name] = results.students[reference.name].with_file(result)
    results.write(reference.run)


def _raise_failed(run: Run, results: Sequence[FileResult]) -> None:
    failed = [result for result in results if result.status == "failed"]
    if failed:
        raise ExportError(
            "Outside the tolerance, so no file was left:\n"
            + "\n".join(f"    {result.format} {result.precision}: {result.reason}" for result in failed)
            + f"\n  {run.export / 'export.json'} has the numbers. --max-loss, --min-agreement and "
            "--min-rounded-agreement set the tolerance."
        )
