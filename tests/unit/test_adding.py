"""Photos that are added to those of a run: the run's stay, and the others go where they may."""

import csv
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.support import CLASSES, context_of, draw_photo, make_photos, table_of

from potstill.config.schema import ImagesConfig
from potstill.data.pixels import PixelStore
from potstill.data.splits import in_share
from potstill.errors import DataError
from potstill.images import pack as packing
from potstill.images.adding import add, added_lines, read_to_add
from potstill.images.earlier import EarlierPhotos
from potstill.images.folder import Folder
from potstill.images.pack import Packed
from potstill.images.plan import ImagesPlan
from potstill.images.stage import collect_images
from potstill.run.folder import Run

Rows = list[dict[str, str]]


def table(folder: Path, name: str = "images") -> Rows:
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def added(store: PixelStore, data: Path, target: Path, test_share: float = 0.0, **settings: Any) -> PixelStore:
    """The packed photos of the store's run and of `data`."""
    config = ImagesConfig(margin=1.0, **settings)
    earlier = EarlierPhotos.of(Run(store.folder.parent), test_share)
    folder = read_to_add(data, config, earlier, runs=target)
    return collect_images(ImagesPlan(folder, config, 80), context_of(Run(target)))


def of_discs(store: PixelStore, split: str) -> list[str]:
    return [row["path"] for row in table(store.folder) if (row["split"], row["class"]) == (split, "disc")]


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Nine photos of each class that the packed photos do not have."""
    for number, name in enumerate(CLASSES):
        (tmp_path / "new" / name).mkdir(parents=True)
        for other in (0, 1, 2, 3, 4, 5, 7, 8, 9):  # a disc of 6 happens to be a copy of one that is tested on
            draw_photo(name, 500 + 20 * number + other).save(tmp_path / "new" / name / f"{other}.png")
    return tmp_path / "new"


def test_the_photos_of_the_run_stay_and_the_others_are_drawn_by_their_hashes(
    store: PixelStore, new: Path, tmp_path: Path
) -> None:
    before = {row["sha256"]: row for row in table(store.folder)}
    found = added(store, new, tmp_path / "run", test_share=0.3, val_share=0.3)
    rows = table(found.folder)
    kept = {row["sha256"]: row for row in rows if row["sha256"] in before}
    for sha, row in before.items():
        assert {**kept[sha], "row": ""} == {**row, "row": ""}
    others = [row for row in rows if row["sha256"] not in before]
    assert len(others) == 27
    assert {row["path"].partition("/")[0] for row in others} == {"new"}
    for row in others:
        test = in_share(row["sha256"], 0.3, seed=0, purpose="test")
        val = in_share(row["sha256"], 0.3, seed=0, purpose="val")
        assert row["split"] == ("test" if test else "val" if val else "train")
    assert Counter(row["split"] for row in others).keys() == {"train", "val", "test"}
    old = {row["sha256"]: int(row["row"]) for row in table(store.folder)}
    for row in rows[::7]:
        if row["sha256"] in old:
            mine, theirs = found.photo(int(row["row"])), store.photo(old[row["sha256"]])
            assert np.array_equal(np.asarray(mine), np.asarray(theirs))


def test_none_is_tested_on_unless_asked_or_given(store: PixelStore, new: Path, tmp_path: Path) -> None:
    tested = len(store.rows("test"))
    assert len(added(store, new, tmp_path / "run").rows("test")) == tested
    shutil.move(new, tmp_path / "more" / "train")
    make_photos(tmp_path / "more", {"test": 1})
    for number, path in enumerate(sorted((tmp_path / "more" / "test").rglob("*.png"))):
        draw_photo(path.parent.name, 700 + number).save(path)
    assert len(added(store, tmp_path / "more", tmp_path / "other").rows("test")) == tested + 3


def test_copies_of_the_runs_photos_are_left_out_and_those_of_test_are_named(
    store: PixelStore, photos: Path, new: Path, tmp_path: Path
) -> None:
    tested, learned = ([photos / p for p in of_discs(store, split)] for split in ("test", "train"))
    shutil.copy(tested[0], new / "disc" / "same.png")
    Image.open(tested[1]).save(new / "disc" / "again.jpg", quality=90)
    Image.open(learned[0]).save(new / "disc" / "learned.jpg", quality=90)
    Image.open(learned[1]).save(new / "frame" / "doubtful.jpg", quality=90)
    found = added(store, new, tmp_path / "run")
    rejected = {row["path"]: row for row in table(found.folder, "rejected")}
    codes = {"same.png": "in_run", "again.jpg": "in_test", "learned.jpg": "duplicate", "doubtful.jpg": "two_classes"}
    assert {Path(path).name: row["code"] for path, row in rejected.items()} == codes
    assert len(found) == len(store) + 27, "the run's photos stay, those in two classes, too"
    again = Packed("new/disc/again.jpg", "train", 0, "in_test", rejected["new/disc/again.jpg"]["reason"])
    (line,) = added_lines([again])
    assert "new/disc/again.jpg shows the same picture as the test photo test/disc/" in line


def test_a_test_photo_that_the_run_has_learned_from_is_left_out(
    store: PixelStore, photos: Path, tmp_path: Path, new: Path
) -> None:
    target = tmp_path / "more" / "test" / "disc"
    target.mkdir(parents=True)
    shutil.move(new, tmp_path / "more" / "train")
    learned = photos / of_discs(store, "train")[0]
    Image.open(learned).save(target / "learned.jpg", quality=90)
    found = added(store, tmp_path / "more", tmp_path / "run")
    assert len(found.rows("test")) == len(store.rows("test"))
    assert [row["code"] for row in table(found.folder, "rejected")] == ["duplicate"]


def test_another_label_for_the_same_bytes_is_refused_with_both(
    store: PixelStore, photos: Path, new: Path, tmp_path: Path
) -> None:
    path = sorted((photos / "train" / "disc").iterdir())[0]
    shutil.copy(path, new / "frame" / "wrong.png")
    with pytest.raises(DataError, match=rf"(?s)1 photo has another label.*wrong.png: frame; .*{path.name}: disc"):
        added(store, new, tmp_path / "run")


def test_a_photo_without_a_label_may_get_one(packer: Callable[..., PixelStore], tmp_path: Path, new: Path) -> None:
    data = make_photos(tmp_path / "data", {"train": 4, "test": 2, "unlabeled": 2})
    store = packer(data, tmp_path / "first")
    shutil.rmtree(new)
    path = sorted((data / "unlabeled").glob("disc-*"))[0]
    (tmp_path / "labels" / "disc").mkdir(parents=True)
    shutil.copy(path, tmp_path / "labels" / "disc")
    found = added(store, tmp_path / "labels", tmp_path / "run")
    assert len(found) == len(store)
    assert len(found.rows("unlabeled")) == len(store.rows("unlabeled")) - 1
    row = next(row for row in table(found.folder) if row["path"] == f"unlabeled/{path.name}")
    assert (row["split"], row["class"]) == ("train", "disc")
    with pytest.raises(DataError, match=r"There is nothing to add to .* the same bytes as"):
        added(store, data / "unlabeled", tmp_path / "again")


def test_a_class_that_the_run_does_not_have_is_refused(store: PixelStore, tmp_path: Path) -> None:
    (tmp_path / "new" / "frames").mkdir(parents=True)
    draw_photo("frame", 600).save(tmp_path / "new" / "frames" / "1.png")
    with pytest.raises(DataError, match=r"(?s)the class 'frames', which .* Did you mean 'frame'\?.*potstill distill"):
        added(store, tmp_path / "new", tmp_path / "run")


def test_tables_one_class_and_photos_without_labels_are_read(store: PixelStore, new: Path, tmp_path: Path) -> None:
    tables = table_of(new / "disc", tmp_path / "table")
    assert len(added(store, tables, tmp_path / "a")) == len(store) + 9
    assert len(added(store, new / "disc", tmp_path / "b").rows("unlabeled")) == 9


def test_photos_of_a_group_follow_it(packer: Callable[..., PixelStore], tmp_path: Path) -> None:
    pattern = "^([a-z0-9]+)_"
    for number, name in enumerate(CLASSES):
        for place in ("train", "test"):
            (tmp_path / "data" / place / name).mkdir(parents=True)
            for other in range(4):
                file = tmp_path / "data" / place / name / f"{place}{other}_{name}.png"
                draw_photo(name, 900 + 40 * number + 10 * other + (place == "test")).save(file)
    store = packer(tmp_path / "data", tmp_path / "first", group_pattern=pattern)
    splits = {row["group"]: row["split"] for row in table(store.folder)}
    val = next(group for group, split in splits.items() if split == "val")
    (tmp_path / "new" / "disc").mkdir(parents=True)
    for number, group in enumerate(("test0", val, "other", "train0" if val != "train0" else "train1")):
        draw_photo("disc", 1000 + number).save(tmp_path / "new" / "disc" / f"{group}_new.png")
    found = added(store, tmp_path / "new", tmp_path / "run", group_pattern=pattern)
    rows = {row["path"]: row["split"] for row in table(found.folder) if row["path"].startswith("new/")}
    assert rows[f"new/disc/{val}_new.png"] == "val"
    (left_out,) = table(found.folder, "rejected")
    assert (left_out["path"], left_out["code"]) == ("new/disc/test0_new.png", "group_in_test")
    assert "its group test0 is in test of the run" in left_out["reason"]


def test_interrupted_packing_ends_with_the_same_files(
    store: PixelStore, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = added(store, new, tmp_path / "whole")
    real, seen = packing.Store.add, 0

    def dying(self: Any, entry: Packed, data: bytes) -> None:
        nonlocal seen
        seen += 1
        if seen == 12:
            raise KeyboardInterrupt
        real(self, entry, data)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "_JOURNAL_EVERY", 4)
        patch.setattr(packing.Store, "add", dying)
        with pytest.raises(KeyboardInterrupt):
            added(store, new, tmp_path / "run")
    decoded: list[str] = []
    decode_one = packing._decode_one

    def counting(file: Any, path: str, how: Any, known: Any) -> Any:
        decoded.append(path)
        return decode_one(file, path, how, known)

    monkeypatch.setattr(packing, "_decode_one", counting)
    resumed = added(store, new, tmp_path / "run")
    assert len(decoded) == 27 - 8, "those that the journal has are not decoded again"
    for name in ("pixels.bin", "index.npy", "images.csv"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_attribution_of_both_is_kept(
    packer: Callable[..., PixelStore], photos: Path, new: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    (data / "ATTRIBUTION.csv").write_text("path,author\ntrain/disc/disc-1.png,Ann\n")
    (new / "ATTRIBUTION.csv").write_text("path,license\ndisc/0.png,CC0\n")
    found = added(packer(data, tmp_path / "first"), new, tmp_path / "run")
    expected = "path,author,license\ntrain/disc/disc-1.png,Ann,\nnew/disc/0.png,,CC0\n"
    assert (found.folder / "ATTRIBUTION.csv").read_text() == expected


def packed(number: int, split: str | None, label: int, content: int) -> Packed:
    """A made-up photo; photos with the same content have the same bytes, and all others look different."""
    generator = np.random.default_rng(content)
    thumb = generator.integers(0, 256, 24 * 24).astype(np.uint8).tobytes().hex()
    bits, mirrored = (int(value) for value in generator.integers(0, 2**63, 2))
    return Packed(
        f"{number}.png",
        split,
        label,
        sha256=f"{content:064x}",
        width=9,
        height=9,
        hash=bits,
        mirrored=mirrored,
        thumb=thumb,
    )


@given(
    old=st.lists(st.sampled_from(["train", "val", "test", "unlabeled"]), min_size=1, max_size=12),
    new=st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=12),
    share=st.sampled_from([0.0, 0.5]),
)
def test_whatever_is_added_the_runs_photos_stay(old: list[str], new: list[tuple[bool, int]], share: float) -> None:
    before = [packed(i, split, -1 if split == "unlabeled" else 0, i) for i, split in enumerate(old)]
    files = [
        packed(100 + i, None if label else "unlabeled", 0 if label else -1, content)
        for i, (label, content) in enumerate(new)
    ]
    earlier = EarlierPhotos(Path("run"), ("a", "b"), {}, share)
    folder = Folder(Path("new"), ("a", "b"), (), flat=True, earlier=earlier)
    known = {content for _, content in new} <= set(range(len(old)))
    if known and not any(label and before[content].label < 0 for label, content in new):
        with pytest.raises(DataError, match="nothing to add"):
            add(before, files, folder, ImagesConfig())
        return
    kept, rejected = add(before, files, folder, ImagesConfig())
    assert len(kept) + len(rejected) == len(before) + len(files)
    assert len({photo.sha256 for photo in kept}) == len(kept)
    for photo, first in zip(before, kept, strict=False):
        changed = photo.split == "unlabeled" and first.split == "train" and first.label == 0
        assert changed or photo == first
    if not share:
        assert all(photo.split != "test" for photo in kept[len(before) :])
