"""Finds the classes in one folder: the folders in it, the innermost folders, or the names of the files.

What nesting leaves open is refused, with the ways in which it could be read: a class too few, or splits that are
trained as classes, would only be noticed in the results, if at all.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.config.schema import ClassesFrom
from potstill.errors import DataError
from potstill.images.file_names import OPTION, by_name, offer
from potstill.images.ignored import is_system_folder
from potstill.images.split_names import is_plain_name
from potstill.images.tree import Tree
from potstill.wording import counted

_BESIDE_GROUPS = {"labels", "label", "masks", "mask", "annotations", "annotation", "bboxes", "boxes", "thumbnails"}
"""Names of folders that lie beside groups of classes and are no class themselves."""

_SERIAL = (
    "dcim batch part session day week month page scene video clip seq sequence subject patient person camera cam run "
    "roll take apple canon nikon group copy number no nr id frames frame"
)
"""Words in the names of folders that only number photos."""


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """The photos of one class in one split."""

    path: Path
    photos: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the classes are."""

    by: ClassesFrom
    note: str = ""
    """For people: what was decided, where that is not obvious."""
    skipped: Mapping[Path, str] | None = None
    """Folders that are no classes, and why."""


def decide(folder: Tree) -> Decision:
    """Whether the classes are the folders in `folder` ("top"), or the innermost ones ("deepest").

    Raises:
        DataError: photos but no folders, or folders that can be read in both ways.
    """
    folder = unwrapped(folder)
    if folder.photos and not folder.filled:
        raise DataError(_loose(folder))
    flat = [inner for inner in folder.filled if inner.photos]
    nested = [inner for inner in folder.filled if not inner.photos]
    skipped = {}
    if len(nested) > 1 and all(inner.name.lower() in _BESIDE_GROUPS for inner in flat):
        skipped = {inner.path: "no class by its name, beside folders of class folders" for inner in flat}
        flat = []
    if not nested or len(folder.filled) == 1:
        _require_photos_outside_repeated(folder, flat)
        return Decision("top")
    if all(_is_one_class(inner) or (flat and _only_number(inner.filled)) for inner in nested):
        return Decision("top", skipped=skipped)
    _require_no_repetition(folder, nested)
    leaves = [leaf for inner in nested for leaf in _innermost(inner) if leaf.total]
    if flat or _only_number(leaves) or all(len(inner.filled) == 1 for inner in nested):
        raise DataError(_two_readings(folder, [*flat, *nested], [*flat, *leaves]))
    return Decision(
        "deepest",
        f"The classes are the innermost folders: {listed(leaves)}. {OPTION} top takes {listed(nested)} instead.",
        skipped,
    )


def collect(folder: Tree, decision: Decision) -> dict[str, ClassFolder]:
    """The classes in a folder by name, also those that have no photos yet. The same name twice is one class."""
    if decision.by == "names":
        return {name: ClassFolder(folder.path, photos) for name, photos in by_name(folder.all_photos()).items()}
    folder, skipped = unwrapped(folder), decision.skipped or {}
    found: dict[str, ClassFolder] = {}
    folders = [inner for inner in folder.folders if inner.path not in skipped]
    if decision.by == "deepest":
        folders = [leaf for outer in folders for leaf in _innermost(outer)]
    for inner in folders:
        if not inner.total and inner.files:
            continue  # texts, annotations …
        before = found[inner.name].photos if inner.name in found else ()
        found[inner.name] = ClassFolder(inner.path, (*before, *inner.all_photos()))
    return found


def unwrapped(folder: Tree) -> Tree:
    """The folder, or the one in it that holds all class folders: train/train/CLASS, train/images/CLASS."""
    while inner := only_folder(folder):
        folder = inner
    return folder


def only_folder(folder: Tree) -> Tree | None:
    """The one folder with photos in `folder`, where it holds class folders and `folder` merely wraps it."""
    is_wrapper = len(folder.filled) == 1 and len(folder.photos) * 10 < folder.total
    if not is_wrapper or any(not inner.files for inner in folder.folders):
        return None
    (inner,) = folder.filled
    is_class = len(inner.photos) * 10 >= inner.total or _is_one_class(inner) or _are_parts(inner.filled)
    return None if is_class else inner


def _is_one_class(folder: Tree) -> bool:
    """Whether all photos of a folder lie in one folder in it, whose name adds nothing: cat/images, cat/cat."""
    if folder.photos or len(folder.filled) != 1:
        return False
    (inner,) = folder.filled
    adds_nothing = is_plain_name(inner.name) or folder.name.casefold() in inner.name.casefold()
    return adds_nothing and (bool(inner.photos) or _is_one_class(inner))


def _only_number(folders: Sequence[Tree]) -> bool:
    """Whether the names of all folders may only number them: 7, a, 2021-03-04, part2."""
    return all(all(len(word) == 1 or _says_nothing(word) for word in _words(folder.name)) for folder in folders)


def _are_parts(folders: Sequence[Tree]) -> bool:
    """Whether the names of all folders say that they are parts or days: part2, 2021-03-04, but not 7, which may be a
    class."""
    return all(
        all(_says_nothing(word) for word in _words(folder.name))
        and bool(_words(folder.name) or re.search(r"\d{4}|\d\D+\d", folder.name))
        for folder in folders
    )


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.casefold())


def _says_nothing(word: str) -> bool:
    return word in _SERIAL.split() or is_plain_name(word)


def _innermost(folder: Tree) -> Iterator[Tree]:
    """The folders that hold photos themselves, and empty ones."""
    if folder.photos or _is_one_class(folder) or not folder.folders:
        yield folder
    else:
        for inner in folder.folders:
            yield from _innermost(inner)


def _repeated(folders: Sequence[Tree]) -> list[str]:
    """Names of the folders that hold photos which occur in several of `folders`, in any case."""
    seen: dict[str, str] = {}
    found: set[str] = set()
    for folder in folders:
        inside = {
            leaf.name.casefold(): leaf.name for inner in folder.filled for leaf in _innermost(inner) if leaf.total
        }
        found |= {name for key, name in inside.items() if key in seen}
        seen |= inside
    return sorted(found)


def _require_no_repetition(folder: Tree, nested: Sequence[Tree]) -> None:
    if names := _repeated(nested):
        raise DataError(_same_inside(folder, nested, names))


def _require_photos_outside_repeated(folder: Tree, flat: Sequence[Tree]) -> None:
    """Refuse class folders whose photos lie mostly in folders of the same names: a stray file makes no class."""
    inside = {frozenset(inner.name.casefold() for inner in one.filled) for one in flat}
    same = len(flat) > 1 and len(inside) == 1 and len(next(iter(inside))) > 1
    if same and all(2 * len(one.photos) < one.total for one in flat):
        raise DataError(_same_inside(folder, flat, _repeated(flat)))


def _same_inside(folder: Tree, outer: Sequence[Tree], names: Sequence[str]) -> str:
    return (
        f"The folders {listed(outer)} in {folder.path} hold folders of the same names: {shown(names)}.\n"
        f"  If {listed(outer)} are splits: rename them to train, val and test.\n"
        f"  If {listed(outer)} are the classes: add {OPTION} top.\n"
        f"  If {shown(names)} are the classes, wherever they lie: add {OPTION} deepest."
    )


def _two_readings(folder: Tree, top: Sequence[Tree], leaves: Sequence[Tree]) -> str:
    return (
        f"{folder.path} can be read in two ways:\n"
        f"  {len(top)} classes, the folders in it: {listed(top)}. If so, add {OPTION} top.\n"
        f"  {len(leaves)} classes, the innermost folders: {listed(leaves)}. If so, add {OPTION} deepest.\n"
        "  Folders that are neither: move them somewhere else."
    )


def _loose(folder: Tree) -> str:
    parent = folder.path.resolve().parent
    beside = sorted(parent.iterdir()) if os.access(parent, os.R_OK) else []
    classes = [entry.name for entry in beside if entry.is_dir() and not is_system_folder(entry.name)]
    above = f"\n  If it is one class of several ({shown(classes)}), name the folder above it: {folder.path.parent}."
    return (
        f"{folder.path} has {counted(len(folder.photos), 'photo')}, but no class folders."
        f"{above if len(classes) > 1 else ''}"
        f"{offer(folder.photos)}"
        f"\n  Otherwise make one folder per class and move the photos there: {folder.path}/CLASS/*.jpg."
    )


def listed(folders: Iterable[Tree]) -> str:
    """The names of folders for a message."""
    return shown([folder.name for folder in folders])


def shown(names: Sequence[str], most: int = 6) -> str:
    """Names for a message, the first of many."""
    return ", ".join(names[:most]) + (f" … ({len(names):,} in all)" if len(names) > most else "")
