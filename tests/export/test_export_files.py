"""Every file, run by its own runtime, says what the torch student says."""

import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.export.conftest import FORMATS, STUDENT

from potstill.cli import run as main
from potstill.data.pixels import PixelStore
from potstill.deploy.predictor import best_seed, load_predictor
from potstill.export import load_exported
from potstill.export.formats.registry import FORMATS as ALL
from potstill.export.int8.candidates import CANDIDATES
from potstill.export.manifest import read_manifest
from potstill.export.reference import Reference
from potstill.export.results import FileResult, exported_student, formats_on_terminal, formats_table
from potstill.monitoring.tables import print_table
from potstill.report.stage import write_report
from potstill.run.files import sha256_of
from potstill.run.folder import Run

FILES = {
    "onnx": ("student.onnx", "student-float16.onnx", "student-int8.onnx"),
    "torch": ("student.pt2", "student-float16.pt2"),
}
NAMES = [name for names in FILES.values() for name in names]


def results(run: Run) -> dict[tuple[str, str], FileResult]:
    return {(f.format, f.precision): f for f in exported_student(run, STUDENT).files}


def test_the_student_has_learned_something(exported: Run) -> None:
    assert exported_student(exported, STUDENT).accuracy.value >= 0.8


def test_all_formats_and_precisions_are_there(exported: Run) -> None:
    found = results(exported)
    assert set(found) == {(form, precision) for form in FORMATS for precision in ("float32", "float16", "int8")}
    assert {key for key, f in found.items() if f.status != "ok"} == {("torch", "int8")}
    assert found["torch", "int8"].status == "unsupported"
    assert sorted(f.file for f in found.values() if f.file) == sorted(f"{STUDENT}/{name}" for name in NAMES)


@pytest.mark.parametrize("form", FORMATS)
def test_float32_agrees_on_every_photo(exported: Run, form: str) -> None:
    result = results(exported)[form, "float32"]
    assert result.agreement == 1
    assert 0 <= result.max_difference < 1e-3
    assert result.milliseconds > 0
    assert result.peak_memory > 10e6


@pytest.mark.parametrize("form", FORMATS)
def test_float16_is_near(exported: Run, form: str) -> None:
    result = results(exported)[form, "float16"]
    assert result.agreement >= 23 / 24
    assert result.max_difference < 0.1


def test_int8_is_small_and_right(exported: Run) -> None:
    found = results(exported)
    assert found["onnx", "int8"].agreement >= 0.9
    assert found["onnx", "int8"].max_difference > 0, "int8 files differ a little; this one is none"
    assert found["onnx", "int8"].bytes <= 0.3 * found["onnx", "float32"].bytes


def test_int8_tries_its_candidates(exported: Run) -> None:
    """A real case: this network loses a third of its answers when its first convolution is rounded."""
    result = results(exported)["onnx", "int8"]
    assert [c.calibration for c in result.candidates or ()] == [c.name for c in CANDIDATES if not c.aware]
    assert result.candidates is not None
    assert "points of accuracy" in result.candidates[0].reason
    assert result.calibration == min(result.candidates, key=lambda c: c.distance or np.inf).calibration


def test_the_numbers_are_those_of_the_files(exported: Run) -> None:
    """Scored once more here, by hand, for one file."""
    store = PixelStore(exported.images)
    rows = store.rows("test")
    predictor = load_exported(exported.export / STUDENT / "student-int8.onnx")
    answers = [predictor.predict(np.array(store.photo(int(row)))).label for row in rows]
    labels = [exported.classes()[label] for label in store.labels(rows)]
    right = np.mean([a == b for a, b in zip(answers, labels, strict=True)])
    result = results(exported)["onnx", "int8"]
    assert result.accuracy == pytest.approx(right)
    assert result.bytes == (exported.export / result.file).stat().st_size
    reference = Reference.of(exported, STUDENT, best_seed(exported, STUDENT, "distilled"))
    torch_answers = [exported.classes()[k] for k in reference.test.probabilities.argmax(-1)]
    agreement = np.mean([a == b for a, b in zip(answers, torch_answers, strict=True)])
    assert result.agreement == pytest.approx(agreement)


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_of_any_size_gets_the_same_answer(exported: Run, name: str) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (150, 61, 3), np.uint8)
    torch_answer = load_predictor(exported.path, student=STUDENT).predict(photo)
    answer = load_exported(exported.export / STUDENT / name).predict(photo)
    assert list(answer.probabilities) == list(torch_answer.probabilities) == exported.classes()
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-3)
    allowed = 0.4 if "int8" in name else 0.1 if "float16" in name else 1e-3
    for label, value in torch_answer.probabilities.items():
        assert answer.probabilities[label] == pytest.approx(value, abs=allowed)


@pytest.mark.parametrize("name", NAMES)
def test_labels_rule_threshold_license_and_fingerprint_travel_in_the_file(exported: Run, name: str) -> None:
    path = exported.export / STUDENT / name
    form = next(f for f in ALL.values() if f.suffix == path.suffix)
    texts = form.read_metadata(path)
    assert json.loads(texts["labels"]) == exported.classes()
    assert "center square" in texts["input"]
    assert texts["fingerprint"] == exported.stage("3_soft_labels").digest()
    assert float(texts["threshold"]) == load_predictor(exported.path, student=STUDENT).threshold
    assert json.loads(texts["license"]) == {"starting weights": "Apache-2.0"}
    assert texts["precision"] == {"float16": "float16", "int8": "int8"}.get(path.stem.partition("-")[2], "float32")


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_this_machine_is_in_a_file(exported: Run, name: str) -> None:
    data = (exported.export / STUDENT / name).read_bytes()
    assert b"site-packages" not in data
    assert str(exported.path).encode() not in data
    assert b"/potstill/" not in data


def test_export_says_the_same_again_without_work(exported_copy: Run) -> None:
    from potstill.export import Tolerance, export
    from potstill.monitoring.progress import Reporter

    before = {path: path.stat().st_mtime_ns for path in (exported_copy.export / STUDENT).glob("student*")}
    tolerance = Tolerance(max_loss=0.05, min_agreement=0.9)
    again = export(exported_copy, ["onnx"], ["float32", "int8"], tolerance=tolerance, reporter=Reporter(quiet=True))
    assert [r.status for r in again] == ["ok", "ok"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_manifest_has_the_hash_of_every_part(exported: Run) -> None:
    folder = exported.export / STUDENT
    manifest = read_manifest(folder)
    assert sorted(manifest.files) == sorted(NAMES)
    parts = {name: sha for entry in manifest.files.values() for name, sha in entry.sha256.items()}
    assert all(sha256_of(folder / name) == sha for name, sha in parts.items())
    assert set(parts) | {"README.md", "manifest.json"} == {p.name for p in folder.iterdir()}


def test_the_table_has_a_row_for_each(exported: Run) -> None:
    files = exported_student(exported, STUDENT).files
    table = formats_table(files).splitlines()
    assert len(table) == 2 + len(files)
    assert any(line.startswith("| onnx | int8 | ") and line.endswith("| ok |") for line in table)
    assert any("torch.export files have no int8 here" in line for line in table)
    out = io.StringIO()
    print_table(formats_on_terminal(files), out)
    printed = out.getvalue().splitlines()
    assert len(printed) == len(table)
    for shown, markdown in zip(printed[2:], table[2:], strict=True):
        cells = [cell.strip() for cell in markdown.strip("|").split(" | ")]
        assert shown.split() == " ".join(cells).split(), "the same cells"


def test_the_report_shows_every_file(exported_copy: Run) -> None:
    page = write_report(exported_copy).read_text("utf-8")
    for name in NAMES:
        assert page.count(f"{STUDENT}/{name}") == 1
    assert "torch.export files have no int8 here" in page


def test_the_command_ends_with_a_command_that_uses_a_file(
    taught_copy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--precision", "float32", "--min-agreement", "50", "--max-loss", "50"]
    assert main(["export", str(taught_copy.path), "--to", "onnx", *words]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"  potstill predict {taught_copy.export / STUDENT / 'student.onnx'} photo.jpg ")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 40)).save(photo)
    assert main(["predict", shlex.split(line)[2], str(photo)]) == 0
