"""Reads a photo folder: `{train,test,val,unlabeled}/CLASS/*`, or `CLASS/*`, which Potstill splits, and what people
have instead (`layout.py`).

Only names are read here; no file is opened. Every mistake that names can show is reported at once, before any long
work.
"""

import difflib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from potstill.config.schema import ClassesFrom
from potstill.data.splits import SPLITS, Split
from potstill.errors import DataError
from potstill.images.earlier import EarlierPhotos
from potstill.images.file_names import offer
from potstill.images.ignored import Unused
from potstill.images.layout import Layout, recognize
from potstill.images.stored import Stored
from potstill.images.tree import Tree, read_tree
from potstill.images.unused import unused_files

_FORBIDDEN = '/\\:*?"<>|'
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Control characters, bytes that are not UTF-8, and line ends that are not \\n: tables and lists cannot hold them."""
NONE_OF_THEM = "(none of them)"
"""Instead of the labels of a photo that shows none of the classes."""

_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{n}{i}" for n in ("COM", "LPT") for i in range(1, 10))}


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """One file that should be a photo."""

    path: Path
    """Of a photo inside of a large file: the path of that, and its name there."""
    split: Split | None
    """None in a flat folder: the split is decided by the photo's hash."""
    label: int
    """Index into `Folder.classes`; -1 for unlabeled photos."""
    group: str = ""
    """Photos of one group, such as one person's, are never on both sides of a split. Empty: the photo is its own."""
    inside: Stored | None = None
    """Where it is inside of a large file; None for a file of its own."""
    labels: tuple[int, ...] = ()
    """With several labels per photo: indices of all its classes, of which `label` is the first. A photo of none of the
    classes has no `labels`, and the number of classes as its `label`."""

    @property
    def source(self) -> Path | Stored:
        """What to read it from."""
        return self.inside or self.path


@dataclass(frozen=True, slots=True)
class Folder:
    """The photos of a folder by name, sorted: classes by name, files by split, class and path."""

    root: Path
    classes: tuple[str, ...]
    files: Sequence[PhotoFile]
    flat: bool
    """Whether no file has a split of its own; all are drawn by the photos' hashes then."""
    layout: str = ""
    """How the folder was understood, in a sentence for people; "" where there is nothing to tell."""
    unused: tuple[Unused, ...] = ()
    """What is in the folder and is not used."""
    notes: tuple[str, ...] = ()
    """What people should know about how the folder was read, one sentence each."""
    from_table: bool = False
    """Whether labels come from a table, so that names do not show them."""
    several_labels: bool = False
    """Whether a photo may have several labels."""
    earlier: EarlierPhotos | None = None
    """The run that the photos are added to; None where they make a run of their own."""

    def listed(self, file: PhotoFile) -> str:
        """The path of a file in the tables of a run. That of an added one begins with the folder's name."""
        return plain_name(file.path.relative_to(self.root.parent if self.earlier else self.root))

    def counts(self) -> Counter[tuple[Split | None, int]]:
        """Photos by split and label; one with several labels counts for each of them."""
        by_array = getattr(self.files, "counts", None)  # of millions of photos, which are not made to be counted
        return by_array() if by_array else Counter((f.split, label) for f in self.files for label in labels_of(f))

    def by_split(self) -> Counter[Split | None]:
        """Photos by split."""
        if self.several_labels:
            return Counter(file.split for file in self.files)
        found: Counter[Split | None] = Counter()
        for (split, _), number in self.counts().items():
            found[split] += number
        return found


class Labeled(Protocol):
    """A photo with the indices of its classes, as in `PhotoFile`."""

    @property
    def label(self) -> int: ...
    @property
    def labels(self) -> tuple[int, ...]: ...


def labels_of(photo: Labeled) -> tuple[int, ...]:
    """All labels of a photo: -1 for one without, the number of classes for one that shows none of them."""
    return photo.labels or (photo.label,)


def label_text(photo: Labeled, classes: Sequence[str]) -> str:
    """The labels of a photo in words, with | between them, which no name of a class has; "" for one without."""
    names = [*classes, NONE_OF_THEM] if photo.label == len(classes) else [*classes, ""]
    return "|".join(names[label] for label in labels_of(photo))


def read_folder(root: Path, *, classes: Sequence[str] = (), classes_from: ClassesFrom = "folders") -> Folder:
    """List the photos below `root`.

    Args:
        root: see docs/how-to/photo-folders.md: `root/{train,val,test}/CLASS/*` in any spelling, with photos of unknown
            class in `root/unlabeled/*`, or `root/CLASS/*`, perhaps in other folders.
        classes: take only these; all when empty.
        classes_from: what the classes are, see the setting `images.classes_from`.
    Raises:
        DataError: no such folder, one that can be read in several ways, fewer than two classes, an empty class, a class
            that train does not have, a class name that cannot be a folder on every system.
    """
    root = Path(root)
    tree = _tree(root)
    layout = recognize(tree, classes_from)
    names, twice = _selected_classes(tree, layout, classes)
    if not classes:
        _require_known_classes(layout, names)
    files = [file for split in layout.classes for file in _labeled_files(layout, split, names)]
    files += [PhotoFile(path, "unlabeled", -1) for path in sorted(layout.unlabeled)]
    left_out = {
        found.path: "classes that are not among those to use"
        for found_by_name in layout.classes.values()
        for name, found in found_by_name.items()
        if name not in names
    }
    return Folder(
        root=root,
        classes=tuple(names),
        files=tuple(files),
        flat=None in layout.classes,
        layout=layout.text,
        unused=unused_files(tree, {file.path for file in files}, {**left_out, **layout.not_used}),
        notes=(*layout.notes, *twice),
    )


def survey(root: Path, *, classes_from: ClassesFrom = "folders") -> tuple[Layout, tuple[Unused, ...]]:
    """What is in a folder that may be unfinished: its layout, classes without photos too, and what is not used.

    Raises:
        DataError: no such folder, one that can be read in several ways, or a class name that cannot be a folder on
            every system.
    """
    tree = _tree(Path(root))
    layout = recognize(tree, classes_from)
    for by_name in layout.classes.values():
        check_class_names(sorted(by_name))
    used = {path for by_name in layout.classes.values() for found in by_name.values() for path in found.photos}
    return layout, unused_files(tree, used | set(layout.unlabeled), layout.not_used)


def _tree(root: Path) -> Tree:
    if not root.is_dir():
        raise DataError(_no_such_folder(root))
    return read_tree(root)


def _selected_classes(tree: Tree, layout: Layout, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """The class names, or those wanted of them, sorted, and a note about names that were given twice.

    Raises:
        DataError: below two classes, and for bad names.
    """
    split: Split | None = None if None in layout.classes else "train"
    base, names = layout.places[split], sorted(layout.classes[split])
    if missing := [name for name in wanted if name not in names]:
        raise DataError(
            f"{base} has no class {_quoted(missing)}. It has: {', '.join(names) or 'none'}."
            + _did_you_mean(missing[0], names)
        )
    twice = sorted({name for name in wanted if list(wanted).count(name) > 1})
    if wanted:
        names = sorted(set(wanted))
    if len(names) < 2:
        raise DataError(_too_few_classes(tree, base, names))
    check_class_names(names)
    return names, [f"{_quoted(twice)} was named twice; it is one class."] if twice else []


def _too_few_classes(tree: Tree, base: Path, names: Sequence[str]) -> str:
    found = f"{base} has only one class ({names[0]})" if names else f"{base} has no class folders with photos"
    text = f"{found}; a classifier needs at least 2 classes."
    return text + offer(list(tree.all_photos())) + f"\n{make_class_folders(tree.path)}"


def _require_known_classes(layout: Layout, names: Sequence[str]) -> None:
    """Raise DataError where test or val has a class that train does not have."""
    for split in ("test", "val"):
        found = layout.classes.get(split, {})
        if unknown := sorted(name for name in found if found[name].photos and name not in names):
            check_class_names(unknown)
            base, train = layout.places[split], layout.places["train"]
            raise DataError(
                f"{base} has the class {_quoted(unknown)}, but {train} does not, so no model can learn it."
                + _did_you_mean(unknown[0], names)
                + f"\n  Add photos to {train}/{unknown[0]}/, or remove {found[unknown[0]].path}/."
            )


def _labeled_files(layout: Layout, split: Split | None, names: Sequence[str]) -> Iterator[PhotoFile]:
    """The photos of one split, class by class. Raises DataError for a class without photos to train on."""
    for label, name in enumerate(names):
        found = layout.classes[split].get(name)
        if split in (None, "train") and (found is None or not found.photos):
            where = found.path if found else layout.places[split] / name
            raise DataError(f"The class folder {where} is empty. Add photos, or remove the folder.")
        yield from (PhotoFile(path, split, label) for path in sorted(found.photos if found else ()))


def check_class_name(name: str) -> None:
    """Raise DataError for a class name that cannot be a folder name on every system."""
    reason = None
    if not name or name in (".", ".."):
        reason = "is empty or consists of dots"
    elif bad := sorted({c for c in name if c in _FORBIDDEN or unicodedata.category(c) in _UNPRINTABLE}):
        reason = f"contains {' '.join(repr(c) for c in bad)}"
    elif name != unicodedata.normalize("NFC", name):
        reason = "is not in Unicode NFC form (its accents are separate characters)"
    elif name.startswith("-"):
        reason = "begins with '-', which commands would read as an option"
    elif name.startswith("."):
        reason = "begins with '.', which hides the folder"
    elif name != name.strip() or name.endswith("."):
        reason = "begins or ends with a space or a dot"
    elif len(name.encode()) > 100:
        reason = "is longer than 100 bytes"
    elif name.upper().split(".")[0] in _RESERVED:
        reason = "is a reserved name on Windows"
    elif name.lower() in SPLITS:
        reason = "is the name of a split"
    if reason:
        raise DataError(f"The class name {name!r} {reason}. Rename it.")


def check_class_names(names: Sequence[str]) -> None:
    """`check_class_name` for all, and no two that are one folder on some file systems."""
    for name in names:
        check_class_name(name)
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise DataError(f"The class names {other!r} and {name!r} are the same folder on some systems. Rename one.")


def plain_name(path: Path | str) -> str:
    """A path as UTF-8 text. On Linux a name can hold other bytes, which no table could: they are written as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _no_such_folder(root: Path) -> str:
    text = f"There is no folder {root}."
    if root.exists():
        text = f"{root} is a file, not a folder of photos."
    elif root.parent.is_dir() and (
        near := difflib.get_close_matches(root.name, [p.name for p in root.parent.iterdir() if p.is_dir()])
    ):
        text += f" Did you mean {root.parent / near[0]}?"
    return text + (
        "\n  A photo folder looks like FOLDER/train/CLASS/*.jpg and FOLDER/test/CLASS/*.jpg, or FOLDER/CLASS/*.jpg."
        f"\n  `potstill init cat dog --into {root}` makes the empty folders; `potstill get` fills them."
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def make_class_folders(root: Path) -> str:
    """What to do with a folder that has no classes; `make_folders` makes more than one folder per class."""
    return (
        f"  Make a folder for each class in it, such as {root}/cat and {root}/dog, and put the photos there.\n"
        f"  With a test set of your own: `potstill init cat dog --into {root}` makes train/CLASS and test/CLASS."
    )


def make_folders(root: Path, classes: Sequence[str]) -> list[Path]:
    """Make `root/{train,test}/CLASS` for every class. Existing folders stay as they are.

    Raises:
        DataError: fewer than two classes, or a name that cannot be a folder on every system.
    """
    if len(classes) < 2:
        raise DataError("Name at least 2 classes: `potstill init cat dog --into data`.")
    check_class_names(classes)
    paths = [Path(root) / split / name for split in ("train", "test") for name in classes]
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    return paths


def list_photos(
    root: Path, *, classes_from: ClassesFrom = "folders"
) -> Iterator[tuple[Split | None, str, Path | None]]:
    """(split, class, file) of everything that `read_folder` would list, also in unfinished folders.

    An empty class folder gives one triple without a file; unlabeled photos have the class "".
    """
    layout = recognize(_tree(Path(root)), classes_from)
    for split, by_name in layout.classes.items():
        check_class_names(sorted(by_name))
        for name in sorted(by_name):
            yield split, name, None
            for path in sorted(by_name[name].photos):
                yield split, name, path
    for path in sorted(layout.unlabeled):
        yield "unlabeled", "", path
