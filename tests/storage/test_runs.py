"""A run in storage is the run that was made here, for every machine that reads it or goes on with it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.s3 import KEY, SECRET
from tests.support import TINY, weight_hashes

import potstill as library
from potstill.cli import run as command
from potstill.errors import DamageError, StorageError
from potstill.monitoring.progress import Reporter
from potstill.run.files import sha256_of, write_json
from potstill.run.folder import Run
from potstill.run.integrity import LARGE, require_whole
from potstill.storage import client, lock, runs
from potstill.storage.addresses import Address
from potstill.storage.runs import RemoteRun, local_run, worked_on


def address(where: str) -> Address:
    found = Address.of(where)
    assert found is not None
    return found


def files(folder: Path) -> dict[str, str]:
    """Hashes of the files that a run keeps."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths if path.name != "job.json"}


@pytest.fixture
def stored(bucket: str, run_copy: Run, in_folder: Path) -> Iterator[str]:
    """The tiny run, in storage."""
    where = f"{bucket}/runs/tiny"
    RemoteRun(address(where), run_copy.path).push()
    return where


def said(texts: list[str]) -> str:
    return "\n".join(texts)


def test_a_run_goes_to_storage_and_comes_back_whole(stored: str, run_copy: Run, in_folder: Path) -> None:
    told: list[str] = []
    with worked_on(stored, told.append, runs=in_folder / "elsewhere") as folder:
        assert files(folder) == files(run_copy.path)
        require_whole(folder, large=True)
    assert "Fetched from" in said(told)
    assert client.read(address(stored) / lock.NAME) is None


def test_distill_in_storage_and_again_on_another_machine(
    bucket: str, photos: Path, tiny_run: library.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"{bucket}/runs/shapes"
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        monkeypatch.chdir(tmp_path / machine)
        found = library.distill(photos, settings=TINY, run=where, reporter=Reporter(quiet=True))
        assert found.path == Path("runs/shapes")
        assert weight_hashes(found.path) == weight_hashes(tiny_run.path)
    again = (tmp_path / "two" / "runs" / "shapes" / "log.txt").read_text("utf-8")
    assert "finished before: images, teacher, soft labels, students, comparison" in again
    for file in (tmp_path / "one").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert KEY.encode() not in content, file
            assert SECRET.encode() not in content, file


def test_what_was_finished_elsewhere_is_not_made_again(stored: str, run_copy: Run, in_folder: Path) -> None:
    """The students of one machine, the comparison of another."""
    client.delete(address(stored) / "5_comparison/done.json")
    with worked_on(stored, print, runs=in_folder / "elsewhere") as folder:
        assert not (folder / "5_comparison").exists()
        assert weight_hashes(folder) == weight_hashes(run_copy.path)
        shutil.copytree(run_copy.comparison, folder / "5_comparison")
    assert client.read(address(stored) / "5_comparison/done.json") is not None


def test_commands_read_a_run_in_storage(
    stored: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(next(photos.rglob("*.png")))
    assert command(["predict", stored, photo]) == 0
    assert command(["evaluate", stored, str(photos / "test")]) == 0
    assert command(["open", stored, "--no-browser"]) == 0
    assert command(["report", stored]) == 0
    copied = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert "model.safetensors" in copied
    assert copied & set(LARGE) == {"pixels.bin"}
    capsys.readouterr()
    assert library.load(stored).predict(photo).label


def test_an_exported_file_in_storage(stored: str, photos: Path) -> None:
    assert command(["export", stored, "--to", "onnx", "--precision", "float32", "--min-agreement", "0"]) == 0
    names = {item.name for item in client.listed(address(stored)) if item.name.startswith("6_export/")}
    onnx = next(name for name in names if name.endswith(".onnx"))
    photo = str(next(photos.rglob("*.png")))
    assert command(["predict", f"{stored}/{onnx}", photo]) == 0
    alone = f"{stored.rpartition('/')[0]}/alone"
    for name in names:
        data = client.read(address(stored) / name)
        assert data is not None
        client.write(address(alone) / name.removeprefix("6_export/"), data)
    assert command(["predict", f"{alone}/{onnx.removeprefix('6_export/')}", photo]) == 0


@pytest.mark.parametrize("what", ["another", "shorter", "missing"])
def test_a_damaged_file_in_storage_is_refused_by_its_name(what: str, stored: str, in_folder: Path) -> None:
    at = address(stored) / "2_teacher/model.safetensors"
    data = client.read(at)
    assert data is not None
    if what == "missing":
        client.delete(at)
    else:
        client.write(at, data[:-1] if what == "shorter" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamageError, match=r"tiny/2_teacher/model\.safetensors is damaged"):
        local_run(stored)
    assert not list((in_folder / "cache").rglob("2_teacher/done.json"))


def test_a_done_json_that_names_files_elsewhere(stored: str, tmp_path: Path) -> None:
    values = {"inputs": {}, "files": {"../../../evil": [1, "0" * 64]}}
    client.write(address(stored) / "2_teacher/done.json", json.dumps(values).encode())
    with pytest.raises(DamageError, match="names a file that would not be in it"):
        local_run(stored)
    assert not list(tmp_path.rglob("evil"))


def test_a_stage_that_is_made_again_replaces_the_one_in_storage(stored: str, run_copy: Run, in_folder: Path) -> None:
    with worked_on(stored, print, runs=in_folder / "elsewhere") as folder:
        report = Run(folder).stage("7_report")
        report.reopen()
        report.begin({"comparison": "another"})
        (report.path / "index.html").write_text("another report")
        report.finish()
    assert client.read(address(stored) / "7_report/index.html") == b"another report"
    assert (local_run(stored) / "7_report" / "index.html").read_text() == "another report"
    # The machine that made the first one takes the new one, and not the other way round.
    shutil.move(run_copy.path, in_folder / "tiny")
    with worked_on(stored, print, runs=in_folder) as folder:
        assert (folder / "7_report" / "index.html").read_text() == "another report"


def test_what_was_made_on_two_machines_is_not_mixed(stored: str, run_copy: Run, in_folder: Path) -> None:
    for number, place in enumerate((run_copy.path, in_folder / "other")):
        if number:
            shutil.copytree(run_copy.path, place)
        report = Run(place).stage("7_report")
        report.reopen()
        report.begin({"comparison": f"of {number}"})
        report.finish()
    RemoteRun(address(stored), in_folder / "other").push()
    shutil.move(run_copy.path, in_folder / "tiny")
    with (
        pytest.raises(StorageError, match=r"7_report was made both in .* and they differ"),
        worked_on(stored, print, runs=in_folder),
    ):
        pass
    assert client.read(address(stored) / lock.NAME) is None


def test_another_run_under_the_same_name(stored: str, run_copy: Run, in_folder: Path) -> None:
    values = json.loads((run_copy.path / "run.json").read_text())
    del values["checksum"]
    shutil.copytree(run_copy.path, in_folder / "tiny")
    write_json(in_folder / "tiny" / "run.json", {**values, "id": "another"})
    with pytest.raises(StorageError, match="is another run than"), worked_on(stored, print, runs=in_folder):
        pass


def test_two_commands_do_not_work_on_one_run(stored: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = json.dumps({"id": "x", "host": "node-7", "process": 12}).encode()
    client.write(address(stored) / lock.NAME, holder)
    with (
        pytest.raises(StorageError, match=r"being worked on by node-7 \(process 12\)"),
        worked_on(stored, print, runs=in_folder),
    ):
        pass
    assert client.read(address(stored) / lock.NAME) == holder
    told: list[str] = []
    monkeypatch.setattr(lock, "STALE", -10.0)
    with worked_on(stored, told.append, runs=in_folder) as folder:
        assert folder.is_dir()
    assert "was locked by node-7 (process 12), which is gone" in said(told)


def test_a_command_whose_lock_was_taken_writes_nothing_more(stored: str, in_folder: Path) -> None:
    def work() -> None:
        with worked_on(stored, print, runs=in_folder) as folder:
            client.write(address(stored) / lock.NAME, json.dumps({"id": "x", "host": "node-7", "process": 1}).encode())
            (folder / "log.txt").write_text("of the slow one")

    with pytest.raises(StorageError, match=r"was taken over by node-7"):
        work()
    assert client.read(address(stored) / "log.txt") != b"of the slow one"
    assert client.read(address(stored) / lock.NAME) is not None


def test_finished_folders_are_sent_while_work_goes_on(
    stored: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(runs, "INTERVAL", 0.05)
    with worked_on(stored, print, runs=in_folder) as folder:
        part = folder / "4_students" / "another" / "seed-0" / "alone"
        part.mkdir(parents=True)
        write_json(part / "done.json", {"inputs": {}, "files": {}})
        until = time.monotonic() + 20
        while client.read(address(stored) / "4_students/another/seed-0/alone/done.json") is None:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.parametrize(
    "words",
    [["status"], ["suggest"], ["controls"], ["forecast"], ["doctor"], ["update"]],
    ids=lambda words: words[0],
)
def test_commands_that_need_a_folder_here_say_so(
    words: list[str], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["photos"] if words == ["update"] else []
    assert command([*words, f"{bucket}/runs/tiny", *more]) == 2
    assert f"needs a folder on this machine, but {bucket}/runs/tiny is in storage" in capsys.readouterr().err


def test_no_run_there(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["predict", f"{bucket}/runs/none", "x.jpg"]) == 2
    assert "is neither a run (it has no run.json), nor a model" in capsys.readouterr().err
