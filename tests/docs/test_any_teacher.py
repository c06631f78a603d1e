"""Every command of docs/how-to/any-teacher.md runs, on drawn photos, and one of them to the end."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.docs.pages import ROOT, console_lines
from tests.support import CLASSES, TINY, flags
from tests.unit.test_teacher_files import write_onnx

from potstill.cli import run as run_command
from potstill.run.files import sha256_of
from potstill.run.folder import Run
from potstill.run.layout import comparison_path
from potstill.run.results import read_comparison

PAGE = ROOT / "docs" / "how-to" / "any-teacher.md"

FEW: dict[str, Any] = {
    **{name: value for name, value in TINY.items() if not name.startswith("teacher")},
    "seeds": 1,
    "student.epochs": 1,
    "teacher.min_gain": 0.0,
}


def soft_label(path: str) -> list[float]:
    return [0.8 if name == path.split("/")[1] else 0.1 for name in CLASSES]


@pytest.fixture
def folder(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the page names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    names = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    write_onnx(tmp_path / "teacher.onnx", shape=("N", 3, 16, 16))
    write_onnx(tmp_path / "imagenet.onnx", shape=("N", 16, 16, 3), outputs=1000, softmax=True)
    (tmp_path / "map.csv").write_text("theirs,mine\n7,disc\n999,disc\n3,frame\n0,stripes\n")
    (tmp_path / "map.json").write_text('{"0": "disc", "1": "frame", "2": "stripes"}')
    lines = [",".join([name, *map(str, soft_label(name))]) for name in names]
    (tmp_path / "labels.csv").write_text("\n".join([",".join(["path", *CLASSES]), *lines]) + "\n")
    np.save(tmp_path / "outputs.npy", np.array([[*soft_label(name), 0.0] for name in names], np.float32))
    return tmp_path


def test_every_command_runs_in_the_order_of_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = []
    for line in [piece.text for piece in console_lines() if piece.page == PAGE]:
        words = shlex.split(line.removeprefix("potstill "))
        run = Path("runs", str(len(done)))
        if words[0] != "count":
            words += [*flags(FEW), *([] if "--dry-run" in words else ["--run", str(run)])]
        assert run_command(words) == 0, line
        printed = capsys.readouterr()
        if "--list" in words:
            Path("paths.txt").write_text(printed.out)
        done.append((words[0], run, printed.out + printed.err))
    assert [name for name, _, _ in done] == [*["distill"] * 4, "count", "label", "label", "distill"]

    _, run, text = done[1]
    comparison = read_comparison(comparison_path(Run(run)))
    assert comparison.teacher.models == ("onnx:teacher.onnx",)
    assert comparison.teacher.method == ("onnx",)
    assert (comparison.teacher.parameters, comparison.teacher.macs) == (9, 9)
    assert "of ImageNet" in text
    page = (run / "7_report" / "index.html").read_text("utf-8")
    assert sha256_of(folder / "teacher.onnx") in page
    assert str(folder) not in page
    assert "4 of its 1,000 classes" in done[3][2] or "onnx:imagenet.onnx at 16 px" in done[3][2]

    _, run, text = done[5]
    assert not (run / "4_students").exists()
    following = next(line for line in text.splitlines() if line.strip().startswith("potstill distill"))
    assert run_command([*shlex.split(following)[1:], *flags({"machine.device": "cpu", "machine.jobs": 1})]) == 0
    comparison = read_comparison(comparison_path(Run(run)))
    assert (comparison.teacher.accuracy.value, comparison.teacher.bytes, comparison.teacher.sizes) == (1.0, 0, ())
    page = (run / "7_report" / "index.html").read_text("utf-8")
    assert sha256_of(folder / "labels.csv") in page
    assert "every augmented view of a photo was trained on with the photo's one soft label" in page
    assert str(folder) not in page
