"""Damaged, swapped and incomplete files, missing tools, and unknown names."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.export.conftest import STUDENT, quiet
from tests.support import edit_settings
from tests.support import potstill as command

from potstill.errors import ExportError
from potstill.export import Tolerance, export, load_exported, push, verify
from potstill.export import files as making
from potstill.export.formats import base as formats_base
from potstill.export.formats import registry as formats_module
from potstill.export.formats.registry import FORMATS, find_formats
from potstill.export.int8.candidates import CANDIDATES
from potstill.export.manifest import Manifest, ManifestFile
from potstill.export.results import exported_student, read_results
from potstill.export.tolerance import are_probabilities
from potstill.metrics import wilson_interval
from potstill.run.files import sha256_of, write_json
from potstill.run.folder import Run

FILES = ["student.onnx", "student.pt2", "student-int8.onnx"]


def write_a_manifest(folder: Path, name: str, sha256: dict[str, str]) -> None:
    """A manifest of one file."""
    entry = ManifestFile(format="any", precision="float32", sha256=sha256)
    facts = {"student": "s", "fingerprint": "f", "labels": ("a", "b"), "size": 32, "threshold": 0.5}
    Manifest(**facts, files={name: entry}).write(folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused(exported_copy: Run, name: str) -> None:
    path = exported_copy.export / STUDENT / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"is not the file that was scored.*damaged, cut off or swapped"):
        load_exported(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0.9, 0.0])
def test_a_truncated_file_is_refused(exported_copy: Run, name: str, left: float) -> None:
    path = exported_copy.export / STUDENT / name
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(ExportError, match="is not the file that was scored"):
        load_exported(path)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("student.onnx", "student-int8.onnx"),
        ("student.pt2", "student-float16.pt2"),
    ],
)
def test_a_swapped_file_is_refused(exported_copy: Run, name: str, other: str) -> None:
    folder = exported_copy.export / STUDENT
    shutil.copy(folder / other, folder / name)
    with pytest.raises(ExportError, match="swapped"):
        load_exported(folder / name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bin_: bin_.unlink(), r"student\.bin is missing. Export again"),
        (lambda bin_: bin_.write_bytes(b"of another student"), r"student\.bin is not the file that was scored"),
        (lambda bin_: bin_.write_bytes(bin_.read_bytes()[:-1]), r"student\.bin is not the file that was scored"),
    ],
)
def test_every_part_of_a_file_is_checked(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    """OpenVINO's weights are beside the .xml. The check comes before its runtime is asked for."""
    parts = {"student.xml": b"<net/>", "student.bin": b"weights"}
    for name, data in parts.items():
        (tmp_path / name).write_bytes(data)
    write_a_manifest(tmp_path, "student.xml", {name: sha256_of(tmp_path / name) for name in parts})
    verify(tmp_path / "student.xml")
    damage(tmp_path / "student.bin")
    with pytest.raises(ExportError, match=message):
        load_exported(tmp_path / "student.xml")


def test_a_file_away_from_its_manifest_is_refused(exported_copy: Run, tmp_path: Path) -> None:
    shutil.copy(exported_copy.export / STUDENT / "student.onnx", tmp_path / "student.onnx")
    with pytest.raises(ExportError, match=r"has no manifest\.json"):
        load_exported(tmp_path / "student.onnx")


def test_a_file_from_before_there_was_a_crop_looks_at_the_whole_square(exported_copy: Run) -> None:
    path = exported_copy.export / STUDENT / "manifest.json"
    manifest = json.loads(path.read_text())
    assert load_exported(path.with_name("student.onnx")).crop == manifest.pop("crop") == 0.875
    write_json(path, manifest)
    assert load_exported(path.with_name("student.onnx")).crop == 1.0


def test_a_file_that_is_not_in_the_manifest_is_refused(exported_copy: Run) -> None:
    folder = exported_copy.export / STUDENT
    shutil.copy(folder / "student.onnx", folder / "mine.onnx")
    with pytest.raises(ExportError, match=r"mine\.onnx is not in .*which lists .*student\.onnx"):
        load_exported(folder / "mine.onnx")


def test_other_labels_inside_are_refused(exported_copy: Run) -> None:
    """A whole file of another model, with its own hash in the manifest: the labels give it away."""
    path = exported_copy.export / STUDENT / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["labels"] = list(reversed(manifest["labels"]))
    write_json(path, manifest)
    for name in ("student.onnx", "student.pt2"):
        with pytest.raises(ExportError, match=r"has the labels .* inside"):
            load_exported(path.with_name(name))


@pytest.mark.parametrize("suffix", sorted(f.suffix for f in FORMATS.values()))
def test_a_runtime_that_does_not_load_it_is_told_without_a_traceback(tmp_path: Path, suffix: str) -> None:
    """Rubbish with a manifest that fits: the hash holds, so the runtime itself has to refuse."""
    form = next(f for f in FORMATS.values() if f.suffix == suffix)
    path = tmp_path / f"student{suffix}"
    path.write_bytes(b"this is no network" * 100)
    write_a_manifest(tmp_path, path.name, {path.name: sha256_of(path)})
    assert verify(path).size == 32
    expected = "does not load" if form.is_installed else r"is not installed. Install it: pip install 'potstill\["
    if form.is_installed and form.name == "coreml":
        expected = "runs on Apple machines only"
    with pytest.raises(ExportError, match=expected):
        load_exported(path)


def test_a_package_with_a_file_too_many_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "student.mlpackage"
    package.mkdir()
    (package / "model").write_text("x")
    write_a_manifest(tmp_path, package.name, {"student.mlpackage/model": sha256_of(package / "model")})
    verify(package)
    (package / "another").write_text("y")
    with pytest.raises(ExportError, match="another, which does not belong to it"):
        verify(package)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_missing_tool_gives_the_line_that_installs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    form = dataclasses.replace(FORMATS[name], modules=("no_such_tool",), extra=FORMATS[name].extra or "export")
    monkeypatch.setitem(formats_module.FORMATS, name, form)
    with pytest.raises(ExportError) as caught:
        find_formats([name])
    assert f"\n    pip install 'potstill[{form.extra}]'\n" in str(caught.value)
    assert "--isolated" in str(caught.value)
    assert find_formats([name], installed=False) == [form]


def test_the_extras_in_the_messages_exist() -> None:
    from importlib.metadata import metadata

    extras = metadata("potstill").get_all("Provides-Extra") or []
    assert {f.extra for f in FORMATS.values() if f.extra} <= set(extras)


def test_tools_for_another_torch_are_sent_to_an_environment_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats_base, "requires", lambda name: ["torch<2.0,>=1.0", "numpy"])
    with pytest.raises(ExportError, match=r"onnxruntime .* wants torch<2.0,>=1.0, .* is installed\.\n  Add --isolated"):
        find_formats(["onnx"])
    monkeypatch.setattr(formats_base, "requires", lambda name: ["torch>=1.0", 'torch<2; extra == "old"'])
    assert find_formats(["onnx"])[0].is_installed


def test_unknown_names_are_told_with_the_nearest(taught_run: Run) -> None:
    with pytest.raises(ExportError, match=r"no format 'onx'\. Did you mean onnx"):
        export(taught_run, ["onx"], reporter=quiet())
    with pytest.raises(ExportError, match=r"no precision 'int4'\. There are: float32, float16, int8"):
        export(taught_run, ["onnx"], ["int4"], reporter=quiet())


def test_the_command_exits_with_2_and_one_message(taught_run: Run) -> None:
    done = command("export", taught_run.path, "--to", "tflit")
    assert done.returncode == 2
    assert "Did you mean litert" in done.stderr or "There is no format" in done.stderr
    assert "Traceback" not in done.stderr


SENSITIVE = next(candidate for candidate in CANDIDATES if candidate.float_layers)


def test_what_is_not_right_leaves_no_file(taught_copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first candidate alone loses a third of the accuracy, see test_int8_tries_its_candidates."""
    monkeypatch.setattr(making, "CANDIDATES", CANDIDATES[:1])
    folder = taught_copy.export / STUDENT
    folder.mkdir(parents=True)
    (folder / "student-int8.onnx").write_bytes(b"of an earlier call, without a manifest")
    with pytest.raises(ExportError, match=r"no file was left:\n    onnx int8: loses .* points of accuracy \(.* of 24"):
        export(taught_copy, ["onnx"], ["int8"], reporter=quiet())
    left = {path.name for path in taught_copy.export.rglob("*") if path.is_file()}
    assert left == {"README.md", "done.json", "export.json"}
    (result,) = exported_student(taught_copy, STUDENT).files
    assert (result.status, result.file, result.bytes) == ("failed", None, None)
    assert result.agreement is not None
    assert result.agreement < 0.9
    with pytest.raises(ExportError, match="potstill export"):
        push(taught_copy, "me/nothing")


@pytest.mark.parametrize(
    ("lost", "different", "photos", "message"),
    [
        (1, 1, 24, ""),
        (2, 2, 24, "loses 8.3 points of accuracy (2 of 24 test photos)"),
        (-3, 3, 24, "agrees with the torch student on 87.5% of 24 test photos only"),
        (7, 7, 750, ""),
        (8, 8, 750, "loses 1.1 points of accuracy (8 of 750 test photos)"),
        (0, 8, 750, "agrees with the torch student on 98.9% of 750 test photos only"),
    ],
)
def test_the_tolerance(lost: int, different: int, photos: int, message: str) -> None:
    assert Tolerance().broken_by(lost, different, photos) == message


def test_of_int8_the_nearest_candidate_is_kept_when_none_is_near_enough() -> None:
    """Tolerance alone; `test_int8_keeps_the_candidate_that_is_nearest` has the files."""
    strict = Tolerance()
    assert strict.broken_by(0, 20, 750)
    assert not strict.for_rounded().broken_by(0, 20, 750)
    assert strict.for_rounded().broken_by(0, 38, 750)
    assert strict.for_rounded().broken_by(8, 20, 750), "the accuracy is held to what it was"
    assert Tolerance(min_agreement=0.9).for_rounded().min_agreement == 0.9


@pytest.mark.long
def test_int8_keeps_the_candidate_that_is_nearest(taught_copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is good enough all candidates are tried, and the nearest on val wins, not the last."""
    candidates = (CANDIDATES[0], SENSITIVE, CANDIDATES[1])
    monkeypatch.setattr(making, "CANDIDATES", candidates)

    class Never(Tolerance):
        def broken_by(
            self, lost: int, different: int, photos: int, split: str = "test", *, measure: str = "accuracy"
        ) -> str:
            return "not what it was"

        def for_rounded(self) -> Tolerance:
            return Tolerance(max_loss=0.05, min_agreement=0.8)

    (result,) = export(taught_copy, ["onnx"], ["int8"], tolerance=Never(), reporter=quiet())
    assert result.candidates is not None
    assert [c.calibration for c in result.candidates] == [c.name for c in candidates]
    best = min(result.candidates, key=lambda c: c.distance or np.inf)
    assert result.status == "ok"
    assert result.calibration == best.calibration == SENSITIVE.name
    assert result.reason == "not what it was", "a file that is only the nearest says what it lacks"
    assert result.file is not None
    assert (taught_copy.export / result.file).is_file()


@pytest.mark.long
def test_what_another_format_left_beside_it_is_not_its_own(taught_copy: Run) -> None:
    """OpenVINO's student.bin once counted as the half of student.onnx."""
    export(taught_copy, ["torch"], ["float32"], reporter=quiet())
    beside = taught_copy.export / STUDENT / "student.bin"
    beside.write_bytes(b"the weights of student.xml")
    (result,) = export(taught_copy, ["onnx"], ["float32"], reporter=quiet())
    assert result.file is not None
    assert list(result.sha256 or {}) == [result.file]
    assert result.bytes == (taught_copy.export / result.file).stat().st_size
    assert beside.read_bytes() == b"the weights of student.xml"


@pytest.mark.parametrize(
    ("row", "good"),
    [
        ([0.2, 0.3, 0.5], True),
        ([0.199, 0.301, 0.508], True),
        ([-30.0, 127.0, -128.0], False),  # whole numbers of an int8 output that nobody scaled back
        ([0.0, 0.0, 0.0], False),
        ([2.1, -0.3, -0.8], False),
        ([float("nan"), 0.5, 0.5], False),
    ],
)
def test_answers_must_be_probabilities(row: list[float], good: bool) -> None:
    """The class with the largest number can be right all the same, so accuracy alone does not see this."""
    assert are_probabilities(np.array([[0.1, 0.2, 0.7], row], np.float32)) is good


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": 1},
            r"another version .* \(its format is 1, this version reads 3\)\. Export again",
        ),
        ({"format": 4}, r"its format is 4, .* Export again: potstill export .* --to onnx"),
        ({"students": {"s": {}}}, r"export\.json is damaged: 'classes'\. Export again"),
        ({"more": 1}, r"export\.json is damaged: .*'more'.* Export again"),
    ],
)
def test_an_export_json_of_another_version_is_refused(
    exported_copy: Run, change: dict[str, object], message: str
) -> None:
    path = exported_copy.export / "export.json"
    write_json(path, {**json.loads(path.read_text()), **change})
    with pytest.raises(ExportError, match=message):
        read_results(exported_copy)


def test_an_export_json_that_is_refused_is_replaced(exported_copy: Run) -> None:
    path = exported_copy.export / "export.json"
    write_json(path, {**json.loads(path.read_text()), "more": 1})
    (result,) = export(exported_copy, ["torch"], ["float32"], tolerance=Tolerance(max_loss=0.05), reporter=quiet())
    assert exported_student(exported_copy, STUDENT).files == (result,)


def test_a_manifest_of_another_version_is_refused(exported_copy: Run) -> None:
    path = exported_copy.export / STUDENT / "manifest.json"
    write_json(path, {**json.loads(path.read_text()), "format": 2})
    with pytest.raises(ExportError, match=r"manifest\.json was written by another version .* Export again"):
        load_exported(path.with_name("student.onnx"))


def test_results_read_back_are_those_written(exported: Run, exported_copy: Run) -> None:
    results = read_results(exported)
    assert results is not None
    results.write(exported_copy)
    assert read_results(exported_copy) == results
    assert (exported_copy.export / "export.json").read_bytes() == (exported.export / "export.json").read_bytes()


@pytest.mark.long
def test_intervals_have_the_confidence_of_the_run(taught_copy: Run) -> None:
    """Results with another confidence are measured again, and the card says which it is."""

    def exported_at(confidence: float) -> tuple[float, float]:
        setting = f"confidence = {confidence}"
        edit_settings(taught_copy.path, lambda text: re.sub(r"^confidence = [\d.]+", setting, text, flags=re.M))
        (result,) = export(taught_copy, ["torch"], ["float32"], reporter=quiet())
        student = exported_student(taught_copy, STUDENT)
        assert student.confidence == confidence
        assert (student.accuracy.low, student.accuracy.high) == (result.low, result.high), "the same, in float32"
        assert f"{confidence:.0%} intervals" in (taught_copy.export / STUDENT / "README.md").read_text("utf-8")
        right = round((result.accuracy or 0) * student.test_photos)
        low, high = wilson_interval(right, student.test_photos, confidence)
        assert (result.low, result.high) == (low, high)
        return low, high

    (low, high), (lower, higher) = exported_at(0.8), exported_at(0.99)
    assert lower < low
    assert high < higher or high == 1
