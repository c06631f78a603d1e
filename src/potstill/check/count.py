"""`potstill count`: how many files there are per split and class; none is opened."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from potstill.check.quarantine import Quarantine
from potstill.config.schema import ImagesConfig
from potstill.data.splits import SPLITS, Split
from potstill.errors import DataError
from potstill.images.folder import Folder, make_class_folders, survey
from potstill.images.ignored import Unused
from potstill.images.source import find_source, open_photos, read_source
from potstill.images.summary import by_split, drawn_text, layout_lines, uneven_lines, unused_lines

_SPLIT_OF: dict[str, Split] = {split: split for split in SPLITS}
"""Every split by its name; that of a flat folder has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Photos by split and class. The split "" is that of a flat folder."""

    root: Path
    by_split: dict[str, dict[str, int]]
    photos: dict[str, int] = field(default_factory=dict)
    """By split, where a photo may have several labels and counts for each of its classes."""
    quarantine: dict[str, int]
    """Photos in quarantine by reason."""
    layout: str = ""
    """How the folder was understood, for people."""
    notes: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()
    """What is in the folder and is not used."""
    images: ImagesConfig = field(default_factory=ImagesConfig)
    """The settings that it was read with."""

    @property
    def classes(self) -> list[str]:
        """Every class of any split, by name; "" holds unlabeled photos."""
        return sorted({label for counts in self.by_split.values() for label in counts})

    def total(self, split: str) -> int:
        return self.photos.get(split) or sum(self.by_split[split].values())

    def imbalance(self, split: str) -> float | None:
        """Size of the largest class over that of the smallest; None with fewer than two classes, or an empty one."""
        counts = [count for label, count in self.by_split[split].items() if label]
        return max(counts) / min(counts) if len(counts) > 1 and min(counts) else None

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "splits": self.by_split,
            "totals": {split: self.total(split) for split in self.by_split},
            "imbalance": {split: self.imbalance(split) for split in self.by_split},
            "quarantine": self.quarantine,
            "layout": self.layout,
            "notes": list(self.notes),
            "unused": [asdict(group) for group in self.unused],
        }

    def lines(self) -> list[str]:
        """What to say beside the numbers."""
        return [
            *layout_lines(self.layout, self.notes),
            *self._drawn(),
            *uneven_lines(self.by_split),
            *self._advice(),
            *unused_lines(self.unused),
        ]

    def next_lines(self, words: str, *, checkable: bool) -> list[str]:
        """What to type next; nothing where there is nothing to train on yet.

        Args:
            words: of the command that counted: the photos, and the options that say how to read them.
            checkable: whether `potstill check` takes such photos, which needs a folder.
        """
        if not self.can_be_trained_on:
            return []
        commands = [(f"potstill distill {words} --dry-run", "the plan, and how long it takes")]
        if checkable:
            commands.insert(0, (f"potstill check {words} --dry-run", "open every photo, which count does not"))
        width = max(len(command) for command, _ in commands)
        return ["", "Next:", *(f"  {command:{width}}   # {what}" for command, what in commands)]

    def _drawn(self) -> list[str]:
        """Which splits `distill` would draw."""
        drawn = drawn_text({_SPLIT_OF.get(split): self.total(split) for split in self.by_split}, self.images)
        return [f"When you distill, {drawn}."] if drawn and self.can_be_trained_on else []

    def _advice(self) -> list[str]:
        """What to do where nothing can be trained yet."""
        names = [name for name in self.classes if name]
        if len(names) > 1:
            empty = not any(self.total(split) for split in self.by_split)
            return ["No photos yet: put them into the class folders, then count again."] if empty else []
        return [
            f"One class only: {', '.join(names) or 'none'}. A classifier needs at least 2; make "
            "another class folder beside it."
        ]

    @property
    def can_be_trained_on(self) -> bool:
        """Whether two classes have photos to train on."""
        own = {**self.by_split.get("", {}), **self.by_split.get("train", {})}
        return sum(bool(number) for name, number in own.items() if name) > 1


def count(root: Path, images: ImagesConfig | None = None) -> Counts:
    """Count the photos of a folder, also of an unfinished one, of a table or of an archive.

    Args:
        images: where labels come from.
    Raises:
        ConfigError, DataError: as `open_photos` does, but a class may lack photos.
    """
    images = images or ImagesConfig()
    source = find_source(Path(root), images)
    if source.tables or source.containers:
        return _counts_of(read_source(source, images), images)
    root = source.root
    layout, unused = survey(root, classes_from=images.classes_from)
    found = {
        split or "": {name: len(by_name[name].photos) for name in sorted(by_name)}
        for split, by_name in layout.classes.items()
    }
    if layout.unlabeled:
        found["unlabeled"] = {"": len(layout.unlabeled)}
    if not any(found.values()):
        raise DataError(f"{root} has no class folders with photos.\n{make_class_folders(root)}")
    return Counts(
        root=root,
        by_split={split: found[split] for split in ("", *SPLITS) if split in found},
        quarantine=Quarantine(root).counts(),
        layout=layout.text,
        notes=(*source.notes, *layout.notes),
        unused=unused,
        images=images,
    )


def photo_paths(root: Path, images: ImagesConfig | None = None) -> list[str]:
    """The paths of all photos, from the photo folder on, sorted.

    Raises:
        ConfigError, DataError: as `open_photos` does.
    """
    folder = open_photos(Path(root), images or ImagesConfig())
    return sorted(folder.listed(file) for file in folder.files)


def _counts_of(folder: Folder, images: ImagesConfig) -> Counts:
    """Of photos whose labels are in a table: those without a row are not counted."""
    totals = Counter(str(file.split or "") for file in folder.files) if folder.several_labels else {}
    return Counts(
        root=folder.root,
        by_split=by_split(folder),
        photos=dict(totals),
        quarantine=Quarantine(folder.root).counts(),
        notes=folder.notes,
        unused=folder.unused,
        images=images,
    )
