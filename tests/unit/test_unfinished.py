"""Files of a stage that is not finished: what was damaged meanwhile is made again, and nothing is left behind."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from potstill.data.arrays import RowWriter
from potstill.run import files
from potstill.run.files import is_sealed, remove_sealed, replacing, seal, write_text
from potstill.run.folder import Run


def test_a_sealed_file_is_known_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "features.npy"
    writer = RowWriter(path, (3, 2), np.float16)
    writer.write(np.ones((3, 2)))
    assert not is_sealed(path)
    writer.close()
    assert is_sealed(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert not is_sealed(path)
    remove_sealed(path)
    assert list(tmp_path.iterdir()) == []
    remove_sealed(path)


@pytest.mark.parametrize("text", [b"", b"\xff", b"0" * 64])
def test_a_damaged_seal_counts_as_none(text: bytes, tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    seal(tmp_path / "a")
    (tmp_path / "a.seal").write_bytes(text)
    assert not is_sealed(tmp_path / "a")


def test_a_finished_stage_has_no_seals_and_no_parts_but_hashes(tmp_path: Path) -> None:
    stage = Run(tmp_path).stage("2_teacher")
    (stage.path / "1_model").mkdir(parents=True)
    (stage.path / "1_model/.x.npy.abc.part").write_bytes(b"half")
    stage.begin({"a": 1})
    write_text(stage.path / "1_model/x.npy", "x")
    seal(stage.path / "1_model/x.npy")
    stage.finish()
    assert list(stage.facts()["files"]) == ["1_model/x.npy"]
    assert sorted(path.name for path in stage.path.rglob("*") if path.is_file()) == ["done.json", "x.npy"]


def test_a_new_command_removes_what_a_killed_one_had_begun(tmp_path: Path) -> None:
    for name in (".progress.json.a.part", "4_students/x/.precision.json.b.part", "6_export/x/.student.onnx.c.part"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    Run(tmp_path).create("potstill distill x", "")
    assert [path.name for path in tmp_path.rglob("*.part")] == [".student.onnx.c.part"], "an export may be at work"


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, fsync, rename = list[str](), os.fsync, os.replace

    def syncing(handle: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().suffix or 'folder'}")
        fsync(handle)

    def renaming(source: Path, target: Path) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "replace", renaming)
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert done == ["sync .part", "rename", "sync folder"]


def test_folders_that_cannot_be_synced_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(number: int) -> None:
        def fsync(handle: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", fsync)

    failing(errno.EINVAL)  # as some network disks answer
    files.sync_folder(tmp_path)
    failing(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        files.sync_folder(tmp_path)
