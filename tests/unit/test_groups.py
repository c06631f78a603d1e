"""Photos of one group are on one side of every split, and in one fold."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from tests.support import CLASSES, make_photos, table_of

from potstill.config.load import from_mapping
from potstill.config.schema import ImagesConfig
from potstill.data.folds import fold_of
from potstill.data.pixels import PHOTO, PixelStore
from potstill.data.splits import SPLITS, in_share
from potstill.errors import ConfigError, DataError
from potstill.images.source import open_photos

SHARES = (("test", 0.25), ("val", 0.15))


def person(path: Path) -> str:
    """Of a photo's number: three photos each, so every class has several."""
    return f"p{int(path.stem.rpartition('-')[2]) // 3}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("groups") / "folders", {"": 24})


@pytest.fixture(scope="module")
def grouped(photos: Path, tmp_path_factory: pytest.TempPathFactory, packer) -> PixelStore:
    data = table_of(photos, tmp_path_factory.mktemp("table") / "photos", patient_id=person)
    return packer(data, data.parent / "run", size=32, duplicate_bits=-1)


def rows_of(store: PixelStore) -> list[dict[str, str]]:
    with (store.folder / "images.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_no_group_is_on_both_sides_of_a_split(grouped: PixelStore) -> None:
    splits = defaultdict(set)
    for row in rows_of(grouped):
        splits[row["group"]].add(row["split"])
        assert row["group"] == person(Path(row["path"]))
    assert len(splits) == 25
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_no_group_is_in_two_folds_and_no_class_in_one_only(grouped: PixelStore, folds: int) -> None:
    rows = grouped.rows("train")
    fold = fold_of(grouped, rows, folds)
    groups = [rows_of(grouped)[row]["group"] for row in rows]
    by_group = defaultdict(set)
    for group, number in zip(groups, fold.tolist(), strict=True):
        by_group[group].add(number)
    assert all(len(found) == 1 for found in by_group.values())
    assert set(fold.tolist()) == set(range(folds))
    labels = grouped.labels(rows)
    for number in range(folds):
        assert set(labels[fold != number].tolist()) == {0, 1, 2}
    some = rows[::3]
    np.testing.assert_array_equal(fold_of(grouped, some, folds), fold[::3], "whatever the other photos are")


@pytest.mark.parametrize("seed", range(8))
def test_the_groups_of_a_class_are_dealt_to_the_folds_in_turn(seed: int) -> None:
    """Two train groups of each of four classes: by chance both would often be in one of two folds."""
    groups = np.random.default_rng(seed).integers(0, 2**63, 16).astype(np.uint64)
    store = object.__new__(PixelStore)
    store.index = np.zeros(32, PHOTO)
    store.index["label"] = np.tile(np.arange(4), 8)
    store.index["split"] = np.tile(np.arange(16) >= 8, 2)  # the other half is val
    store.groups = np.tile(groups, 2)
    train = store.rows("train")
    fold = fold_of(store, train, 2)
    for label in range(4):
        assert set(fold[store.index["label"][train] == label].tolist()) == {0, 1}


def test_groups_without_labels_are_in_all_folds_and_each_in_one() -> None:
    store = object.__new__(PixelStore)
    store.index = np.zeros(64, PHOTO)
    store.index["label"] = np.where(np.arange(64) < 4, 0, -1)
    store.index["split"] = np.where(np.arange(64) < 4, SPLITS.index("train"), SPLITS.index("unlabeled"))
    store.groups = np.arange(64, dtype=np.uint64) // 4 + 7  # four photos each, the labeled ones in the first
    fold = fold_of(store, np.arange(64), 2)
    assert all(len(set(four)) == 1 for four in fold.reshape(-1, 4).tolist())
    assert set(fold[4:].tolist()) == {0, 1}


def test_without_groups_nothing_changes(photos: Path, tmp_path: Path, packer) -> None:
    plain = packer(photos, tmp_path / "plain", size=32, duplicate_bits=-1)
    assert plain.groups is None
    assert not (plain.folder / "groups.npy").exists()
    header = (plain.folder / "images.csv").read_text("utf-8").partition("\n")[0]
    assert header == "row,path,split,class,sha256,width,height,format,mode"
    data = table_of(photos, tmp_path / "photos", patient_id=person)
    ignored = packer(data, tmp_path / "ignored", size=32, duplicate_bits=-1, group_column="none")
    np.testing.assert_array_equal(ignored.index, plain.index)
    rows = plain.rows("train")
    np.testing.assert_array_equal(fold_of(ignored, rows, 5), fold_of(plain, rows, 5))


def test_groups_by_the_names_of_files(photos: Path) -> None:
    folder = open_photos(photos, ImagesConfig(group_pattern=r"-(\d)\d*\."))
    assert {file.group for file in folder.files} == set("123456789")
    assert all(file.group == file.path.stem.rpartition("-")[2][0] for file in folder.files)
    assert "9 groups, each on one side of every split." in folder.notes
    folder = open_photos(photos, ImagesConfig(group_pattern=r"disc-(\d)"))
    assert any("48 photos belong to none, such as frame/frame-25.png" in note for note in folder.notes)
    with pytest.raises(DataError, match=r"images.group_pattern '\(x\)y' matches no file name, such as 'disc-1.png'"):
        open_photos(photos, ImagesConfig(group_pattern="(x)y"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images.group_pattern": "(("}, r"images.group_pattern '\(\(' is not a regular expression"),
        ({"images.group_pattern": "^p"}, "has 0 groups in parentheses; it needs exactly one"),
        ({"images.group_pattern": "(a)(b)"}, "has 2 groups"),
        ({"images.group_pattern": "(a)" + "b?" * 200}, "longer than 200"),
        ({"images.group_pattern": "(a)", "images.group_column": "person"}, "both define groups"),
    ],
)
def test_patterns_that_are_wrong(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_mapping(settings)


def test_a_group_on_both_sides_of_a_given_split_is_refused(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "splits", {"train": 2, "test": 2})
    with pytest.raises(
        DataError, match=r"(?s)3 groups are on both sides .*disc: train/disc/disc-1.png in train, test/disc"
    ):
        open_photos(data, ImagesConfig(group_pattern="^([a-z]+)"))
    table_of(data, tmp_path / "table", split=lambda path: path.parts[-3], group=lambda path: path.parent.name[0])
    with pytest.raises(DataError, match="3 groups are on both sides of the given splits"):
        open_photos(tmp_path / "table", ImagesConfig())
    assert open_photos(tmp_path / "table", ImagesConfig(group_column="none"))


def test_photos_without_labels_of_a_test_group_are_left_out(tmp_path: Path, packer) -> None:
    data = make_photos(tmp_path / "data", {"train": 12, "test": 3, "unlabeled": 2})
    inside = {path.stem.rpartition("-")[2] for path in (data / "unlabeled").iterdir()}
    assert len(inside) == 6
    held = sorted((data / "test" / "disc").iterdir())[0]
    held.rename(held.with_name("same-1.png"))
    first = sorted((data / "unlabeled").iterdir())[0]
    first.rename(first.with_name("same-2.png"))
    store = packer(data, tmp_path / "run", size=32, duplicate_bits=-1, group_pattern="^(same|[a-z]+-[0-9]+)")
    assert len(store.rows("unlabeled")) == 5
    with (store.folder / "rejected.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["code"], row["reason"]) == (
        "unlabeled/same-2.png", "group_in_test", "its group same is in test",
    )  # fmt: skip


def test_few_groups_are_moved_whole_where_a_split_would_be_empty(photos: Path, tmp_path: Path, packer) -> None:
    """By chance alone none of these ten groups is in val."""
    pattern = r"(\d)\.png$"
    store = packer(photos, tmp_path / "run", size=32, duplicate_bits=-1, group_pattern=pattern)
    splits = defaultdict(set)
    for row in rows_of(store):
        splits[row["group"]].add(row["split"])
    drawn = {group: [in_share(group, share, seed=0, purpose=name) for name, share in SHARES] for group in splits}
    assert not any(val and not test for test, val in drawn.values())
    assert all(len(found) == 1 for found in splits.values())
    for split in ("train", "val", "test"):
        assert set(store.labels(store.rows(split)).tolist()) == {0, 1, 2}


def test_a_class_of_one_group_is_explained(tmp_path: Path, packer) -> None:
    data = make_photos(tmp_path / "data", {"": 8})
    with pytest.raises(
        DataError, match=r"class '\w+' has 0 usable photos for \w+.* photos belong to 1 group, each of which stays"
    ):
        packer(data, tmp_path / "run", size=32, duplicate_bits=-1, group_pattern="^([a-z]+)")


def test_a_changed_table_makes_the_photos_stale(photos: Path, tmp_path: Path, packer) -> None:
    data = table_of(photos, tmp_path / "photos")
    packer(data, tmp_path / "run", size=32)
    packer(data, tmp_path / "run", size=32, label_column="label")  # another way to the same labels
    text = (data / "labels.csv").read_text()
    (data / "labels.csv").write_text(text.replace(f",{CLASSES[0]}\n", f",{CLASSES[1]}\n", 1))
    from potstill.errors import StaleError

    with pytest.raises(StaleError, match="labels_sha256"):
        packer(data, tmp_path / "run", size=32)
