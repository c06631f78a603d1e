"""Which photos are added to those of a finished run, and in which split. The run's own photos stay where they are.

The test photos are the same before and after, so that the models of both runs can be compared on them. An added photo
that shows the same picture as one of the run's is left out, whatever its own split.
"""

import csv
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from potstill.config.schema import ImagesConfig
from potstill.data.pixels import PixelStore
from potstill.errors import DataError, did_you_mean
from potstill.images.class_folders import shown
from potstill.images.duplicates import fingerprint
from potstill.images.earlier import EarlierPhotos
from potstill.images.folder import Folder, PhotoFile
from potstill.images.new_photos import NewPhotos, read_new_photos
from potstill.images.pack import Packed
from potstill.images.selection import assigned_split, drawn_splits, limited, without_copies
from potstill.images.source import grouped
from potstill.processes.pools import in_order
from potstill.wording import counted

_LISTED = 5


def read_to_add(data: Path, config: ImagesConfig, earlier: EarlierPhotos, *, runs: Path = Path("runs")) -> Folder:
    """The photos to add to those of a run.

    Args:
        data: a photo folder, a table of labels or an archive, as for training; one class is enough, and none is needed.
    Raises:
        ConfigError, DataError: as `read_new_photos` does, and for a class that the run does not have.
    """
    new = read_new_photos(data, config, runs=runs)
    _require_known_classes(new, earlier)
    index = {name: label for label, name in enumerate((*earlier.classes, ""))} | {"": -1}
    files = [
        PhotoFile(photo.path, photo.split if photo.label else "unlabeled", index[photo.label], photo.group)
        for photo in new.photos
    ]
    folder = Folder(
        root=new.root,
        classes=earlier.classes,
        files=tuple(files),
        flat=not any(file.split in ("train", "val", "test") for file in files),
        notes=new.notes,
        earlier=earlier,
    )
    return grouped(folder, config.group_pattern)


def _require_known_classes(new: NewPhotos, earlier: EarlierPhotos) -> None:
    if unknown := [name for name in new.classes if name not in earlier.classes]:
        raise DataError(
            f"{new.root} has the class {unknown[0]!r}, which {earlier.run} does not have. Its classes: "
            f"{shown(earlier.classes)}.{did_you_mean(unknown[0], earlier.classes)}\n"
            "  Photos can be added to classes that there are. A new class has no test photos in that run, and its "
            "models have no output for it: put all photos into one folder, and run `potstill distill` on it."
        )


def packed_photos(earlier: EarlierPhotos) -> list[Packed]:
    """The run's photos as the packing journal would list them, in the order of the run's table. Reads their pixels."""
    store = PixelStore(earlier.images)
    with (earlier.images / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    def packed(numbers: Sequence[int]) -> list[Packed]:
        return [_packed(store, number, rows[number]) for number in numbers]

    return list(in_order(packed, range(len(store)), chunk=64, processes=False))


def _packed(store: PixelStore, row: int, listed: dict[str, str]) -> Packed:
    record, prints = store.index[row], fingerprint(store.photo(row))
    return Packed(
        path=listed["path"],
        split=listed["split"],
        label=int(record["label"]),
        sha256=listed["sha256"],
        format=listed["format"],
        mode=listed["mode"],
        width=int(listed["width"]),
        height=int(listed["height"]),
        stored_width=int(record["width"]),
        stored_height=int(record["height"]),
        offset=int(record["offset"]),
        bytes=int(record["bytes"]),
        jpeg=bool(record["jpeg"]),
        hash=prints.hash,
        mirrored=prints.mirrored,
        thumb=prints.thumb.tobytes().hex(),
        crc=zlib.crc32(store.read(row)),
        group=listed.get("group") or "",
    )


def add(
    old: Sequence[Packed], new: Sequence[Packed], folder: Folder, config: ImagesConfig
) -> tuple[list[Packed], list[Packed]]:
    """Choose among the added photos, and assign splits to them.

    Args:
        old: the photos of the run, all of which are kept.
        new: what was decoded of the folder.
    Returns:
        kept, rejected: the run's photos and those that are added to them, and all others with code and reason.
    Raises:
        DataError: a photo of the run comes with another label, or nothing is left to add.
    """
    assert folder.earlier is not None
    rejected = [photo for photo in new if photo.code]
    good = [photo for photo in new if not photo.code]
    good, known = _without_known(good, old)
    old = _relabeled(old, known, folder)
    good, related = _in_splits(good, old, folder, config)
    found, copies = without_copies([*old, *good], folder, config.duplicate_bits, settled=len(old))
    good, over = limited(found[len(old) :], config)
    again = [replace(photo, code="in_run", reason=f"the same bytes as {first.path}") for photo, first in known]
    if not good and not any(photo.label >= 0 > first.label for photo, first in known):
        raise DataError(_nothing_to_add(folder, [*rejected, *related, *copies, *again]))
    return [*old, *good], [*rejected, *again, *related, *copies, *over]


def _without_known(new: Sequence[Packed], old: Sequence[Packed]) -> tuple[list[Packed], list[tuple[Packed, Packed]]]:
    """The photos whose bytes the run does not have, and the others, each with that of the run."""
    by_hash = {photo.sha256: photo for photo in old}
    known = [(photo, by_hash[photo.sha256]) for photo in new if photo.sha256 in by_hash]
    return [photo for photo in new if photo.sha256 not in by_hash], known


def _relabeled(old: Sequence[Packed], known: Sequence[tuple[Packed, Packed]], folder: Folder) -> list[Packed]:
    """The run's photos, with the labels of those that had none and come with one now. These are trained on, and never
    in val or test: the run's models have learned from them.

    Raises:
        DataError: a photo comes with another label than it has.
    """
    names = [*folder.classes, "no class"]  # label -1 is the last one
    labels: dict[str, Packed] = {}
    faults = []
    for photo, first in known:
        before = labels.get(photo.sha256, first)
        if photo.label >= 0 and before.label >= 0 and photo.label != before.label:
            faults.append(f"    {photo.path}: {names[photo.label]}; {before.path}: {names[before.label]}")
        elif photo.label >= 0 and first.label < 0:
            labels[photo.sha256] = photo
    if faults:
        assert folder.earlier is not None
        more = f"\n    and {len(faults) - _LISTED:,} more" if len(faults) > _LISTED else ""
        raise DataError(
            f"{counted(len(faults), 'photo has', 'photos have')} another label than the same bytes have in "
            f"{folder.earlier.run}:\n" + "\n".join(faults[:_LISTED]) + f"{more}\n"
            "  If the run is right, take these photos out of the new ones. If it is wrong, correct its photo folder "
            "and run `potstill distill` on it: an update leaves the run's labels as they are."
        )
    return [
        replace(photo, label=labels[photo.sha256].label, split="train") if photo.sha256 in labels else photo
        for photo in old
    ]


def _in_splits(
    new: Sequence[Packed], old: Sequence[Packed], folder: Folder, config: ImagesConfig
) -> tuple[list[Packed], list[Packed]]:
    """Assign splits as for a run of its own, but for photos of groups that the run has: these follow their group, and
    are left out where they may not."""
    assert folder.earlier is not None
    drawn = drawn_splits(folder)
    groups = {photo.group: photo for photo in reversed(old) if photo.group}
    kept, related = [], []
    for photo in new:
        other = groups.get(photo.group)
        key, share = photo.group or photo.sha256, folder.earlier.test_share
        split = _beside(photo, other) if other else assigned_split(photo.split, key, drawn, config, share)
        if split:
            kept.append(replace(photo, split=split))
        else:
            reason = f"its group {photo.group} is in {other.split if other else ''} of the run"
            related.append(replace(photo, code="group_in_test", reason=reason))
    return kept, related


def _beside(photo: Packed, other: Packed) -> str:
    """The split of a photo whose group the run has; "" where it may be in none."""
    side = "train" if other.split == "unlabeled" else str(other.split)
    if photo.split == "unlabeled":
        return "unlabeled" if side == "train" else ""
    if photo.split in ("test", "val"):
        return side if side == photo.split else ""
    return "" if side == "test" else side


def _nothing_to_add(folder: Folder, left_out: Sequence[Packed]) -> str:
    assert folder.earlier is not None
    why = f", such as {left_out[0].path}: {left_out[0].reason}" if left_out else ""
    return f"There is nothing to add to {folder.earlier.run}: no photo is left{why}."


def added_lines(rejected: Sequence[Packed]) -> Iterator[str]:
    """What became of the added photos, as far as it should not go unnoticed: copies of test and val photos by name."""
    again = sum(photo.code == "in_run" for photo in rejected)
    if again:
        yield f"{counted(again, 'photo is', 'photos are')} in the run already, byte for byte"
    leaks = [photo for photo in rejected if photo.code == "in_test"]
    if leaks:
        named = "; ".join(f"{photo.path} {photo.reason}" for photo in leaks[:_LISTED])
        more = f"; and {len(leaks) - _LISTED:,} more" if len(leaks) > _LISTED else ""
        yield f"Left out, since they would make tests flattering: {named}{more}"
