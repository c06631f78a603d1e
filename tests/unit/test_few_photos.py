"""Few photos per class: every class gets one in every split, and no draw of the hashes refuses a run."""

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.config.schema import ImagesConfig
from potstill.data.splits import in_share
from potstill.errors import DataError
from potstill.images.folder import Folder, PhotoFile
from potstill.images.pack import Packed
from potstill.images.selection import drawn_splits, require_every_class, select

THUMB = bytes(576).hex()


def packed(number: int, label: int, split: str | None) -> Packed:
    key = sha256(f"{label}-{number}".encode()).hexdigest()
    return Packed(f"{label}/{number}.jpg", split, label, sha256=key, hash=int(key[:15], 16), thumb=THUMB)


def folder_of(entries: list[Packed], classes: int) -> Folder:
    files = tuple(PhotoFile(Path(entry.path), entry.split, entry.label) for entry in entries)  # type: ignore[arg-type]
    return Folder(Path("photos"), tuple("abcdefgh"[:classes]), files, flat=entries[0].split is None)


def counts(kept: list[Packed]) -> Counter[tuple[str | None, int]]:
    return Counter((photo.split, photo.label) for photo in kept)


@given(sizes=st.lists(st.integers(3, 12), min_size=2, max_size=5), seed=st.integers(0, 50), split=st.booleans())
def test_three_photos_of_a_class_are_enough_with_any_seed(sizes: list[int], seed: int, split: bool) -> None:
    entries = [
        packed(number, label, "train" if split else None) for label, size in enumerate(sizes) for number in range(size)
    ]
    folder = folder_of(entries, len(sizes))
    kept, rejected = select(entries, folder, ImagesConfig(split_seed=seed, duplicate_bits=-1))
    assert not rejected
    assert all(counts(kept)[name, label] for name in ("train", "val", "test") for label in range(len(sizes)))
    require_every_class(kept, folder, rejected)


def test_draws_stay_as_they_are_where_every_split_has_a_photo() -> None:
    entries = [packed(number, label, None) for label in range(2) for number in range(60)]
    config = ImagesConfig(duplicate_bits=-1)
    kept, _ = select(entries, folder_of(entries, 2), config)
    for photo in kept:
        if in_share(photo.sha256, config.test_share, seed=0, purpose="test"):
            expected = "test"
        else:
            expected = "val" if in_share(photo.sha256, config.val_share, seed=0, purpose="val") else "train"
        assert photo.split == expected


def test_the_photo_that_is_moved_is_the_next_of_the_draw() -> None:
    """A larger share would have taken the same photo, so a later one, when there are more photos, keeps it there."""
    entries = [packed(number, label, None) for label in range(2) for number in range(8)]
    few = ImagesConfig(test_share=0.001, val_share=0.001, duplicate_bits=-1)
    kept, _ = select(entries, folder_of(entries, 2), few)
    tested = [photo for photo in kept if photo.split == "test"]
    assert len(tested) == 2
    for photo in tested:
        share = 0.001
        while not any(in_share(p.sha256, share, seed=0, purpose="test") for p in kept if p.label == photo.label):
            share += 0.001
        assert in_share(photo.sha256, share, seed=0, purpose="test")


def test_splits_that_the_folder_has_are_not_touched() -> None:
    entries = [packed(number, label, "train") for label in range(2) for number in range(6)]
    entries += [packed(100 + label, label, "test") for label in range(2)]
    folder = folder_of(entries, 2)
    assert drawn_splits(folder) == ("val",)
    kept, _ = select(entries, folder, ImagesConfig(split_seed=3, duplicate_bits=-1))
    assert {photo.path for photo in kept if photo.split == "test"} == {"0/100.jpg", "1/101.jpg"}


def test_a_class_that_has_too_few_is_told_how_many_it_needs() -> None:
    entries = [packed(number, 0, None) for number in range(9)] + [packed(number, 1, None) for number in range(2)]
    folder = folder_of(entries, 2)
    kept, rejected = select(entries, folder, ImagesConfig(duplicate_bits=-1))
    with pytest.raises(DataError, match="'b' has 2 usable photos for train and test and val together; at least 3"):
        require_every_class(kept, folder, rejected)
