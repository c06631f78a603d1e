"""Tables that give a photo several labels: which are understood, and what is refused, by row and file."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import context_of, draw_pair

from potstill.check.count import count
from potstill.check.run import apply, check
from potstill.config.schema import ImagesConfig
from potstill.data.table_file import read_table
from potstill.errors import ConfigError, DataError
from potstill.images.folder import Folder
from potstill.images.label_cells import LabelCells
from potstill.images.plan import ImagesPlan
from potstill.images.selection import read_for_training
from potstill.images.source import open_photos
from potstill.images.stage import collect_images
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run

SEVERAL = {"labels_per_photo": "several"}
FOUR = [("cat",), ("cat", "dog"), ("bird",), ("bird", "dog")]
JSON_LINES = "".join(json.dumps({"file_name": f"{i}.png", "labels": names}) + "\n" for i, names in enumerate(FOUR))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos, 0.png to 3.png."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        draw_pair(["disc"], number).save(folder / f"{number}.png")
    return folder


def opened(photos: Path, text: str, *, name: str = "labels.csv", **settings: Any) -> Folder:
    (photos / name).write_text(text, "utf-8")
    return open_photos(photos, ImagesConfig(**settings))


def labels(folder: Folder) -> dict[str, tuple[str, ...]]:
    return {file.path.name: tuple(folder.classes[label] for label in file.labels) for file in folder.files}


@pytest.mark.parametrize(
    ("name", "text", "settings"),
    [
        ("labels.csv", "path,labels\n0.png,cat\n1.png,cat;dog\n2.png,bird\n3.png,dog; bird\n", SEVERAL),
        ("labels.csv", "\ufeffpath;labels\n0.png;cat\n1.png;dog|cat\n2.png;bird\n3.png;bird|dog\n", SEVERAL),
        ("labels.tsv", "path\tlabels\n0.png\tcat\n1.png\tcat;dog\n2.png\tbird\n3.png\tdog;bird\n", SEVERAL),
        (
            "labels.csv",
            'path,labels\n0.png,"[""cat""]"\n1.png,"[""cat"", ""dog""]"\n2.png,"[""bird""]"\n'
            '3.png,"[""bird"",""dog""]"\n',
            {},
        ),
        ("labels.csv", "path,label\n0.png,cat\n1.png,cat\n1.png,dog\n2.png,bird\n3.png,dog\n3.png,bird\n", SEVERAL),
        ("metadata.jsonl", JSON_LINES, {}),
        ("_classes.csv", "filename, bird, cat, dog\n0.png, 0, 1, 0\n1.png,0,1,1\n2.png,1,0,0\n3.png,1,0,1\n", {}),
        ("labels.csv", "image,bird,cat,dog\n0.png,0.0,1.0,0\n1.png,0,1,1\n2.png,1,0,0\n3.png,1,0,1\n", SEVERAL),
    ],
    ids=["semicolon", "bar and byte-order mark", "tabs", "JSON list", "several rows", "lists", "Roboflow", "0 and 1"],
)  # fmt: skip
def test_tables_that_say_the_same(photos: Path, name: str, text: str, settings: dict[str, Any]) -> None:
    folder = opened(photos, text, name=name, **settings)
    assert folder.several_labels
    assert folder.classes == ("bird", "cat", "dog")
    assert labels(folder) == {f"{i}.png": tuple(sorted(names)) for i, names in enumerate(FOUR)}
    assert any("Several labels per photo" in note for note in folder.notes)


def test_lists_in_parquet(photos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"path": [f"{i}.png" for i in range(4)], "labels": [list(names) for names in FOUR]})
    parquet.write_table(table, photos / "labels.parquet")
    folder = open_photos(photos, ImagesConfig())
    assert labels(folder) == {f"{i}.png": tuple(sorted(names)) for i, names in enumerate(FOUR)}


def test_an_export_of_roboflow_with_a_table_beside_each_split(tmp_path: Path) -> None:
    rows = {"train": "a.png,1,0\nb.png,1,1\n", "valid": "c.png,0,1\n", "test": "d.png,1,1\n"}
    for split, text in rows.items():
        (tmp_path / split).mkdir()
        (tmp_path / split / "_classes.csv").write_text("filename, cat, dog\n" + text)
        for line in text.splitlines():
            (tmp_path / split / line[:5]).touch()
    folder = open_photos(tmp_path, ImagesConfig())
    found = {(file.path.name, file.split, file.labels) for file in folder.files}
    assert found == {
        ("a.png", "train", (0,)), ("b.png", "train", (0, 1)), ("c.png", "val", (1,)), ("d.png", "test", (0, 1))
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0.png,cat;;dog\n", "row 2: one of the labels in 'cat;;dog' is empty"),
        ("0.png,cat;cat\n", "row 2: the label 'cat' is there twice"),
        ('0.png,"cat, dog"\n', "row 2: the label 'cat, dog' has a comma in it. Write ; or |"),
        ("0.png,cat;dog\n1.png,\n", r"row 3: the photo has no label. --images.without-label none"),
        ("0.png,cat;dog\n0.png,cat;bird\n", r"row 3: 0.png has the labels 'cat\|dog' and the labels 'bird"),
        ('0.png,"[""cat"", 1"\n', "begins like a JSON list and is none"),
        ("0.png,cat:x;dog\n", "row 2: The class name 'cat:x' contains ':'"),
    ],
)  # fmt: skip
def test_rows_that_are_wrong(photos: Path, rows: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        opened(photos, "path,labels\n" + rows, **SEVERAL)
    assert f"{photos / 'labels.csv'}, row" in str(refused.value)


def test_rows_of_one_photo_have_one_split_and_may_repeat_each_other(photos: Path) -> None:
    text = "path,label,split\n0.png,cat,train\n0.png,dog,train\n1.png,cat,test\n1.png,dog,test\n2.png,dog,train\n"
    folder = opened(photos, text + "0.png,cat,train\n", **SEVERAL)
    assert any("1 row repeats another one" in note for note in folder.notes)
    with pytest.raises(DataError, match=r"row 7: 0.png has .* the split 'train' and the split 'test'"):
        opened(photos, text + "0.png,cat,test\n", **SEVERAL)


def test_a_table_of_classes_has_two_of_them(photos: Path) -> None:
    for text, number in (("filename,cat\n0.png,1\n", "1 class"), ("filename\n0.png\n", "0 classes")):
        with pytest.raises(DataError, match=f"_classes.csv has {number}; a classifier needs at least 2"):
            opened(photos, text, name="_classes.csv")


def test_columns_of_classes_hold_0_and_1(photos: Path) -> None:
    with pytest.raises(DataError, match=r"_classes.csv, row 2: the column 'dog' holds '2' instead of 0 or 1"):
        opened(photos, "filename,cat,dog\n0.png,1,2\n1.png,0,1\n", name="_classes.csv")


def test_photos_that_have_one_label_each_need_the_setting_for_several(photos: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)has the class 'cat' and the class 'dog'.*labels-per-photo several"):
        opened(photos, "path,label\n0.png,cat\n0.png,dog\n1.png,dog\n")
    with pytest.raises(DataError, match=r"'cat\|dog' contains '\|'.*labels-per-photo several"):
        opened(photos, "path,label\n0.png,cat|dog\n1.png,dog\n")
    folder = opened(photos, "path,label\n0.png,cat;dog\n1.png,dog\n2.png,dog\n")
    assert folder.classes == ("cat;dog", "dog")
    assert any("'cat;dog' is taken for the name of one class" in note for note in folder.notes)


def test_a_photo_without_a_label_is_what_the_setting_says(photos: Path) -> None:
    text = "path,labels\n0.png,cat;dog\n1.png,\n2.png,cat\n3.png,dog\n"
    none = opened(photos, text, **SEVERAL, without_label="none")
    blank = next(file for file in none.files if file.path.name == "1.png")
    assert (blank.split, blank.label, blank.labels) == (None, 2, ())
    unlabeled = opened(photos, text, **SEVERAL, without_label="unlabeled")
    blank = next(file for file in unlabeled.files if file.path.name == "1.png")
    assert (blank.split, blank.label, blank.labels) == ("unlabeled", -1, ())


def test_classes_that_are_not_wanted_are_no_labels(photos: Path) -> None:
    text = "path,labels\n0.png,cat;dog\n1.png,bird\n2.png,cat\n3.png,dog;bird\n"
    with pytest.raises(DataError, match=r"row 3: no label of 1.png is in images.classes"):
        opened(photos, text, **SEVERAL, classes=("cat", "dog"))
    folder = opened(photos, text, **SEVERAL, classes=("cat", "dog"), without_label="none")
    assert labels(folder) == {"0.png": ("cat", "dog"), "1.png": (), "2.png": ("cat",), "3.png": ("dog",)}


def test_settings_that_need_a_table_or_one_label_are_refused(photos: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        draw_pair(["disc"], 1).save(tmp_path / "folders" / name / "1.png")
    with pytest.raises(ConfigError, match="Several labels per photo come from a table"):
        open_photos(tmp_path / "folders", ImagesConfig(**SEVERAL))
    with pytest.raises(ConfigError, match="without_label is for photos that may have several labels"):
        opened(photos, "path,label\n0.png,cat\n1.png,dog\n", without_label="none")
    opened(photos, "path,labels\n0.png,cat;dog\n1.png,dog\n2.png,cat\n", **SEVERAL)
    with pytest.raises(ConfigError, match="per_class counts photos that have one label each"):
        read_for_training(photos, ImagesConfig(**SEVERAL, per_class=1))
    with pytest.raises(DataError, match="--run finds likely wrong labels of photos with one label each"):
        check(photos, run=tmp_path, images=ImagesConfig(**SEVERAL), reporter=Reporter(quiet=True))


def test_check_finds_copies_with_other_labels_and_counts_each_class(photos: Path) -> None:
    text = "path,labels\n0.png,cat;dog\n1.png,dog\n2.png,cat\n3.png,\n"
    opened(photos, text, **SEVERAL, without_label="none")
    shutil.copy(photos / "0.png", photos / "2.png")
    (photos / "1.png").write_bytes(b"no photo")
    images = ImagesConfig(**SEVERAL, without_label="none")
    found = check(photos, images=images, reporter=Reporter(quiet=True))
    assert {(f.path, f.label, f.code) for f in found.to_move} == {
        ("0.png", "cat|dog", "two_classes"),
        ("2.png", "cat", "two_classes"),
        ("1.png", "dog", "not_image"),
    }
    assert found.share_lost == {"cat": 1, "dog": 1}
    with pytest.raises(DataError, match="More than 20% of a class"):
        apply(found)
    assert apply(found, yes=True) == 3
    assert sorted(path.name for path in photos.glob("*.png")) == ["3.png"]


def test_count_counts_a_photo_once_and_for_each_of_its_classes(photos: Path) -> None:
    opened(photos, "path,labels\n0.png,cat;dog\n1.png,dog\n2.png,cat\n3.png,\n", **SEVERAL, without_label="none")
    found = count(photos, ImagesConfig(**SEVERAL, without_label="none"))
    assert found.by_split == {"": {"(none of them)": 1, "cat": 2, "dog": 2}}
    assert found.total("") == 4


def test_packed_photos_keep_all_their_labels(tmp_path: Path) -> None:
    rows = [("disc",), ("disc", "frame"), ("frame",), (), ("frame", "disc")] * 4
    lines = ["path,labels"]
    for number, kinds in enumerate(rows):
        draw_pair(kinds, number).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'|'.join(kinds)}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    config = ImagesConfig(**SEVERAL, without_label="none", margin=1.0)
    plan = ImagesPlan(open_photos(tmp_path, config), config, 64)
    store = collect_images(plan, context_of(Run(tmp_path / "run")))
    assert store.several_labels
    by_path = {
        line.split(",")[1]: line.split(",")[3]
        for line in (tmp_path / "run/1_images/images.csv").read_text().splitlines()[1:]
    }
    assert by_path["1.png"] == "disc|frame"
    assert by_path["3.png"] == "(none of them)"
    every = np.arange(len(store))
    sums = store.labels(every).sum(0)
    assert sums.tolist() == [12, 12]
    assert np.array_equal(store.targets(every, 2), store.labels(every))
    for split in ("train", "val", "test"):  # each class is in each split, and so is a photo of none
        found = store.labels(store.rows(split))
        assert found.any(0).all()
        assert not found.any(1).all()


def test_unlabeled_photos_have_targets_that_are_not_known(photos: Path, tmp_path: Path) -> None:
    text = "path,labels,split\n0.png,cat;dog,train\n1.png,cat,val\n2.png,cat;dog,test\n3.png,,unlabeled\n"
    (photos / "labels.csv").write_text(text)
    config = ImagesConfig(**SEVERAL, margin=1.0, duplicate_bits=-1)
    table = read_table(photos / "labels.csv")
    assert LabelCells.of(table, ("labels",), config).several
    folder = open_photos(photos, config)
    assert {file.path.name: file.split for file in folder.files}["3.png"] == "unlabeled"
