"""Damaged, swapped and incomplete files, missing tools, and unknown names."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.export.conftest import STUDENT, quiet
from tests.support import potstill as command

from potstill.errors import ExportError
from potstill.export import Tolerance, export, load_exported, push, verify
from potstill.export import stage as flow
from potstill.export.attempts import are_probabilities
from potstill.export.formats import registry as formats_module
from potstill.export.formats.registry import FORMATS, find_formats
from potstill.export.int8.ladder import LADDER
from potstill.run.files import read_json, sha256_of, write_json
from potstill.run.folder import Run

FILES = ["student.onnx", "student.pt2", "student-int8.onnx"]


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
    files = {"student.xml": {"sha256": {name: sha256_of(tmp_path / name) for name in parts}}}
    write_json(tmp_path / "manifest.json", {"files": files})
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
    entry = {"format": form.name, "precision": "float32", "sha256": {path.name: sha256_of(path)}}
    facts = {"format": 1, "labels": ["a", "b"], "size": 32, "threshold": 0.5, "files": {path.name: entry}}
    write_json(tmp_path / "manifest.json", facts)
    assert verify(path)["size"] == 32
    expected = "does not load" if form.is_installed else r"is not installed. Install it: pip install 'potstill\["
    if form.is_installed and form.name == "coreml":
        expected = "runs on Apple machines only"
    with pytest.raises(ExportError, match=expected):
        load_exported(path)


def test_a_package_with_a_file_too_many_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "student.mlpackage"
    package.mkdir()
    (package / "model").write_text("x")
    files = {"student.mlpackage": {"sha256": {"student.mlpackage/model": sha256_of(package / "model")}}}
    write_json(tmp_path / "manifest.json", {"files": files})
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
    monkeypatch.setattr(formats_module, "requires", lambda name: ["torch<2.0,>=1.0", "numpy"])
    with pytest.raises(ExportError, match=r"onnxruntime .* wants torch<2.0,>=1.0, .* is installed\.\n  Add --isolated"):
        find_formats(["onnx"])
    monkeypatch.setattr(formats_module, "requires", lambda name: ["torch>=1.0", 'torch<2; extra == "old"'])
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


SENSITIVE = next(rung for rung in LADDER if rung.float_layers)


def test_what_is_not_right_leaves_no_file(taught_copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rung alone loses a third of the answers, see test_int8_went_up_the_ladder."""
    monkeypatch.setattr(flow, "LADDER", LADDER[:1])
    folder = taught_copy.export / STUDENT
    folder.mkdir(parents=True)
    (folder / "student-int8.onnx").write_bytes(b"of an earlier call, without a manifest")
    with pytest.raises(ExportError, match=r"no file was left:\n    onnx int8: loses .* points of accuracy \(.* of 24"):
        export(taught_copy, ["onnx"], ["int8"], reporter=quiet())
    left = {path.name for path in taught_copy.export.rglob("*") if path.is_file()}
    assert left == {"README.md", "done.json", "export.json"}
    (result,) = read_json(taught_copy.export / "export.json")["students"][STUDENT]["files"]
    assert (result["status"], result["file"], result["bytes"]) == ("failed", None, None)
    assert result["agreement"] < 0.9
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


def test_of_int8_the_nearest_rung_is_kept_when_none_is_near_enough() -> None:
    """Tolerance alone; `test_int8_keeps_the_rung_that_is_nearest` has the files."""
    strict = Tolerance()
    assert strict.broken_by(0, 20, 750)
    assert not strict.for_rounded().broken_by(0, 20, 750)
    assert strict.for_rounded().broken_by(0, 38, 750)
    assert strict.for_rounded().broken_by(8, 20, 750), "the accuracy is held to what it was"
    assert Tolerance(min_agreement=0.9).for_rounded().min_agreement == 0.9


def test_int8_keeps_the_rung_that_is_nearest(taught_copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is good enough all rungs are tried, and the nearest on val wins, not the last."""
    rungs = (LADDER[0], SENSITIVE, LADDER[1])
    monkeypatch.setattr(flow, "LADDER", rungs)

    class Never(Tolerance):
        def broken_by(self, lost: int, different: int, photos: int, split: str = "test") -> str:
            return "not what it was"

        def for_rounded(self) -> Tolerance:
            return Tolerance(max_loss=0.05, min_agreement=0.8)

    (result,) = export(taught_copy, ["onnx"], ["int8"], tolerance=Never(), reporter=quiet())
    assert result.tries is not None
    assert [t["calibration"] for t in result.tries] == [rung.name for rung in rungs]
    best = min(result.tries, key=lambda t: t["distance"])
    assert result.status == "ok"
    assert result.calibration == best["calibration"] == SENSITIVE.name
    assert result.reason == "not what it was", "a file that is only the nearest says what it lacks"
    assert result.file is not None
    assert (taught_copy.export / result.file).is_file()


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
