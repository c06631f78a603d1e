"""The commands of docs/how-to/storage.md run, against a store on loopback."""

import shlex
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, console_lines
from tests.storage.test_photos import put
from tests.support import TINY, flags

from potstill.cli import run as command

PAGE = ROOT / "docs" / "how-to" / "storage.md"


def test_every_command_runs(bucket: str, photos: Path, in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(photos, f"{bucket}/photos")
    (in_folder / "photo.jpg").write_bytes(next(photos.rglob("*.png")).read_bytes())
    lines = [piece.text.replace("s3://bucket", bucket) for piece in console_lines() if piece.page == PAGE]
    assert [line.split()[0] for line in lines] == ["pip", *["potstill"] * 3]
    for line in lines[1:]:
        words = shlex.split(line)[1:]
        words += flags({**TINY, "seeds": 1}) if words[0] == "distill" else []
        assert command(words) == 0, line
    printed = capsys.readouterr()
    assert f"Copied from {bucket}/photos" in printed.out.replace("\n", " ")
    assert "photo.jpg" in printed.out
