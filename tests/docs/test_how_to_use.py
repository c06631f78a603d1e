"""The commands of the pages about using a student are run as they stand there, on small photos."""

import io
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.docs.pages import Piece, console_lines
from tests.support import CLASSES, draw_photo

import potstill
from potstill.cli import run as command

PAGES = ("classify-photos.md", "evaluate.md")


def lines(page: str) -> list[Piece]:
    of_page = [line for line in console_lines() if line.page.name == page]
    return [line for line in of_page if "potstill predict" in line.text or "potstill evaluate" in line.text]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the pages name."""
    monkeypatch.chdir(tmp_path)
    rows = ["path,kind"]
    for number, name in enumerate(CLASSES, 700):
        for place in (f"new-photos/{name}", "unlabeled-photos", "inbox"):
            Path(place).mkdir(parents=True, exist_ok=True)
            draw_photo(name, number).save(Path(place, f"{name}.jpg"), quality=95)
            draw_photo(name, number + 50).save(Path(place, f"{name}-2.png"))
        rows.append(f"unlabeled-photos/{name}.jpg,{name}")
    draw_photo("disc", 800).save("photo.jpg")
    Path("labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize("line", [line for page in PAGES for line in lines(page)], ids=str)
def test_the_command_works(
    line: Piece,
    folder: Path,
    tiny_run: "potstill.Result",
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *before, words = [shlex.split(part) for part in line.text.split(" | ")]
    if "clip.mp4" in words:
        if find_spec("av") is None:
            pytest.skip("PyAV is not installed")
        from tests.unit.test_classify_many import film

        film(folder / "clip.mp4", 2)
    if "student.onnx" in words:
        pytest.skip("needs an export, see tests/export/test_predict_without_torch.py")
    for program in before:
        given = subprocess.run(program, capture_output=True, check=True).stdout
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert command([str(tiny_run.path) if word == "RUN" else word for word in words[1:]]) == 0
    out, err = capfd.readouterr()
    if "--into" in words:
        assert Path(words[words.index("--into") + 1]).stat().st_size > 100
    else:
        assert out.strip()
    if "--sort-into" in words:
        assert len(list(Path("sorted").rglob("*.*"))) == 6
        assert bool(list(Path("inbox").iterdir())) == ("--move" not in words)
    if "evaluate" in words:
        assert "Traceback" not in err
        assert "threshold" in out or "Unsure about" in out or '"unsure"' in out


def test_most_commands_of_the_pages_are_run() -> None:
    assert len([line for page in PAGES for line in lines(page)]) >= 12
