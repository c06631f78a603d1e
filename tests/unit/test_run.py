"""The run folder: nothing is half written, finished work is kept, stale work is refused with the reason."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from potstill import pipeline
from potstill.compute.machine import Machine
from potstill.context import Context
from potstill.errors import PotstillError, SpaceError, StaleError
from potstill.monitoring.progress import Reporter
from potstill.run.files import check_space, read_json, replacing, write_json, write_text
from potstill.run.folder import Run, differences, new_run_name
from potstill.run.integrity import file_facts


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    assert os.stat(tmp_path / "a").st_mode & 0o044 == 0o044  # noqa: PTH116


def test_json_has_no_nan_and_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    with pytest.raises(PotstillError, match="is missing"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"x":')
    with pytest.raises(PotstillError, match="is damaged"):
        read_json(tmp_path / "a.json")


def test_a_finished_stage_is_skipped_and_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("2_teacher")
    assert stage.begin({"a": (1, 2)})
    (stage.path / "work").write_text("half")
    (stage.path / ".x.part").write_text("torn")
    assert stage.begin({"a": [1, 2]}), "tuples and lists are one in JSON"
    assert (stage.path / "work").exists()
    assert not (stage.path / ".x.part").exists()
    stage.finish(photos=3)
    assert not stage.begin({"a": [1, 2]})
    assert stage.facts() == {"inputs": {"a": [1, 2]}, "photos": 3, "files": file_facts(stage.path)}
    assert list(stage.facts()["files"]) == ["work"]


def test_an_interrupted_stage_with_other_inputs_starts_clean(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("2_teacher")
    stage.begin({"a": 1})
    (stage.path / "work").write_text("half")
    assert stage.begin({"a": 2})
    assert not (stage.path / "work").exists()


def test_a_stale_stage_is_refused_with_the_difference_and_redone_when_told(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("2_teacher")
    stage.begin({"teacher": {"model": "a", "lr": 0.1}})
    (stage.path / "model").write_text("precious")
    stage.finish()
    with pytest.raises(StaleError) as caught:
        stage.begin({"teacher": {"model": "b", "lr": 0.1}})
    assert "teacher.model: 'a' → 'b'" in str(caught.value)
    assert "lr" not in str(caught.value)
    assert "--redo" in str(caught.value)
    assert (stage.path / "model").read_text() == "precious", "a refusal loses nothing"
    assert Run(tmp_path, redo=True).stage("2_teacher").begin({"teacher": {"model": "b", "lr": 0.1}})
    assert not (stage.path / "model").exists()


def test_killed_between_done_and_clean_up_is_done(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("2_teacher")
    stage.begin({"a": 1})
    write_json(stage.path / "done.json", {"inputs": {"a": 1}})  # and inputs.json is still there
    assert not stage.begin({"a": 1})


def test_facts_of_an_unfinished_stage_name_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(PotstillError, match="potstill distill"):
        Run(tmp_path).stage("2_teacher").facts()
    with pytest.raises(PotstillError, match="is not a run folder"):
        Run.open(tmp_path)


def test_differences_name_what_was_added_and_removed() -> None:
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}}) == ["a.c: 2 → nothing", "a.d: nothing → 3"]
    assert len(differences({"a": "x" * 500}, {"a": "y" * 500})[0]) < 140


def test_run_names_are_plain(tmp_path: Path) -> None:
    assert new_run_name(tmp_path / "my photos (2)!", "a+b/c").endswith("_my-photos--2_a-b-c")
    assert new_run_name(Path("/"), "t").endswith("_data_t")


class _Usage(NamedTuple):
    total: int = 100
    used: int = 0
    free: int = 1_000_000


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage())
    check_space(tmp_path / "not" / "yet", 900_000, "Soft labels")
    with pytest.raises(SpaceError, match=r"Soft labels needs 0\.00 GB .* 0\.00 GB are free") as caught:
        check_space(tmp_path, 1_000_000, "Soft labels")
    assert "views.count" in str(caught.value)


def test_the_readme_says_what_is_missing_and_what_to_type(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.stage("1_images").begin({})
    run.stage("1_images").finish()
    run.write_readme()
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "| `1_images/` | the photos, decoded once" in text
    assert text.count("| finished |") == 1
    assert "call potstill.distill again" in text
    assert json.loads((tmp_path / "1_images/done.json").read_text())["inputs"] == {}


def test_the_readme_says_how_to_resume_as_it_was_typed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.create("potstill demo --quick", "seeds = 1\n")
    run.write_readme()
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "    potstill demo --quick     # resume" in text
    assert f"    potstill status {tmp_path}" in text


def test_the_readme_is_right_after_every_stage(tmp_path: Path) -> None:
    """It is read while the run works, which may take hours."""
    run = Run(tmp_path)
    context = Context(run, Machine("cpu", 1, 1), Reporter(quiet=True))
    for finished, name in enumerate(("1_images", "2_teacher", "3_soft_labels"), 1):
        with pipeline._stage(name, context):
            run.stage(name).begin({})
            run.stage(name).finish()
        assert (tmp_path / "README.md").read_text("utf-8").count("| finished |") == finished


@pytest.mark.parametrize("content", [None, {"format": 1}, {"format": 99}, {"format": "x"}, []])
def test_a_run_folder_of_another_version_is_refused(tmp_path: Path, content: object) -> None:
    write_text(tmp_path / "config.toml", "seeds = 1\n")
    if content is not None:
        write_json(tmp_path / "run.json", content)
    with pytest.raises(StaleError, match=r"was made by another version of Potstill \(run format \d+; this version"):
        Run.open(tmp_path)
    with pytest.raises(StaleError, match="make a new run"):
        Run(tmp_path).create("potstill distill photos", "seeds = 1\n")


def test_what_is_no_run_folder_is_said_with_the_runs_that_there_are(in_folder: Path) -> None:
    with pytest.raises(PotstillError, match=r"There is no run folder runs/nope\.\n.*`potstill distill DATA` makes one"):
        Run.open("runs/nope")
    for number in range(7):
        write_text(Path(f"runs/2026-11-2{number}_cells/config.toml"), "seeds = 1\n")
        os.utime(f"runs/2026-11-2{number}_cells/config.toml", (number, number))
    with pytest.raises(PotstillError) as caught:
        Run.open("runs/2026-11-27_cells")
    assert "There is no run folder runs/2026-11-27_cells. Did you mean '2026-11-2" in str(caught.value)
    assert "Run folders here: runs/2026-11-26_cells, runs/2026-11-25_cells" in str(caught.value)
    assert ", and 2 older ones." in str(caught.value)
    with pytest.raises(
        PotstillError, match=r"runs is not a run folder \(it has no config.toml\).\n.*runs/2026-11-26_cell"
    ):
        Run.open("runs")
    Path("photo.jpg").write_bytes(b"")
    with pytest.raises(PotstillError, match=r"photo.jpg is a file, not a run folder.\n.*runs/2026-11-26_cells"):
        Run.open("photo.jpg")


def test_a_folder_of_exported_files_is_said_with_them(tmp_path: Path) -> None:
    export = tmp_path / "run" / "6_export"
    for name in ("manifest.json", "student-int8.onnx", "student.onnx", "student.bin", "README.md"):
        write_text(export / "small" / name, "{}")
    for folder in (export, export / "small"):
        with pytest.raises(PotstillError, match="is a folder of exported files, not a run folder") as caught:
            Run.open(folder)
        named = str(caught.value).partition("Name one of its files: ")[2]
        assert named == f"{export / 'small' / 'student.onnx'}, {export / 'small' / 'student-int8.onnx'}."


def test_a_new_run_folder_says_its_format_and_is_opened(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert run.create("potstill distill photos", "seeds = 1\n")
    assert not run.create("potstill distill photos", "seeds = 2\n"), "it is there already"
    assert Run.open(run.path).id == run.id != ""
    assert (run.path / "config.toml").read_text("utf-8") == "seeds = 2\n"


def test_a_folder_that_may_only_be_read_tells_whether_somebody_works_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)

    def refusing(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with run.only_here():
        monkeypatch.setattr("potstill.run.folder.FileLock", refusing)
        assert run.is_worked_on
    assert not run.is_worked_on
    (tmp_path / ".lock").unlink(missing_ok=True)
    assert not run.is_worked_on
