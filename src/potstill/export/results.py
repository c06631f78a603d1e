"""What is known of every exported file: the content of 6_export/export.json, which the report and the card read.

format              1, of this file
run, fingerprint    the run, and the digest of its student stage
environment         machine and versions, as in environment.json
students            NAME → what its files are compared with:
    seed, arm, weights_sha256, size, crop, classes, temperature, threshold
    test_photos, accuracy {value, low, high}, milliseconds   of the torch student, one thread
    confidence      of the intervals of the student and its files
    max_loss, min_agreement, min_rounded_agreement           the tolerance, as shares
    files           one `FileResult` per format and precision
"""

import shutil
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table

from potstill.compute.device import decide, environment
from potstill.config.schema import MachineConfig
from potstill.monitoring.tables import text_table
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run

AWARE = "quantization-aware"
"""Folder in 6_export/ for students that were trained on for int8."""

Status = Literal["ok", "failed", "not run", "unsupported"]
"""ok: inside the tolerance. failed: no file was left. not run: converted, but its runtime does not exist on this
machine. unsupported: the format has no such precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileResult:
    """One format at one precision. What could not be measured is None, and `reason` says why."""

    format: str
    precision: str
    status: Status
    reason: str = ""
    file: str | None = None
    """Relative to 6_export/; the first of `sha256`. None where no file was left."""
    sha256: dict[str, str] | None = None
    """Of every file that belongs to it, by name relative to 6_export/."""
    bytes: int | None = None
    input: str = ""
    """`any size` or `S x S`."""
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    """Wilson interval of the accuracy, of the student's `confidence`."""
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
    """int8: the rung of the ladder that the file came from."""
    tries: list[dict[str, Any]] | None = None
    """int8: every rung that was tried, in order: `calibration`; `accuracy`, `agreement` and `distance` (mean total
    variation of the probabilities from the torch student's) on the val photos; `reason` (empty: it held)."""
    seconds: float | None = None
    """Time to convert and score, all tries together."""
    isolated: bool = False
    """Made in an environment of its own."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def line(self) -> str:
        """For people, while the files are made."""
        head = f"{self.format} {self.precision}: {self.status}"
        if self.accuracy is None or self.bytes is None or self.agreement is None or self.milliseconds is None:
            return f"{head}, {self.reason}"
        return (
            f"{head}, {self.accuracy:.1%} right, {self.agreement:.1%} as the torch student, "
            f"{self.bytes / 1e6:.2f} MB, {self.milliseconds:.1f} ms"
        )


def read_results(run: Run) -> dict[str, Any]:
    """The content of export.json, empty where there is none."""
    path = run.export / "export.json"
    return dict(read_json(path)) if path.is_file() else {}


def open_results(run: Run, name: str, facts: dict[str, Any]) -> None:
    """Make 6_export/ and export.json ready for the files of a student.

    Results and files of earlier calls stay, unless they are of other weights; results alone are dropped where they
    were measured with another tolerance.

    Args:
        facts: what the files are compared with, see the top of this module.
    """
    fingerprint = run.stage("4_students").digest()
    results = read_results(run)
    students = results.get("students", {}) if results.get("fingerprint") == fingerprint else {}
    before = students.get(name, {})
    if before.get("weights_sha256") != facts["weights_sha256"]:
        shutil.rmtree(run.export / name, ignore_errors=True)
        shutil.rmtree(run.export / AWARE / name, ignore_errors=True)
    same = all(before.get(key) == value for key, value in facts.items() if key != "milliseconds")
    files = before["files"] if before and same else []
    (run.export / "done.json").unlink(missing_ok=True)
    run.stage("6_export").begin({"students": fingerprint})
    write_results(
        run,
        {
            "format": 1,
            "run": run.path.name,
            "fingerprint": fingerprint,
            "environment": environment(decide(MachineConfig())),
            "students": {**students, name: {**facts, "files": files}},
        },
    )


def write_results(run: Run, results: dict[str, Any]) -> None:
    """Write export.json."""
    write_json(run.export / "export.json", results)


_HEADER = ["format", "precision", "accuracy", "agreement", "largest difference", "MB", "ms/photo", "runtime", "status"]


def formats_table(files: list[dict[str, Any]]) -> str:
    """The files as a Markdown table, for cards and docs."""
    lines = [_HEADER, ["---", "---", *["--:"] * 5, "---", "---"], *(_cells(file) for file in files)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def formats_on_terminal(files: list[dict[str, Any]]) -> Table:
    """The same table for the terminal."""
    return text_table(_HEADER, [_cells(file) for file in files], right=range(2, 7))


def _cells(file: dict[str, Any]) -> list[str]:
    note = file["status"] if not file["reason"] else f"{file['status']}: {file['reason'].splitlines()[0]}"
    return [
        file["format"],
        file["precision"],
        _text(file["accuracy"], "{:.1%}"),
        _text(file["agreement"], "{:.1%}"),
        _text(file["max_difference"], "{:.2g}"),
        _text(file["bytes"] and file["bytes"] / 1e6, "{:.2f}"),
        _text(file["milliseconds"], "{:.1f}"),
        file["runtime"] or "–",
        note,
    ]


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
