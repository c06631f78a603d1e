"""The content of 6_export/export.json: what is known of every exported file. Written and read here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from rich.table import Table

from potstill.errors import ExportError
from potstill.metrics import Interval
from potstill.monitoring.tables import text_table
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run
from potstill.run.trained import OperatingPoint

VERSION = 3
"""Of export.json. Change it with any field below."""

FILE_NAME = "export.json"

Status = Literal["ok", "failed", "not run", "unsupported"]
"""ok: inside the tolerance. failed: outside, so no file was kept. not run: converted, but its runtime does not exist
for this machine. unsupported: the format has no such precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateResult:
    """How one way to an int8 file did on the val photos. What could not be measured is None."""

    calibration: str | None
    accuracy: float | None
    agreement: float | None
    distance: float | None
    """Mean total variation of the probabilities from the torch student's."""
    reason: str
    """Why it is outside the tolerance; empty when it is inside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileResult:
    """One format at one precision. What could not be measured is None, and `reason` says why."""

    format: str
    precision: str
    status: Status
    reason: str = ""
    file: str | None = None
    """Relative to 6_export/; the first of `sha256`. None where no file was kept."""
    sha256: dict[str, str] | None = None
    """Of every file that belongs to it, by name relative to 6_export/."""
    bytes: int | None = None
    input: str = ""
    """`any size` or `S x S`."""
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    """Wilson interval of the accuracy, at `ExportedStudent.confidence`."""
    agreement: float | None = None
    """Share of test photos with the same class as the torch student."""
    max_difference: float | None = None
    """Largest difference of any probability from the torch student's."""
    milliseconds: float | None = None
    """Median of one photo on one thread."""
    peak_memory: int | None = None
    """Bytes of the whole process that ran it."""
    runtime: str | None = None
    """Name and version of what ran it."""
    versions: dict[str, str] | None = None
    calibration: str | None = None
    """int8: the candidate that the file came from."""
    candidates: tuple[CandidateResult, ...] | None = None
    """int8: every candidate that was tried, in order."""
    seconds: float | None = None
    """Time to convert and score, all candidates together."""
    isolated: bool = False
    """Made in an environment of its own."""
    metric: str = "accuracy"
    """What `accuracy` is: "mAP" where photos may have several labels. Only then it is in export.json."""

    def line(self) -> str:
        """For people, while the files are made."""
        head = f"{self.format} {self.precision}: {self.status}"
        if self.accuracy is None or self.bytes is None or self.agreement is None or self.milliseconds is None:
            return f"{head}, {self.reason}"
        return (
            f"{head}, {self.metric} {self.accuracy:.1%}, agreement with the torch student {self.agreement:.1%}, "
            f"{self.bytes / 1e6:.2f} MB, {self.milliseconds:.1f} ms"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedStudent:
    """A student, and the files that were made from it."""

    model: str
    seed: int
    arm: str
    weights_sha256: str
    size: int
    crop: float
    classes: tuple[str, ...]
    temperature: float
    threshold: float
    confidence: float
    """Of all intervals, as in the run's comparison."""
    test_photos: int
    accuracy: Interval
    """Of the torch student."""
    milliseconds: float
    """Of the torch student: median of one photo on one thread."""
    max_loss: float
    min_agreement: float
    min_rounded_agreement: float
    """The tolerance, as shares."""
    gray_levels: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Black and white of gray photos with more than 8 bits."""
    operating_point: OperatingPoint | None = None
    thresholds: tuple[float, ...] = ()
    """With several labels per photo: of each class. Only then they are in export.json."""
    files: tuple[FileResult, ...] = ()

    def file(self, format: str, precision: str) -> FileResult | None:
        """The result of a format and precision."""
        return next((f for f in self.files if (f.format, f.precision) == (format, precision)), None)

    def with_file(self, result: FileResult) -> "ExportedStudent":
        """The student with this result, in the place of an earlier one of the same format and precision."""
        others = [f for f in self.files if (f.format, f.precision) != (result.format, result.precision)]
        return replace(self, files=(*others, result))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResults:
    """The content of export.json."""

    run: str
    """Name of the run."""
    fingerprint: str
    """Digest of the run's student stage."""
    environment: dict[str, Any]
    """Machine and versions, as in environment.json."""
    students: dict[str, ExportedStudent]

    def write(self, run: Run) -> None:
        """Write export.json."""
        values = asdict(self)
        for student in values["students"].values():
            if not student["thresholds"]:  # as it was before photos could have several labels
                del student["thresholds"]
                for file in student["files"]:
                    del file["metric"]
        write_json(run.export / FILE_NAME, {"format": VERSION, **values})


def read_results(run: Run) -> ExportResults | None:
    """The content of export.json, None where nothing was exported.

    Raises:
        ExportError: it was written by another version of Potstill, or is damaged.
    """
    path = run.export / FILE_NAME
    if not path.is_file():
        return None
    values = read_json(path)
    again = f"Export again: potstill export {run.path} --to onnx"
    found = values.pop("format", None) if isinstance(values, dict) else None
    if found != VERSION:
        raise ExportError(
            f"{path} was written by another version of Potstill (its format is {found}, this version reads {VERSION}). "
            f"{again}"
        )
    try:
        students = {name: _student(facts) for name, facts in values.pop("students").items()}
        return ExportResults(students=students, **values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ExportError(f"{path} is damaged: {error}. {again}") from None


def exported_student(run: Run, name: str) -> ExportedStudent:
    """One student of export.json. Raises ExportError where it was not exported."""
    results = read_results(run)
    if results is None or name not in results.students:
        raise ExportError(f"{run.export} has no exported student {name!r}. Run `potstill export {run.path} --to onnx`.")
    return results.students[name]


def _student(facts: dict[str, Any]) -> ExportedStudent:
    values = {
        "classes": tuple(facts["classes"]),
        "accuracy": Interval(**facts["accuracy"]),
        "operating_point": OperatingPoint.of(facts["operating_point"]),
        "thresholds": tuple(facts.get("thresholds", ())),
        "files": tuple(_file(f) for f in facts["files"]),
    }
    return ExportedStudent(**{**facts, **values})


def _file(values: dict[str, Any]) -> FileResult:
    candidates = values["candidates"]
    if candidates is not None:
        candidates = tuple(CandidateResult(**candidate) for candidate in candidates)
    return FileResult(**{**values, "candidates": candidates})


_HEADER = ["format", "precision", "accuracy", "agreement", "largest difference", "MB", "ms/photo", "runtime", "status"]


def _header(files: Sequence[FileResult]) -> list[str]:
    return [files[0].metric if files and name == "accuracy" else name for name in _HEADER]


def formats_table(files: Sequence[FileResult]) -> str:
    """The files as a Markdown table, for cards and docs."""
    lines = [_header(files), ["---", "---", *["--:"] * 5, "---", "---"], *(_cells(file) for file in files)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def formats_on_terminal(files: Sequence[FileResult]) -> Table:
    """The same table for the terminal."""
    return text_table(_header(files), [_cells(file) for file in files], right=range(2, 7))


def _cells(file: FileResult) -> list[str]:
    return [
        file.format,
        file.precision,
        _text(file.accuracy, "{:.1%}"),
        _text(file.agreement, "{:.1%}"),
        _text(file.max_difference, "{:.2g}"),
        _text(file.bytes and file.bytes / 1e6, "{:.2f}"),
        _text(file.milliseconds, "{:.1f}"),
        file.runtime or "–",
        f"{file.status}: {file.reason.splitlines()[0]}" if file.reason else file.status,
    ]


def _text(value: float | None, pattern: str) -> str:
    return "–" if value is None else pattern.format(value)
