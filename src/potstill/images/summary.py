"""How a folder of photos was understood, in plain words: printed by `count` and `distill`."""

from collections import Counter
from collections.abc import Mapping, Sequence

from potstill.config.schema import ImagesConfig
from potstill.data.splits import SPLITS, Split
from potstill.images.class_folders import shown
from potstill.images.earlier import EarlierPhotos
from potstill.images.folder import NONE_OF_THEM, Folder
from potstill.images.ignored import OTHER, Unused
from potstill.images.selection import drawn_splits
from potstill.wording import counted, from_here

FEW = 20
"""Photos per class below which a word is said."""

UNEVEN = 4
"""A class that has so many times fewer photos in a split than its share of train would give it is named."""


def folder_lines(folder: Folder, config: ImagesConfig) -> list[str]:
    """Layout, classes, photos per split, and what is not used."""
    counts = folder.by_split()
    if folder.earlier:
        return _added_lines(folder, config, folder.earlier)
    parts = [f"{counts[split]:,} {split}" for split in SPLITS if counts[split]]
    if counts[None]:
        parts.insert(0, f"{counts[None]:,}")
    splits = ", ".join(parts)
    if drawn := drawn_text(counts, config):
        which = "these" if counts[None] else "those to train on"
        splits += f"; of {which}, {drawn}"
    lines = [
        *layout_lines(folder.layout, folder.notes),
        f"Classes: {len(folder.classes)} ({shown(folder.classes, 10)})",
        f"Photos by split: {splits}",
    ]
    if config.per_class:
        rest = {"unlabeled": "the others without their labels", "out": "the others are left out"}[config.rest]
        lines.append(f"Labels: those of {config.per_class:,} photos to train on per class; {rest} (--images.per-class)")
    lines += uneven_lines(by_split(folder))
    return lines + few_lines(folder, config) + unused_lines(folder.unused)


def drawn_text(photos: Mapping[Split | None, int], config: ImagesConfig) -> str:
    """What is drawn for the splits that have no photos, and the settings of it; "" where none is.

    Args:
        photos: how many there are by split; those that have none are under None.
    """
    drawn = [split for split in ("test", "val") if not photos.get(split)]
    if not drawn or not (photos.get(None) or photos.get("train")):
        return ""
    shares = {"test": f"{config.test_share:.0%} are drawn for test", "val": f"{config.val_share:.0%} are drawn for val"}
    if len(drawn) == 2:
        shares["val"] = f"then {config.val_share:.0%} of the rest for val"
    flags = " and ".join(f"--images.{split}-share" for split in drawn)
    return f"{', '.join(shares[split] for split in drawn)} ({flags})"


def _added_lines(folder: Folder, config: ImagesConfig, earlier: EarlierPhotos) -> list[str]:
    """The same of photos that are added to a run."""
    counts, given = Counter(file.split for file in folder.files), {file.split for file in folder.files}
    drawn = [f"{config.val_share:.0%} for val"] if "val" not in given else []
    drawn += [f"{earlier.test_share:.0%} for test"] if "test" not in given and earlier.test_share else []
    parts = [f"{counts[split]:,} {split or 'labeled'}" for split in (None, *SPLITS) if counts[split]]
    shares = f"; {' and '.join(drawn)} drawn from those with labels" if drawn and counts.keys() - {"unlabeled"} else ""
    before = ", ".join(f"{number:,} {split}" for split, number in earlier.counts.items() if number)
    return [
        *(f"Note: {note}" for note in folder.notes),
        f"Classes: {len(folder.classes)} ({shown(folder.classes, 10)})",
        f"Photos of {from_here(earlier.run)}, kept as they are: {before}",
        f"Photos to add, except any that the run already has: {', '.join(parts)}{shares}",
    ]


def by_split(folder: Folder) -> dict[str, dict[str, int]]:
    """Photos per split and class of a folder; one with several labels counts for each of them. The split "" is that of
    a flat folder, the class "" that of photos without a label."""
    names = [*folder.classes, NONE_OF_THEM, ""]  # label -1 is the empty name
    found: Counter[tuple[str, str]] = Counter()
    for (split, label), number in folder.counts().items():
        found[str(split or ""), names[label]] += number
    return {
        split: {name: found[split, name] for name in sorted(names) if (split, name) in found}
        for split in ("", *SPLITS)
        if any(key[0] == split for key in found)
    }


def uneven_lines(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A word about each given split that has far too few photos of a class.

    Args:
        counts: photos by split and class.
    """
    lines, train = [], counts.get("train", {})
    for split in ("test", "val"):
        found = {name: counts[split].get(name, 0) for name in train if name} if split in counts else {}
        if not found or not sum(found.values()):
            continue
        share = sum(found.values()) / max(sum(train[name] for name in found), 1)
        name = min(found, key=lambda name: (found[name] + 1) / (share * train[name] + 1))
        expected = round(share * train[name])
        if UNEVEN * max(found[name], 1) <= expected:
            lines.append(
                f"Uneven split: {name!r} has {counted(found[name], 'photo')} in {split}; by its share of train it "
                f"would be {expected:,}. What is measured for it is uncertain: move some from train to {split}."
            )
    return lines


def layout_lines(text: str, notes: Sequence[str]) -> list[str]:
    """How the folder was read, and how to have it read in another way."""
    how = " (to change it: --images.classes-from, or rename folders)"
    return ([f"Folder: {text}{how}"] if text else []) + [f"Note: {note}" for note in notes]


def unused_lines(unused: Sequence[Unused]) -> list[str]:
    """What is in the folder and is not used; no line where all of it is."""
    if not unused:
        return []
    return ["Not used: " + "; ".join(_group(group) for group in unused)]


def _group(group: Unused) -> str:
    count = counted(group.files, "file")
    if group.why == OTHER:
        return f"{counted(group.files, 'other file')} ({group.name})"
    return f"{group.name} ({count}: {group.why})" if group.files else f"{group.name} ({group.why})"


def few_lines(folder: Folder, config: ImagesConfig) -> list[str]:
    """A word about the class with the fewest photos, where these are very few."""
    drawn = drawn_splits(folder)
    counts: Counter[int] = Counter()
    for (split, label), number in folder.counts().items():
        counts[label] += number if split in (None, "train") else 0
    label = min(range(len(folder.classes)), key=lambda label: counts[label])
    total = counts[label]
    if not drawn or total >= FEW:
        return []
    test = max(1, round(total * config.test_share)) if "test" in drawn else 0
    val = max(1, round((total - test) * config.val_share)) if "val" in drawn else 0
    taken = " and ".join(f"{number} for {split}" for split, number in (("test", test), ("val", val)) if number)
    share = "val" if val else "test"
    return [
        f"Few photos: {folder.classes[label]!r} has {total}, of which about {taken}. {len(drawn) + 1} are needed, "
        f"{FEW} and more make the numbers meaningful; --images.{share}-share 0.3 sets more of them aside."
    ]
