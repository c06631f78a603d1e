"""Decides which of the packed photos are used, and in which split.

Copies are left out as `potstill check` would move them to quarantine, by the same functions.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from potstill.config.schema import ImagesConfig
from potstill.data.splits import in_share
from potstill.errors import DataError
from potstill.images.copies import NEAR_BITS, Photo, find_copies
from potstill.images.duplicates import THUMB, Fingerprint
from potstill.images.folder import Folder
from potstill.images.pack import Packed
from potstill.images.reasons import action


def select(entries: list[Packed], folder: Folder, config: ImagesConfig) -> tuple[list[Packed], list[Packed]]:
    """Assign splits, leave out copies and limit the labels per class.

    Of copies the test photo stays, else the one of val.

    Returns:
        kept, rejected: the photos to train and test on, and all others with code and reason.
    """
    rejected = [entry for entry in entries if entry.code]
    has_val = any(file.split == "val" for file in folder.files)
    good = [replace(e, split=_split_of(e, has_val, config)) for e in entries if not e.code]
    order = {"test": 0, "val": 1, "train": 2, "unlabeled": 3}
    good.sort(key=lambda e: (order[e.split or "train"], e.sha256, e.path))
    good, copies = _without_copies(good, folder, config.duplicate_bits)
    good, over = _limited(good, config)
    return good, rejected + copies + over


def _split_of(entry: Packed, has_val: bool, config: ImagesConfig) -> str:
    seed = config.split_seed
    if entry.split is None and in_share(entry.sha256, config.test_share, seed=seed, purpose="test"):
        return "test"
    if entry.split in (None, "train") and not has_val:
        return "val" if in_share(entry.sha256, config.val_share, seed=seed, purpose="val") else "train"
    return entry.split or "train"


def _without_copies(photos: list[Packed], folder: Folder, leak_bits: int) -> tuple[list[Packed], list[Packed]]:
    """Leave out copies of other photos, and pictures in two classes, whose label is unknown."""
    names = [*folder.classes, ""]  # label -1 is the empty name
    candidates = [
        Photo(i, p.split or "train", names[p.label], p.sha256, p.width * p.height, _marks(p))
        for i, p in enumerate(photos)
    ]
    copies = find_copies(candidates, near_bits=min(NEAR_BITS, leak_bits), leak_bits=leak_bits)
    gone = {copy.index: copy for copy in copies if action(copy.code) != "note"}
    rejected = [
        replace(photos[i], code=copy.code, reason=_reason(copy.code, photos[copy.of], names))
        for i, copy in sorted(gone.items())
    ]
    return [photo for i, photo in enumerate(photos) if i not in gone], rejected


def _reason(code: str, other: Packed, names: list[str]) -> str:
    if code == "two_classes":
        return f"the same picture is in the class {names[other.label]}: {other.path}"
    if code == "identical":
        return f"the same bytes as {other.path}"
    where = f"the {other.split} photo " if code == "in_test" else ""
    return f"shows the same picture as {where}{other.path}"


def _marks(photo: Packed) -> Fingerprint:
    thumb = np.frombuffer(bytes.fromhex(photo.thumb), np.uint8).reshape(THUMB, THUMB)
    return Fingerprint(photo.hash, photo.mirrored, thumb)


def _limited(photos: list[Packed], config: ImagesConfig) -> tuple[list[Packed], list[Packed]]:
    """Keep the labels of the first `per_class` training photos of each class, in the order of their hashes."""
    if not config.per_class:
        return photos, []
    seen: Counter[int] = Counter()
    kept, over = [], []
    for photo in photos:
        seen[photo.label] += photo.split == "train"
        if photo.split != "train" or seen[photo.label] <= config.per_class:
            kept.append(photo)
        elif config.rest == "unlabeled":
            kept.append(replace(photo, split="unlabeled", label=-1))
        else:
            over.append(replace(photo, code="over_limit", reason=f"images.per_class = {config.per_class}"))
    return kept, over


def require_every_class(kept: list[Packed], folder: Folder, rejected: list[Packed]) -> None:
    """Raise DataError for a class with too few usable photos in train, val or test."""
    for split, needed in (("train", 2), ("val", 1), ("test", 1)):
        for label, name in enumerate(folder.classes):
            count = sum(photo.split == split and photo.label == label for photo in kept)
            if count < needed:
                lost = [p for p in rejected if p.label == label]
                example = f" {len(lost)} files were rejected, such as {lost[0].path}: {lost[0].reason}." if lost else ""
                raise DataError(
                    f"The class {name!r} has {count} usable photos for {split}; at least {needed} are needed.{example}"
                    f"\n  Add photos of {name!r} to {folder.root}, or leave the class out with --images.classes."
                )
