"""Decides which of the packed photos are used, and in which split.

Copies are left out as `potstill check` would move them to quarantine, by the same functions.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from potstill.config.schema import ImagesConfig
from potstill.data.splits import LABELED, Split, in_share, unit_hash
from potstill.errors import ConfigError, DataError
from potstill.images.copies import NEAR_BITS, Photo, find_copies
from potstill.images.duplicates import THUMB, Fingerprint
from potstill.images.folder import Folder, label_text, labels_of
from potstill.images.pack import Packed
from potstill.images.reasons import action
from potstill.images.source import open_photos
from potstill.wording import counted


def read_for_training(data: Path, config: ImagesConfig, *, runs: Path = Path("runs")) -> Folder:
    """`open_photos`, and the check that its classes have enough files.

    Raises:
        ConfigError, DataError: as `open_photos` does, and for a class that has too few files for all splits.
    """
    folder = open_photos(data, config, runs=runs)
    if folder.several_labels and config.per_class:
        raise ConfigError(
            "images.per_class counts photos that have one label each; these may have several. Leave it out."
        )
    counts: Counter[tuple[str, int]] = Counter()
    for (split, label), number in folder.counts().items():
        counts[split or "train", label] += number
    drawable = drawn_splits(folder)
    for label, name in enumerate(folder.classes):
        if text := _lacking(name, {split: counts[split, label] for split in LABELED}, drawable, drawn=False):
            raise DataError(text + _what_to_do(folder, name))
    return folder


def select(entries: list[Packed], folder: Folder, config: ImagesConfig) -> tuple[list[Packed], list[Packed]]:
    """Assign splits, leave out copies and limit the labels per class.

    Of copies the test photo stays, else the one of val. Splits are drawn for groups where photos have one; photos
    without labels of a group that is in test or val are left out.

    Returns:
        kept, rejected: the photos to train and test on, and all others with code and reason.
    """
    rejected = [entry for entry in entries if entry.code]
    drawn = drawn_splits(folder)
    good = [
        replace(e, split=assigned_split(e.split, e.group or e.sha256, drawn, config, config.test_share))
        for e in entries
        if not e.code
    ]
    order = {"test": 0, "val": 1, "train": 2, "unlabeled": 3}
    good.sort(key=lambda e: (order[e.split or "train"], e.sha256, e.path))
    good, copies = without_copies(good, folder, config.duplicate_bits)
    good = _with_every_class(good, drawn, config)
    good, related = _without_groups_of_test(good)
    good.sort(key=lambda e: (order[e.split or "train"], e.sha256, e.path))
    good, over = limited(good, config)
    return good, rejected + copies + related + over


def drawn_splits(folder: Folder) -> tuple[Split, ...]:
    """The splits for which the folder has no photos, so that they are drawn from those of train."""
    given = folder.by_split().keys()
    drawable: tuple[Split, ...] = ("test", "val")
    return tuple(split for split in drawable if split not in given)


def assigned_split(given: str | None, key: str, drawn: Sequence[Split], config: ImagesConfig, test_share: float) -> str:
    """The split of a photo.

    Args:
        given: the one of its folder; None where it has none.
        key: its group, or its sha256 where it has none.
        drawn: the splits that are drawn, see `drawn_splits`.
        test_share: of the photos that may be drawn for test.
    """
    seed = config.split_seed
    from_train = "test" in drawn and given == "train"
    if (given is None or from_train) and in_share(key, test_share, seed=seed, purpose="test"):
        return "test"
    if given in (None, "train") and "val" in drawn:
        return "val" if in_share(key, config.val_share, seed=seed, purpose="val") else "train"
    return given or "train"


def _with_every_class(photos: list[Packed], drawn: Sequence[Split], config: ImagesConfig) -> list[Packed]:
    """Give every class a photo in every split that is drawn, and leave it one in train, where it has that many.

    By chance a class of few photos can have none in a share of them. Then the photo that is next in the order of the
    draw is moved, and with it all of its group. Where every split has a photo, the draws stay as they are.
    """

    def place(photo: Packed, split: str) -> float:
        return unit_hash(photo.group or photo.sha256, seed=config.split_seed, purpose=split)

    moved = list(photos)
    splits = ("train", *drawn)
    for label in sorted({label for photo in photos for label in labels_of(photo) if label >= 0}):
        for split in splits:
            inside = {
                name: [i for i, p in enumerate(moved) if label in labels_of(p) and p.split == name] for name in splits
            }
            most = max(splits, key=lambda name: len(inside[name]))
            if inside[split] or len(inside[most]) < 2:
                continue
            one_of_each = {moved[i].group or moved[i].sha256: i for i in inside[most]}
            movable = [i for i in one_of_each.values() if _can_move(moved, i)]
            if not movable:
                continue
            # Into a drawn split comes the photo that it would draw next; back into train the one that was drawn last.
            if split == "train":
                chosen = max(movable, key=lambda i: place(moved[i], most))
            else:
                chosen = min(movable, key=lambda i: place(moved[i], split))
            for i in _group_of(moved, chosen):
                moved[i] = replace(moved[i], split=split)
    return moved


def _group_of(photos: list[Packed], index: int) -> list[int]:
    """A photo and all others of its group that are in its split."""
    photo = photos[index]
    if not photo.group:
        return [index]
    return [i for i, other in enumerate(photos) if (other.group, other.split) == (photo.group, photo.split)]


def _can_move(photos: list[Packed], index: int) -> bool:
    """Whether every class of a photo's group has other photos in its split."""
    group, split = set(_group_of(photos, index)), photos[index].split
    left = {
        label for i, photo in enumerate(photos) if photo.split == split and i not in group for label in labels_of(photo)
    }
    return {label for i in group for label in labels_of(photos[i])} <= left


def _without_groups_of_test(photos: list[Packed]) -> tuple[list[Packed], list[Packed]]:
    """Leave out photos without labels of a group whose labeled photos are in test or val."""
    held = {photo.group: photo for photo in reversed(photos) if photo.group and photo.split in ("test", "val")}
    related = [
        replace(p, code="group_in_test", reason=f"its group {p.group} is in {held[p.group].split}")
        for p in photos
        if p.split == "unlabeled" and p.group in held
    ]
    return [p for p in photos if p.split != "unlabeled" or p.group not in held], related


def without_copies(
    photos: list[Packed], folder: Folder, leak_bits: int, *, settled: int = 0
) -> tuple[list[Packed], list[Packed]]:
    """Leave out copies of other photos, and pictures in two classes, whose label is unknown.

    Args:
        settled: so many of the first photos are those of an earlier run, and stay.
    """
    candidates = [
        Photo(
            i, p.split or "train", label_text(p, folder.classes), p.sha256, p.width * p.height, _marks(p), i < settled
        )
        for i, p in enumerate(photos)
    ]
    copies = find_copies(candidates, near_bits=min(NEAR_BITS, leak_bits), leak_bits=leak_bits)
    gone = {copy.index: copy for copy in copies if action(copy.code) != "note"}
    rejected = [
        replace(photos[i], code=copy.code, reason=_reason(copy.code, photos[copy.of], folder))
        for i, copy in sorted(gone.items())
    ]
    return [photo for i, photo in enumerate(photos) if i not in gone], rejected


def _reason(code: str, other: Packed, folder: Folder) -> str:
    if code == "two_classes":
        what = "has the labels" if folder.several_labels else "is in the class"
        return f"the same picture {what} {label_text(other, folder.classes)}: {other.path}"
    if code == "identical":
        return f"the same bytes as {other.path}"
    where = f"the {other.split} photo " if code == "in_test" else ""
    return f"shows the same picture as {where}{other.path}"


def _marks(photo: Packed) -> Fingerprint:
    thumb = np.frombuffer(bytes.fromhex(photo.thumb), np.uint8).reshape(THUMB, THUMB)
    return Fingerprint(photo.hash, photo.mirrored, thumb)


def limited(photos: list[Packed], config: ImagesConfig) -> tuple[list[Packed], list[Packed]]:
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
    counts = Counter((photo.split, label) for photo in kept for label in labels_of(photo))
    drawable = drawn_splits(folder)
    for label, name in enumerate(folder.classes):
        if text := _lacking(name, {split: counts[split, label] for split in LABELED}, drawable, drawn=True):
            lost = [photo for photo in rejected if label in labels_of(photo)]
            example = (
                f" {counted(len(lost), 'file was', 'files were')} rejected, such as {lost[0].path}: {lost[0].reason}."
                if lost
                else ""
            )
            raise DataError(text + _together(kept, label) + example + _what_to_do(folder, name))


def _together(kept: list[Packed], label: int) -> str:
    """How many groups the photos of a class belong to, where they do."""
    groups = len({photo.group for photo in kept if label in labels_of(photo) and photo.group})
    hint = "" if groups > 2 else "; it needs photos of more groups"
    return f" Its photos belong to {counted(groups, 'group')}, each of which stays together{hint}." if groups else ""


def _lacking(name: str, counts: Mapping[Split, int], from_train: Sequence[Split], *, drawn: bool) -> str:
    """What a class has too few photos for; "" where it has enough.

    Args:
        from_train: the splits that are drawn from train, as of `drawn_splits`.
        drawn: whether `counts` are those after photos of train were drawn for these.
    """
    total = sum(counts[split] for split in ("train", *from_train))
    splits = ("train", *from_train)
    if from_train and total < len(splits):
        return (
            f"The class {name!r} has {counted(total, 'usable photo')} for {' and '.join(splits)} together; at least "
            f"{len(splits)} are needed, one for each. 20 and more per class make the numbers meaningful."
        )
    for split in LABELED:
        if not counts[split] and (drawn or split not in from_train):
            return f"The class {name!r} has 0 usable photos for {split}; at least 1 is needed."
    return ""


def _what_to_do(folder: Folder, name: str) -> str:
    given = [split for split in ("test", "val") if split not in drawn_splits(folder)]
    away = f", move the {given[-1]} folder away (--images.{given[-1]}-share is drawn then)" if given else ""
    return f"\n  Add photos of {name!r} to {folder.root}{away}, or leave the class out with --images.classes."
