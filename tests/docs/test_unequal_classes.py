"""Every command of docs/how-to/unequal-classes.md runs, on drawn photos and a finished run of them."""

import re
import shlex
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, console_lines
from tests.support import TINY, draw_photo, flags

import potstill
from potstill.cli import run as run_command
from potstill.run.folder import Run
from potstill.run.results import read_comparison

PAGE = ROOT / "docs" / "how-to" / "unequal-classes.md"


def commands() -> list[str]:
    lines = [piece.text for piece in console_lines() if piece.page == PAGE]
    return [line.removeprefix("potstill ") for line in lines]


def test_every_command_runs_on_the_same_run_in_the_order_of_the_page(
    photos: Path, run_copy: Run, tiny_run: "potstill.Result", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_photo("disc", 3).save(tmp_path / "photo.jpg")
    stands_for = {
        "my-photos": photos,
        "RUN": run_copy.path,
        "OTHER": tiny_run.path,
        "photo.jpg": tmp_path / "photo.jpg",
    }
    done = []
    for line in commands():
        # Four val photos of a class can place a threshold for 0.6, and none for 0.9.
        drawn = re.sub(r"recall:defective=0\.\d+", "recall:disc=0.6", line)
        words = [str(stands_for.get(word, word)) for word in shlex.split(drawn)]
        if words[0] == "distill":
            words += flags(TINY)
            words += [] if "--run" in words else ["--run", str(tmp_path / "new"), "--dry-run"]
        assert run_command(words) == 0, line
        done.append((words[0], capsys.readouterr().out))
    assert [name for name, _ in done] == ["distill", "predict", "distill", "distill", "compare"]
    assert read_comparison(run_copy.comparison / "comparison.json").operating_point is not None
    assert "finds disc" in done[2][1]
    assert "macro F1" in done[4][1]
