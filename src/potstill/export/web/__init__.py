"""A page that runs the student in the visitor's browser: a folder of static files for any web host.

    index.html  *.js  style.css      the page
    student.onnx                     the student, preprocessing inside, as `--to onnx` makes and scores it
    model.json                       class names, thresholds, and what the run measured
    ort.js  *.wasm  LICENSES.txt     ONNX Runtime for the browser, from its npm package

Nothing comes from another host, and the page's content security policy forbids it to send anything anywhere.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.deploy.predictor import chosen_student
from potstill.export.results import ExportedStudent, exported_student
from potstill.export.stage import export
from potstill.export.tolerance import Tolerance
from potstill.export.web.runtime import FILES, LICENSES, get_runtime
from potstill.monitoring.progress import Reporter
from potstill.run.files import write_bytes, write_json, write_text
from potstill.run.folder import Run
from potstill.run.label_results import read_any_comparison
from potstill.run.layout import comparison_path

PAGE = Path(__file__).parent / "page"


def export_web(
    run: Run,
    *,
    student: str | None = None,
    seed: int | None = None,
    tolerance: Tolerance | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Write the folder `6_export/STUDENT/web` and return it.

    Args:
        student: the one that the comparison chose on val when None.
        seed: the best on val when None.
        tolerance: what the ONNX file may lose against the torch student.
    Raises:
        ExportError: npm is missing or cannot get the runtime, before any work; or the ONNX file is outside the
            tolerance.
    """
    name = student or chosen_student(run)
    reporter = reporter or Reporter(log=run.path / "log.txt")
    library = get_runtime(reporter)
    folder = run.export / name / "web"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier version; before `export` seals what is there
    (file,) = export(run, ["onnx"], ["float32"], student=name, seed=seed, tolerance=tolerance, reporter=reporter)
    assert file.file is not None
    for source in [*sorted(PAGE.iterdir()), *(library / target for target in FILES.values())]:
        write_bytes(folder / source.name, source.read_bytes())
    write_bytes(folder / "student.onnx", (run.export / file.file).read_bytes())
    write_text(folder / "LICENSES.txt", LICENSES)
    write_json(folder / "model.json", describe(run, name, exported_student(run, name)))
    return folder


def describe(run: Run, name: str, facts: ExportedStudent) -> dict[str, Any]:
    """What the page says about the student: the content of model.json."""
    comparison = read_any_comparison(comparison_path(run))
    attribution = run.images / "ATTRIBUTION.txt"
    return {
        "name": name,
        "classes": facts.classes,
        "threshold": facts.threshold,
        "operating_point": asdict(facts.operating_point) if facts.operating_point else None,
        **({"thresholds": facts.thresholds} if facts.thresholds else {}),
        "gray_levels": facts.gray_levels,
        "size": facts.size,
        "bytes": comparison.student(name).bytes,
        "accuracy": asdict(facts.accuracy),
        "confidence": facts.confidence,
        "test_photos": facts.test_photos,
        "teacher": " + ".join(comparison.teacher.models),
        "weights_sha256": facts.weights_sha256,
        "attribution": attribution.read_text("utf-8", errors="replace").strip() if attribution.is_file() else "",
    }
