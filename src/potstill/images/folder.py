"""Reads the layout of a photo folder: `{train,test,val,unlabeled}/CLASS/*`, or `CLASS/*`, which Potstill splits.

Only names are read here; no file is opened. Every mistake that names can show is reported at once, before any long
work.
"""

import difflib
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.data.splits import LABELED, SPLITS, Split
from potstill.errors import DataError
from potstill.images.ignored import Unused

_FORBIDDEN = '/\\:*?"<>|'
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Control characters, bytes that are not UTF-8, and line ends that are not \\n: tables and lists cannot hold them."""
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{n}{i}" for n in ("COM", "LPT") for i in range(1, 10))}


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """One file that should be a photo."""

    path: Path
    split: Split | None
    """None in a flat folder: the split is decided by the photo's hash."""
    label: int
    """Index into `Folder.classes`; -1 for unlabeled photos."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The photos of a folder by name, sorted: classes by name, files by split, class and path."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[PhotoFile, ...]
    flat: bool
    """Whether no file has a split of its own; all are drawn by the photos' hashes then."""
    layout: str = ""
    """How the folder was understood, in a sentence for people; "" where there is nothing to tell."""
    unused: tuple[Unused, ...] = ()
    """What is in the folder and is not used."""
    notes: tuple[str, ...] = ()
    """What people should know about how the folder was read, one sentence each."""


def read_folder(root: Path, *, classes: Sequence[str] = ()) -> Folder:
    """List the photos below `root`.

    Args:
        root: `root/{train,test}/CLASS/*` (also `val`, and `unlabeled/*` without classes), or `root/CLASS/*`.
        classes: take only these; all when empty.
    Raises:
        DataError: no such folder, fewer than two classes, an empty class, a class that train does not have,
            a class name that cannot be a folder on every system.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(_no_such_folder(root))
    flat = _is_flat(root)
    names = _selected_classes(root if flat else root / "train", classes, flat=flat)
    splits: Sequence[Split | None] = (None,) if flat else LABELED
    if not flat and not classes:
        _require_known_classes(root, names)
    files = [file for split in splits for file in _labeled_files(root, split, names)]
    if not flat:
        files += [PhotoFile(path, "unlabeled", -1) for path in _photos(root / "unlabeled")]
    return Folder(root, tuple(names), tuple(files), flat)


def _is_flat(root: Path) -> bool:
    """Whether the class folders lie in `root` itself. Raises DataError for test or val without train."""
    flat = not (root / "train").is_dir()
    if flat and any((root / split).is_dir() for split in ("test", "val")):
        raise DataError(
            f"{root} has a test or val folder but no train folder.\n"
            f"  Put the training photos in {root}/train/CLASS/, or remove the other folder and let Potstill split."
        )
    return flat


def _selected_classes(base: Path, wanted: Sequence[str], *, flat: bool) -> list[str]:
    """The class folders in `base`, or those wanted of them, sorted. Raises DataError below two and for bad names."""
    names = _class_names(base, flat=flat)
    if missing := [name for name in wanted if name not in names]:
        raise DataError(
            f"{base} has no class {_quoted(missing)}. It has: {', '.join(names) or 'none'}."
            + _did_you_mean(missing[0], names)
        )
    if wanted:
        names = sorted(wanted)
    if len(names) < 2:
        root = base if flat else base.parent
        raise DataError(
            f"{base} has {len(names)} class{'es' if len(names) != 1 else f' ({names[0]})'}; a classifier needs at "
            f"least 2.\n  Make one folder per class: `potstill init cat dog --into {root}`."
        )
    for name in names:
        check_class_name(name)
    return names


def _require_known_classes(root: Path, names: Sequence[str]) -> None:
    """Raise DataError where test or val has a class that train does not have."""
    for split in ("test", "val"):
        base = root / split
        if unknown := [name for name in _class_names(base) if name not in names]:
            raise DataError(
                f"{base} has the class {_quoted(unknown)}, but {root}/train does not, so no model can learn it."
                + _did_you_mean(unknown[0], names)
                + f"\n  Add photos to {root}/train/{unknown[0]}/, or remove {base / unknown[0]}/."
            )


def _labeled_files(root: Path, split: Split | None, names: Sequence[str]) -> Iterator[PhotoFile]:
    """The photos of one split, class by class. Raises DataError for a class without photos to train on."""
    base = root if split is None else root / split
    for label, name in enumerate(names):
        found = [PhotoFile(path, split, label) for path in _photos(base / name)]
        if not found and split in (None, "train"):
            raise DataError(f"The class folder {base / name} is empty. Add photos, or remove the folder.")
        yield from found


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


def _class_names(base: Path, *, flat: bool = False) -> list[str]:
    if not base.is_dir():
        return []
    skip = {"unlabeled"} if flat else set()
    names = sorted(
        entry.name
        for entry in base.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in skip
    )
    check_class_names(names)
    return names


def _photos(folder: Path) -> Iterator[Path]:
    """Every visible file below, sorted, whatever its name: what is not a photo is rejected later, with a reason."""
    if not folder.is_dir():
        return
    yield from sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


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


def list_photos(root: Path) -> Iterator[tuple[Split | None, str, Path | None]]:
    """(split, class, file) of everything that `read_folder` would list, also in unfinished folders.

    An empty class folder gives one triple without a file; unlabeled photos have the class "".
    """
    flat = not any((root / split).is_dir() for split in LABELED)
    for split in (None,) if flat else LABELED:
        base = root if split is None else root / split
        for name in _class_names(base, flat=flat):
            yield split, name, None
            for path in _photos(base / name):
                yield split, name, path
    for path in _photos(root / "unlabeled"):
        yield "unlabeled", "", path
