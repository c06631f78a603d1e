"""True labels by name: what a table may say, and which photo a name stands for."""

from pathlib import Path

import numpy as np
import pytest

from potstill.controls.labels import read_labels, true_labels
from potstill.data.pixels import PixelStore
from potstill.data.splits import SPLITS
from potstill.errors import DataError
from potstill.run.folder import Run

CLASSES = ["cat", "dog"]


def table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, "utf-8")
    return folder / "labels.csv"


@pytest.mark.parametrize("column", ["path", "file"])
def test_a_table_names_classes_by_path_or_file(tmp_path: Path, column: str) -> None:
    found = read_labels(table(tmp_path, f"{column},class\nunlabeled/a.jpg,dog\nb.jpg,cat\n"), CLASSES)
    assert found == {"unlabeled/a.jpg": 1, "b.jpg": 0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,class\na.jpg,cat\n", r"line 2: the columns path \(or file\) and class are required"),
        ("path,class\na.jpg,\n", "line 2: the columns"),
        ("path,class\na.jpg,cat\nb.jpg,cow\n", "line 3: the run has no class 'cow'. It has: cat, dog"),
        ("path,class\na.jpg,cat\na.jpg,dog\n", "line 3: a.jpg has two classes"),
        ("path,class\n", "names no photo"),
    ],
)
def test_a_table_that_says_too_little_or_two_things_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_labels(table(tmp_path, text), CLASSES)


def test_a_table_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        read_labels(tmp_path / "labels.csv", CLASSES)
    (tmp_path / "labels.csv").write_bytes(b"path,class\n\xff,cat\n")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_labels(tmp_path / "labels.csv", CLASSES)


def test_names_stand_for_photos_without_labels_and_a_given_class_wins(store: PixelStore, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.images.mkdir()
    paths = ["train/cat/1.jpg", "unlabeled/a.jpg", "unlabeled/b.jpg", "unlabeled/x/c.jpg", "unlabeled/y/c.jpg"]
    (run.images / "images.csv").write_text("path\n" + "\n".join(paths) + "\n", "utf-8")
    few = store.relabeled(store.labels(np.arange(len(store))))
    few.index = few.index[: len(paths)]
    few.index["split"] = [SPLITS.index("train"), *4 * [SPLITS.index("unlabeled")]]
    few.index["label"] = [0, -1, -1, -1, -1]
    hidden = {"unlabeled/a.jpg": 0, "unlabeled/b.jpg": 0, "train/cat/1.jpg": 0}
    some = true_labels(run, few, hidden, {"a.jpg": 1, "c.jpg": 1, "train/cat/1.jpg": 1})
    assert some.labels.tolist() == [0, 1, 0, -1, -1], "a training label is not changed, and c.jpg is two photos"
    assert some.missing == "the true class of 2 of 4 photos is not known, such as that of unlabeled/x/c.jpg"
    assert some.unused == ["c.jpg"]
    every = true_labels(run, few, hidden, {"unlabeled/x/c.jpg": 1, "unlabeled/y/c.jpg": 0})
    assert every.labels.tolist() == [0, 0, 0, 1, 0]
    assert (every.missing, every.unused) == ("", [])
