"""What export does to real students: format × precision → accuracy, agreement, size, latency. Makes results.csv.

    benchmarks/export/train.sh PHOTOS WEIGHTS RUN          # the four students, once
    python benchmarks/export/run.py RUN                    # all formats; tools that are missing get environments
    python benchmarks/export/run.py RUN --formats onnx     # some of them; the other rows stay

results.csv has a row per student, format and precision, as `potstill export` measured it: shares of the run's test
photos, the largest difference of a probability from the torch student's, bytes, milliseconds per photo on one thread.
speed.csv has the float32 teacher and every int8 ONNX file, timed in turn, photo by photo, in one process on one thread.
"""

import argparse
import csv
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).parent
COLUMNS = (
    "student",
    "format",
    "precision",
    "accuracy",
    "agreement",
    "max_difference",
    "bytes",
    "ms",
    "runtime",
    "versions",
    "status",
    "calibration",
    "reason",
    "photos",
)
SPEED = ("model", "precision", "runtime", "ms", "times_faster_than_teacher", "teacher", "photos")
TIMED_PHOTOS = 200


def main() -> None:
    """Export all students of the run, and write both tables."""
    from potstill.export.formats.base import PRECISIONS
    from potstill.export.formats.registry import FORMATS
    from potstill.run.folder import Run
    from potstill.run.layout import student_names

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS))
    parser.add_argument("--students", nargs="+")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    for name in arguments.students or student_names(run):
        _export(run, name, arguments.formats, arguments.precisions)
        write_rows(run, arguments.out / "results.csv")
    write_speed(run, arguments.out / "speed.csv")


def _export(run: Any, name: str, formats: list[str], precisions: list[str]) -> None:
    from potstill.errors import ExportError
    from potstill.export import export

    try:
        export(run, formats, precisions, student=name, isolated=True)
    except ExportError as error:  # files outside the tolerance are rows of the table, too
        print(f"{name}: {error}", flush=True)


def write_rows(run: Any, out: Path) -> None:
    """All that the run's export.json knows, in the order of students, formats and precisions."""
    from potstill.export.formats.base import PRECISIONS
    from potstill.export.formats.registry import FORMATS
    from potstill.export.results import read_results

    results = read_results(run)
    assert results is not None
    order = [(name, precision) for name in FORMATS for precision in PRECISIONS]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, student in results.students.items():
            for result in sorted(student.files, key=lambda f: order.index((f.format, f.precision))):
                row = {key: getattr(result, key, None) for key in COLUMNS}
                row |= {
                    "student": name,
                    "accuracy": None if result.accuracy is None else round(result.accuracy, 5),
                    "agreement": None if result.agreement is None else round(result.agreement, 5),
                    "max_difference": None if result.max_difference is None else f"{result.max_difference:.2g}",
                    "ms": result.milliseconds,
                    "versions": " ".join(f"{key}={value}" for key, value in (result.versions or {}).items()),
                    "reason": result.reason.splitlines()[0] if result.reason else "",
                    "photos": student.test_photos,
                }
                writer.writerow(row)


def write_speed(run: Any, out: Path) -> None:
    """Time the teacher, in torch and in ONNX Runtime, and every int8 ONNX file in turn on the same photos."""
    import numpy as np
    import torch

    from potstill.data.pixels import PixelStore
    from potstill.deploy.deployable import Deployable
    from potstill.export.formats.base import ExportRequest
    from potstill.export.formats.onnx import export_onnx, open_onnx
    from potstill.export.results import read_results
    from potstill.models.classifier import load

    torch.set_num_threads(1)
    store = PixelStore(run.images)
    photos = [np.array(store.photo(int(row))) for row in store.rows("test")[:TIMED_PHOTOS]]
    teacher = Deployable(load(run.teacher)).eval()
    graph = run.export / "teacher-for-timing.onnx"
    export_onnx(ExportRequest(deployable=teacher, path=graph, labels=run.classes(), metadata={}))
    teacher_row = f"teacher {teacher_name(run)}"

    def in_torch(photo: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return teacher(torch.from_numpy(photo))[0].numpy()

    runners: dict[tuple[str, str, str], Callable[[np.ndarray], np.ndarray]] = {
        (teacher_row, "float32", "torch"): in_torch,
        (teacher_row, "float32", "onnxruntime"): open_onnx(graph),
    }
    results = read_results(run)
    assert results is not None
    for name, student in results.students.items():
        result = student.file("onnx", "int8")
        if result is not None and result.file is not None:
            runners[name, "int8", "onnxruntime"] = open_onnx(run.export / result.file)
    times: dict[tuple[str, str, str], list[float]] = {key: [] for key in runners}
    for photo in [*photos[:5], *photos]:
        for key, run_one in runners.items():
            started = time.perf_counter()
            run_one(photo)
            times[key].append(1000 * (time.perf_counter() - started))
    graph.unlink()
    middle = {key: statistics.median(values[5:]) for key, values in times.items()}
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, SPEED, lineterminator="\n")
        writer.writeheader()
        for (model, precision, runtime), ms in middle.items():
            for base in ("torch", "onnxruntime"):
                ratio = middle[teacher_row, "float32", base] / ms
                values = (model, precision, runtime, round(ms, 3), round(ratio, 1), base, len(photos))
                writer.writerow(dict(zip(SPEED, values, strict=True)))


def teacher_name(run: Any) -> str:
    """Model and size."""
    info = json.loads((run.teacher / "model.json").read_text("utf-8"))
    return f"{info['name']}@{info['size']}"


if __name__ == "__main__":
    main()
