"""`potstill predict` uses the exported ONNX file of the chosen student: the same answers, without importing torch."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import environment

import potstill
from potstill.cli import run as command
from potstill.deploy import batches
from potstill.deploy.predictor import load_predictor
from potstill.errors import ModelError
from potstill.export import export
from potstill.export.load import find_exported
from potstill.export.results import read_results
from potstill.export.tolerance import Tolerance
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run

CODE = """
import sys
from potstill.cli import run
code = run(sys.argv[1:])
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def exported(tiny_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run with an ONNX file. Read only."""
    run = Run(Path(shutil.copytree(tiny_run.path, tmp_path_factory.mktemp("with-onnx") / "run")))
    lenient = Tolerance(max_loss=0.05, min_agreement=0.9)  # one photo of the few is 4 points
    export(run, ["onnx"], ["float32"], tolerance=lenient, reporter=Reporter(quiet=True))
    return run


@pytest.fixture(scope="module")
def some_photos(photos: Path) -> list[Path]:
    return sorted((photos / "test").rglob("*.png"))[::4]


def predict(run: Run, *words: str | Path) -> tuple[list[dict[str, float]], bool]:
    """The probabilities that the command prints, and whether it imported torch."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, "predict", str(run.path), *map(str, words), "--json"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [json.loads(line)["probabilities"] for line in done.stdout.splitlines()], done.stderr.strip() == "True"


def test_the_file_gives_the_students_probabilities_without_torch(exported: Run, some_photos: list[Path]) -> None:
    found, imported_torch = predict(exported, *some_photos)
    assert not imported_torch
    student = load_predictor(exported.path)
    for photo, probabilities in zip(some_photos, found, strict=True):
        assert probabilities == pytest.approx(student.predict(photo).probabilities, abs=1e-4)


def test_many_photos_at_once_get_what_each_gets_alone(
    exported: Run, some_photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_exported(exported.path)
    assert found is not None
    assert found.predict_many(some_photos * 9) == [found.predict(photo) for photo in some_photos] * 9
    monkeypatch.setattr(batches, "available_cores", lambda: 3)
    photos = [(photo, photo) for photo in some_photos]
    by_processes = dict(batches.predict_each(found, photos, count=batches.PROCESSES_FROM))
    assert by_processes == {photo: found.predict(photo) for photo in some_photos}
    predictor, photo = load_predictor(exported.path), some_photos[0]
    assert predictor.predict_many([photo])[0].probabilities == pytest.approx(
        predictor.predict(photo).probabilities, abs=1e-3
    )
    words = [str(photo) for photo in some_photos]
    assert predict(Run(found.path), *words)[0] == predict(exported, *words)[0], "the file itself can be named"


def test_other_models_are_run_by_torch(exported: Run, some_photos: list[Path]) -> None:
    twin, imported_torch = predict(exported, some_photos[0], "--arm", "alone")
    assert imported_torch
    expected = load_predictor(exported.path, arm="alone").predict(some_photos[0]).probabilities
    assert twin[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("spoiled", ["weights", "file", "results", "status", "seed"])
def test_a_file_of_anything_else_is_not_used(spoiled: str, exported: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(exported.path, tmp_path / "run", symlinks=True)))
    found = find_exported(run.path)
    assert found is not None
    results = read_results(run)
    assert results is not None
    chosen = results.students[found.manifest.student]
    seed = None
    if spoiled == "weights":
        for weights in run.students.glob("*/seed-*/distilled/model.safetensors"):
            weights.write_bytes(weights.read_bytes() + b" ")
    elif spoiled == "file":
        found.path.write_bytes(found.path.read_bytes()[:-1])
    elif spoiled == "results":
        (run.export / "export.json").unlink()
    elif spoiled == "status":
        failed = chosen.with_file(replace(chosen.files[0], status="failed"))
        replace(results, students={found.manifest.student: failed}).write(run)
    else:
        seed = 1 - chosen.seed
    assert find_exported(run.path, seed=seed) is None


def test_what_is_asked_for_is_never_ignored(exported: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder, found = next(exported.students.glob("*/seed-0/distilled")), find_exported(exported.path)
    assert found is not None
    for words, says in (
        ([folder, "--seed", "1"], "seed 1 can be chosen from a run folder only"),
        ([folder, "--arm", "alone"], "alone can be chosen"),
        ([exported.path, "--arm", "teacher", "--student", "x"], "leave out student x"),
        ([exported.path, "--student", "nobody"], "has no trained student 'nobody'"),
        ([exported.path, "--seed", "77"], "has no seed 77"),
        ([found.path, "--seed", "1"], "seed 1 can be chosen from a run folder only"),
        ([found.path.with_name("nothing.onnx")], "There is no file"),
    ):
        assert command(["predict", str(words[0]), "photo.jpg", *map(str, words[1:])]) == 2
        assert says in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ModelError):
        load_predictor(folder, student="x")
