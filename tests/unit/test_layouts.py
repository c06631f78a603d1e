"""Photo folders as people have them: understood, or refused with every way to read them; nothing ignored silently."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from tests.unit.test_folder import tree

from potstill.check.count import count
from potstill.cli import run as command
from potstill.config.schema import ImagesConfig
from potstill.errors import DataError
from potstill.images.file_names import by_name
from potstill.images.folder import Folder, read_folder
from potstill.images.ignored import is_other_file
from potstill.images.selection import read_for_training
from potstill.images.split_names import find_splits
from potstill.images.summary import folder_lines


def photos(root: Path, *folders: str, each: int = 3) -> Path:
    """`each` files in every folder; further files as they are named."""
    names = [f"{f}{n}.jpg" if f.endswith("/") else f for f in folders for n in range(each if f.endswith("/") else 1)]
    return tree(root / "data", *names)


def counts(folder: Folder) -> dict[str, int]:
    return dict(Counter(file.split or "" for file in folder.files))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train", "val", "test", "unlabeled"], ["train", "val", "test", "unlabeled"]),
        (["Training", "Validation", "Testing", "Unlabelled"], ["train", "val", "test", "unlabeled"]),
        (["TRAIN", "valid", "TEST", "unsup"], ["train", "val", "test", "unlabeled"]),
        (["trn", "dev", "tst", "pool"], ["train", "val", "test", "unlabeled"]),
        (["train", "eval", "hold-out"], ["train", "val", "test"]),
        (["train_images", "val_images", "test_images"], ["train", "val", "test"]),
        (["seg_train", "seg_test"], ["train", "test"]),
        (["flowers-train", "flowers-test"], ["train", "test"]),
        (["train2017", "val2017"], ["train", "val"]),
        (["TrainSet", "TestSet"], ["train", "test"]),
        (["01_training", "02_test"], ["train", "test"]),
    ],
)
def test_split_folders_have_many_names(names: list[str], splits: list[str], tmp_path: Path) -> None:
    assert list(find_splits(names).values()) == splits
    folders = [f"{name}/{label}/" for name in names for label in ("cat", "dog")]
    folder = read_folder(photos(tmp_path, *folders))
    assert folder.classes == ("cat", "dog")
    assert counts(folder) == dict.fromkeys(splits, 6)
    assert not folder.unused


@pytest.mark.parametrize(
    "names", [["pool", "kitchen"], ["dev", "ops"], ["toy_train", "fast_train"], ["contest", "cat"]]
)
def test_words_that_may_be_classes_are_no_splits_by_themselves(names: list[str], tmp_path: Path) -> None:
    assert find_splits(names) == {}
    assert read_folder(photos(tmp_path, *(f"{name}/" for name in names))).classes == tuple(sorted(names))


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (["data/train/cat/", "data/train/dog/", "data/test/cat/", "data/test/dog/"], ["cat", "dog"]),
        (["archive/set/train/cat/", "archive/set/train/dog/", "extras/"], ["cat", "dog"]),
        (
            ["seg_train/seg_train/0/", "seg_train/seg_train/1/", "seg_test/seg_test/0/", "seg_test/seg_test/1/"],
            ["0", "1"],
        ),
        (["train/images/cat/", "train/images/dog/", "test/images/cat/", "test/images/dog/"], ["cat", "dog"]),
        (["archive/cat/", "archive/dog/"], ["cat", "dog"]),
        (["cat/train/", "cat/test/", "dog/train/", "dog/test/"], ["cat", "dog"]),
        (["cat/cat/", "dog/dog/"], ["cat", "dog"]),
        (["cat/images/", "dog/images/"], ["cat", "dog"]),
        (["cat/", "dog/part1/", "dog/part2/"], ["cat", "dog"]),
        (
            ["animals/dog/", "animals/cat/", "vehicles/car/", "vehicles/bus/", "labels/x.txt"],
            ["bus", "car", "cat", "dog"],
        ),
        (
            ["train/animals/dog/", "train/animals/cat/", "train/things/cup/", "train/things/pen/"],
            ["cat", "cup", "dog", "pen"],
        ),
    ],
)
def test_folders_in_folders_are_understood(folders: list[str], classes: list[str], tmp_path: Path) -> None:
    folder = read_folder(photos(tmp_path, *folders))
    assert list(folder.classes) == classes


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train/a/", "train/b/", "valid/a/", "validation/b/"], "two folders for val: valid/ and validation/"),
        (["train/", "car/", "plane/"], "train/ with no class folders .* car, plane.*If train is a class: rename it"),
        (["p1/cat/", "p1/dog/", "p2/cat/", "p2/dog/"], "same names: cat, dog.*train, val and test.*top.*deepest"),
        (["p1/cat/", "p1/dog/", "p1/x.jpg", "p2/cat/", "p2/dog/", "p2/x.jpg"], "same names: cat, dog"),
        (["cat/images/", "cat/masks/", "dog/images/", "dog/masks/"], "same names: images, masks"),
        (["cat/2021/", "cat/2022/", "dog/2023/", "dog/2024/"], "two ways.*cat, dog.*top.*2021, 2022.*deepest"),
        (["animals/dog/", "vehicles/car/"], "two ways.*animals, vehicles.*dog, car"),
        (["animals/dog/", "animals/cat/", "labels/"], "two ways.*move them somewhere else"),
        (["one/train/a/", "one/train/b/", "two/train/a/", "two/train/b/"], "several folders with splits.*one, two"),
        (["train/cat/", "train/test/"], "'test' is the name of a split"),
        (["valid/", "invalid/"], "no train folder.*If valid is a class.*top"),
        (["cat/train/", "cat/x.jpg", "dog/train/"], "cat has 1 photo beside its split folders"),
        (["1.jpg", "2.jpg"], "2 photos, but no class folders"),
    ],
)
def test_what_can_be_read_in_several_ways_is_refused(folders: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_folder(photos(tmp_path, *folders))
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)


def test_the_setting_decides_what_was_refused(tmp_path: Path) -> None:
    root = photos(tmp_path, "p1/cat/", "p1/dog/", "p2/cat/", "p2/dog/")
    assert read_folder(root, classes_from="top").classes == ("p1", "p2")
    joined = read_folder(root, classes_from="deepest")
    assert joined.classes == ("cat", "dog")
    assert [sum(file.label == label for file in joined.files) for label in (0, 1)] == [6, 6]


def test_a_flat_folder_is_offered_classes_by_names(tmp_path: Path) -> None:
    names = [f"{kind}.{number}.jpg" for kind in ("cat", "Dog") for number in range(3)]
    root = photos(tmp_path, *names, "dog_9.jpg", "7.jpg")
    with pytest.raises(DataError, match=r"Dog \(4\), cat \(3\).*add --images.classes-from names"):
        read_folder(photos(tmp_path / "few", *names, "dog_9.jpg"))
    folder = read_folder(root, classes_from="names")
    assert folder.classes == ("Dog", "cat")
    assert len(folder.files) == 7
    assert [(group.name, group.why) for group in folder.unused] == [("7.jpg", "no class at the beginning of the name")]


def test_a_name_is_a_class_up_to_its_number() -> None:
    names = [
        "great_dane_12.jpg",
        "great_dane-13.JPG",
        "cat.1.jpg",
        "cat (3).png",
        "owl-asleep.jpg",
        "0012.jpg",
        "Cat2.jpg",
    ]
    assert {name: len(found) for name, found in by_name(map(Path, names)).items()} == {
        "great_dane": 2,
        "cat": 3,
        "owl": 1,
    }


def test_junk_is_passed_over_and_counted(tmp_path: Path) -> None:
    junk = ["Thumbs.db", "a/desktop.ini", "a/._1.jpg", "a/.DS_Store", "__MACOSX/a/._1.jpg", "a/@eaDir/1.jpg/THUMB.jpg"]
    junk += ["b/.ipynb_checkpoints/1.jpg", "#recycle/1.jpg", "b/1.json", "b/1.mp4", "notes.txt", "b/1.jpg.xmp"]
    folder = read_folder(photos(tmp_path, "a/", "b/", "b/no_extension", "b/odd.unknown", *junk))
    assert len(folder.files) == 8
    assert [(group.files, group.why) for group in folder.unused] == [(len(junk), "other files")]
    line = folder_lines(folder, ImagesConfig())[-1]
    assert "12 other files (" in line


@pytest.mark.parametrize(
    "name", ["a.txt", "a.JSON", ".hidden", "Thumbs.db", "a.csv", "a.npy", "a.pdf", "a.MOV", "a.zip", "a.jpg~"]
)
def test_other_files_by_name(name: str) -> None:
    assert is_other_file(name)
    assert not is_other_file(name.replace(".", "").replace("~", "") + ".jpg")


def test_what_is_not_used_is_named_with_the_reason(tmp_path: Path) -> None:
    root = photos(tmp_path, "train/a/", "train/b/", "train/c/", "test/", "car/", "labels/1.txt", "loose.jpg")
    folder = read_folder(root, classes=("a", "b", "b"))
    unused = {group.name: (group.files, group.why) for group in folder.unused}
    assert unused == {
        "car/, labels/": (4, "beside the split folders, and none itself"),
        "loose.jpg": (1, "in no class folder"),
        "test/": (3, "no class folders in it, so not used as test"),
        "train/c/": (3, "classes that are not among those to use"),
    }
    assert sum(files for files, _ in unused.values()) + len(folder.files) == sum(p.is_file() for p in root.rglob("*"))
    assert any("'b' was named twice" in note for note in folder.notes)


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    root = photos(tmp_path, "cat/", "dog/")
    other = tree(tmp_path / "other", "x1.jpg", "x2.jpg")
    (root / "cat/more").symlink_to(other)
    (root / "cat/up").symlink_to(root)
    (root / "dog/self").symlink_to("self")
    (root / "dog/gone.jpg").symlink_to("nowhere")
    folder = read_folder(root)
    assert sum(file.label == 0 for file in folder.files) == 5
    whys = {group.why: group.name for group in folder.unused}
    assert whys["a link to a folder that it lies in"] == "cat/up/"
    assert "dog/gone.jpg" in whys["other files"]


def test_a_folder_without_test_and_few_photos_is_explained(tmp_path: Path) -> None:
    folder = read_for_training(photos(tmp_path, "train/a/", "train/b/", each=5), ImagesConfig())
    text = "\n".join(folder_lines(folder, ImagesConfig()))
    assert "; of those to train on, 25% are drawn for test, then 15% of the rest for val (" in text
    assert "'a' has 5, of which about 1 for test and 1 for val. 3 are needed" in text
    assert "--images.val-share 0.3" in text
    with pytest.raises(DataError, match=r"'a' has 2 usable photos for train and test and val together; at least 3"):
        read_for_training(photos(tmp_path / "less", "a/", "b/", each=2), ImagesConfig())


def test_count_and_its_json_say_what_was_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path, "Train/a/", "Train/b/", "Valid/a/", "Thumbs.db")
    assert command(["count", str(root)]) == 0
    said = capsys.readouterr().out
    assert "split folders Train/ (train), Valid/ (val)" in said
    assert "Not used: 1 other file (Thumbs.db)" in said
    assert command(["count", str(root), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["splits"] == {"train": {"a": 3, "b": 3}, "val": {"a": 3}}
    assert values["unused"] == [{"name": "Thumbs.db", "files": 1, "why": "other files"}]


def test_count_refuses_loose_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = photos(tmp_path, "cat.1.jpg", "cat.2.jpg", "dog.1.jpg", "dog.2.jpg")
    assert command(["count", str(root)]) == 2
    assert "--images.classes-from names" in capsys.readouterr().err
    assert command(["count", str(root), "--images.classes-from", "names"]) == 0
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no class folders"):
        count(tmp_path / "empty")
