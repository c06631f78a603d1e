"""Every command of docs/how-to/several-labels.md runs, on drawn photos and a finished run of them."""

import shlex
import shutil
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, console_lines
from tests.support import CLASSES, SEVERAL, draw_pair, flags, make_pairs

import potstill
from potstill.cli import run as run_command

PAGE = ROOT / "docs" / "how-to" / "several-labels.md"


def test_every_command_runs_in_the_order_of_the_page(
    labels_run: "potstill.Result", pairs: Path, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(labels_run.path, in_folder / "run")
    (in_folder / "new-photos").mkdir()
    shutil.copy(pairs / "1.png", in_folder / "new-photos")
    shutil.copy(pairs / "2.png", in_folder / "photo.jpg")
    make_pairs(in_folder / "other-camera", {"": 1})
    for path in (in_folder / "other-camera").glob("*.png"):
        draw_pair(CLASSES[:2], 700 + int(path.stem)).save(path)
    shutil.copytree(in_folder / "other-camera", in_folder / "unlabeled-photos")
    (in_folder / "unlabeled-photos" / "labels.csv").unlink()
    stands_for = {"photos": str(pairs), "labels.csv": str(pairs / "labels.csv"), "RUN": "run"}
    said = []
    for line in (piece.text for piece in console_lines() if piece.page == PAGE):
        words = [stands_for.get(word, word) for word in shlex.split(line)[1:]]
        words += ["--images.without-label", "none"] if words[0] == "count" else []
        if words[0] == "distill":  # the finished run goes on, and has nothing left to do
            words += flags({name: value for name, value in SEVERAL.items() if name != "images.labels_per_photo"})
            words += [] if "--dry-run" in words else ["--run", "run"]
        if words[0] == "open":
            words += ["--no-browser"]
        if words[0] in ("export", "serve", "suggest", "label") or "student.onnx" in words:
            continue  # tests/behavior/test_several_labels.py and tests/browser/test_label_pages.py run them
        assert run_command(words) == 0, line
        said.append((words[0], capsys.readouterr().out))
    assert [name for name, _ in said] == [
        *("count", "distill", "distill", "open", "predict", "predict", "evaluate", "evaluate"),
    ]
    assert "Several labels per photo" in said[0][1]
    assert "mAP" in said[2][1]
    assert (in_folder / "predictions.csv").read_text().startswith("photo,labels,error,p_disc")
