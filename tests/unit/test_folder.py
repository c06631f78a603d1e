"""Reading the layout of a photo folder: from names only; every mistake is reported at once, with a fix."""

import os
import re
from pathlib import Path

import pytest
from tests.support import make_photos

from potstill.errors import DataError
from potstill.images.folder import check_class_name, make_folders, read_folder


def tree(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_split_layout_is_sorted_and_labeled_by_class_name(tmp_path: Path) -> None:
    files = [
        "train/dog/b.jpg",
        "train/dog/a.JPG",
        "train/cat/x",
        "test/cat/1.png",
        "test/dog/2.png",
        "unlabeled/z/q.gif",
    ]
    folder = read_folder(tree(tmp_path, *files, "train/.hidden/x.jpg", "train/cat/.DS_Store"))
    assert folder.classes == ("cat", "dog")
    assert not folder.flat
    listed = [(f.path.relative_to(tmp_path).as_posix(), f.split, f.label) for f in folder.files]
    assert listed == [
        ("train/cat/x", "train", 0),
        ("train/dog/a.JPG", "train", 1),
        ("train/dog/b.jpg", "train", 1),
        ("test/cat/1.png", "test", 0),
        ("test/dog/2.png", "test", 1),
        ("unlabeled/z/q.gif", "unlabeled", -1),
    ]


def test_flat_layout_leaves_the_split_open(tmp_path: Path) -> None:
    folder = read_folder(tree(tmp_path, "cat/1.jpg", "dog/2.jpg", "dog/deeper/3.jpg", "readme.txt"))
    assert folder.flat
    assert [f.split for f in folder.files] == [None, None, None]


def test_classes_can_be_picked(tmp_path: Path) -> None:
    folder = read_folder(tree(tmp_path, "a/1", "b/1", "c/1"), classes=("c", "a"))
    assert folder.classes == ("a", "c")
    assert [f.label for f in folder.files] == [0, 1]


@pytest.mark.parametrize(
    ("files", "classes", "message"),
    [
        (["train/cat/1"], (), "has only one class"),
        (["notes.txt"], (), "has no class folders with photos; a classifier"),
        (
            ["train/cat/1", "train/dog/1", "test/dgo/1"],
            (),
            "'dgo'.*train does not, so no model can learn it.*Did you mean 'dog'",
        ),
        (["test/cat/1", "test/dog/1"], (), "no train folder"),
        (["cat/1", "dog/1"], ("cat", "dgo"), "no class 'dgo'.*It has: cat, dog.*Did you mean 'dog'"),
        (["cat/1", "a:b/1"], (), "'a:b' contains ':'"),
        (["cat/1", "-v/1"], (), "begins with '-'"),
        (["cat/1", "dog./1"], (), "ends with a space or a dot"),
        (["cat/1", "Cat/1"], (), "same folder on some systems"),
        (["cat/1", "NUL/1"], (), "reserved name"),
    ],
)
def test_messages_say_what_is_wrong_and_how_to_fix_it(
    tmp_path: Path, files: list[str], classes: tuple, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_folder(tree(tmp_path / "data", *files), classes=classes)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "train/cat/1", "train/dog/1")
    (tmp_path / "train/owl").mkdir()
    with pytest.raises(DataError, match=r"train/owl is empty"):
        read_folder(tmp_path)


def test_no_such_folder_names_the_nearest_and_the_next_command(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(DataError, match=r"Did you mean .*flowers\?") as caught:
        read_folder(tmp_path / "flwers")
    assert "potstill init" in str(caught.value)
    with pytest.raises(DataError, match="is a file, not a folder"):
        read_folder(tree(tmp_path, "file") / "file")


def test_a_file_name_that_is_not_utf8_is_just_a_file(tmp_path: Path, packer) -> None:
    """Such names exist on Linux disks; neither listing nor packing nor the tables may fall over them."""
    data = make_photos(tmp_path / "data", {"train": 2, "val": 1, "test": 1})
    photo = next((data / "train/disc").iterdir())
    os.rename(os.fsencode(photo), os.fsencode(photo.parent) + b"/caf\xe9 \xff.png")  # noqa: PTH104  bytes are the point
    store = packer(data, tmp_path / "run", size=32)
    assert len(store) == 12
    assert "caf" in (tmp_path / "run/1_images/images.csv").read_text("utf-8")


@pytest.mark.parametrize("name", ["cat", "two words", "Überraschung", "猫", "a.b", "C3PO", "no. 5", "it's"])
def test_ordinary_names_in_any_language_are_taken(name: str) -> None:
    check_class_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a\nb",
        "a\u2028b",
        "a\x85b",
        " a",
        "a.",
        "con",
        "e\u0301",
        "x" * 101,
        "val",
        "a\udce9",
    ],
)
def test_names_that_break_somewhere_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="class name"):
        check_class_name(name)


def test_make_folders(tmp_path: Path) -> None:
    made = make_folders(tmp_path, ["dog", "cat"])
    assert sorted(p.relative_to(tmp_path).as_posix() for p in made) == [
        "test/cat",
        "test/dog",
        "train/cat",
        "train/dog",
    ]
    assert all(path.is_dir() for path in made)
    with pytest.raises(DataError, match="at least 2"):
        make_folders(tmp_path, ["dog"])
