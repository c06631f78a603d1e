"""The commands of docs/how-to/large-collections.md run, on small shards and parquet files."""

import json
import shlex
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, console_lines
from tests.support import CLASSES, TINY, flags, make_photos
from tests.unit.test_containers import write_parquet, write_tar

from potstill.cli import run as command

PAGE = ROOT / "docs" / "how-to" / "large-collections.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the page names."""
    photos = make_photos(tmp_path / "photos", {"": 6}, suffix="jpg")
    paths = sorted(photos.rglob("*.jpg"))
    numbers = [CLASSES.index(path.parent.name) for path in paths]
    for shard in range(2):
        members = {}
        for key in range(shard, len(paths), 2):
            members |= {f"{key}.jpg": paths[key].read_bytes(), f"{key}.cls": str(numbers[key]).encode()}
        write_tar(tmp_path / "shards" / f"train-{shard:06d}.tar", members)
    (tmp_path / "shards" / "classes.txt").write_text("\n".join(CLASSES))
    columns = {"image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths], "label": numbers}
    write_parquet(tmp_path / "food" / "data" / "train-00000-of-00001.parquet", columns)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [piece.text.removeprefix("potstill ") for piece in console_lines() if piece.page == PAGE]
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)
        words += flags(TINY) if words[0] == "distill" else []
        assert command(words) == 0, line
        said = capsys.readouterr().out
        assert "with 18 photos, read where they lie" in said.replace("\n", " "), line
    assert command(["count", "shards", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == {"train": dict.fromkeys(sorted(CLASSES), 6)}
