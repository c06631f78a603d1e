"""Recognizes how a folder of photos is organized: which of its folders are splits, and where the classes are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from potstill.config.schema import ClassesFrom
from potstill.data.splits import LABELED, Split
from potstill.errors import DataError
from potstill.images.class_folders import ClassFolder, Decision, collect, decide, listed, only_folder
from potstill.images.file_names import OPTION
from potstill.images.split_names import find_splits
from potstill.images.tree import Tree
from potstill.wording import counted

_BY: dict[ClassesFrom, str] = {
    "top": "one folder per class",
    "deepest": "one folder per class, in groups",
    "names": "classes by the names of the files",
}

NO_WORD = "no class at the beginning of the name"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a folder is organized."""

    classes: Mapping[Split | None, Mapping[str, ClassFolder]]
    """By split and class name. The split None is that of a folder without split folders."""
    places: Mapping[Split | None, Path]
    """The folders of the splits."""
    unlabeled: tuple[Path, ...]
    text: str
    """For people."""
    notes: tuple[str, ...]
    not_used: Mapping[Path, str]
    """Folders that are not used for a reason."""


def recognize(tree: Tree, classes_from: ClassesFrom = "folders") -> Layout:
    """How a folder is organized, by names alone. Classes may be missing or empty.

    Raises:
        DataError: the folder can be read in several ways, or in none.
    """
    base = _base(tree)
    if splits := _splits(base, classes_from):
        layout = _with_splits(base, splits, classes_from)
    elif inside := _splits_in_classes(base, classes_from):
        layout = _class_first(base, inside)
    else:
        layout = _without_splits(base, classes_from)
    if base is tree:
        return layout
    return replace(layout, text=f"in {base.path.relative_to(tree.path).as_posix()}/: {layout.text}")


def _named(tree: Tree) -> dict[str, Split]:
    """The folders in a folder that are named after a split."""
    return find_splits([folder.name for folder in tree.folders])


def _base(tree: Tree) -> Tree:
    """The folder in which splits or classes lie: `tree`, or one in it that everything else merely surrounds."""
    while "train" not in _named(tree).values():
        holders = [folder for folder in tree.filled if _holds_splits(folder)]
        if len(holders) > 1:
            raise DataError(
                f"{tree.path} holds several folders with splits and classes of their own: {listed(holders)}.\n"
                f"  Give one of them, such as {holders[0].path}, or put their photos together in train/CLASS and "
                "test/CLASS."
            )
        inner = holders[0] if holders else None if _named(tree) else only_folder(tree)
        if inner is None:
            break
        tree = inner
    return tree


def _holds_splits(tree: Tree) -> bool:
    """Whether there is a train folder with class folders in it, or in one of the folders in it."""
    named = _named(tree)
    return any(named.get(inner.name) == "train" and inner.filled for inner in tree.folders) or any(
        _holds_splits(inner) for inner in tree.filled
    )


def _splits(base: Tree, classes_from: ClassesFrom) -> dict[Split, Tree]:
    """The folders of the splits in `base`; none where all its folders are classes.

    Raises:
        DataError: two folders for one split, none for train, or a train folder without classes among class folders.
    """
    named = _named(base)
    found: dict[Split, Tree] = {}
    for folder in sorted((f for f in base.folders if f.name in named), key=lambda folder: not folder.total):
        other = found.setdefault(named[folder.name], folder)
        if other is not folder and folder.total:
            raise DataError(
                f"{base.path} has two folders for {named[folder.name]}: {other.name}/ and {folder.name}/.\n"
                f"  Put their photos together in one of them, or move the other one out of {base.path}."
            )
    beside = [folder for folder in base.filled if folder.name not in named]
    labeled = [found[split] for split in LABELED if split in found]
    if not labeled or ("train" not in found and classes_from == "top"):
        return {}
    if "train" not in found:
        if beside and not any(folder.total for folder in labeled):
            return {}  # split folders that are still empty, beside classes
        raise DataError(_no_train(base, labeled))
    train = found["train"]
    if beside and not train.filled and classes_from == "folders" and (len(labeled) == 1 or not train.total):
        raise DataError(_train_among_classes(base, train, beside))
    return found


def _no_train(base: Tree, labeled: Sequence[Tree]) -> str:
    name = labeled[0].name
    return (
        f"{base.path} has a test or val folder ({listed(labeled)}) but no train folder.\n"
        f"  Put the training photos in {base.path}/train/CLASS/, or move this folder away and let Potstill split.\n"
        f"  If {name} is a class: rename it, or add {OPTION} top, which takes all folders for classes."
    )


def _train_among_classes(base: Tree, train: Tree, beside: Sequence[Tree]) -> str:
    what = "no class folders" if train.total else "no photos"
    return (
        f"{base.path} has a folder {train.name}/ with {what} in it beside the folders {listed(beside)}.\n"
        f"  If {train.name} is a class: rename it, for example to {train.name}_class; a class cannot have the name of "
        f"a split.\n"
        f"  If it is the folder of the training photos: move the class folders into it, or remove it and let Potstill "
        "split."
    )


def _with_splits(base: Tree, splits: Mapping[Split, Tree], classes_from: ClassesFrom) -> Layout:
    """train/CLASS, test/CLASS and so on."""
    decision = decide(splits["train"]) if classes_from == "folders" else Decision(classes_from)
    notes = [decision.note] if decision.note else []
    not_used = {folder.path: "beside the split folders, and none itself" for folder in base.folders}
    not_used |= decision.skipped or {}
    used: dict[Split, Tree] = {}
    for split, folder in splits.items():
        has_classes = split in ("train", "unlabeled") or decision.by == "names" or not folder.photos or folder.filled
        if has_classes:
            used[split] = folder
        else:
            not_used[folder.path] = f"no class folders in it, so not used as {split}"
            notes.append(f"{folder.name}/ has no class folders in it, so it is not used as {split}.")
    if decision.by == "names":
        not_used |= {folder.path: NO_WORD for folder in splits.values()}
    ordered = [split for split in (*LABELED, "unlabeled") if split in used]
    names = [used[split].name + "/" + ("" if used[split].name == split else f" ({split})") for split in ordered]
    return Layout(
        classes={split: collect(used[split], decision) for split in LABELED if split in used},
        places={split: used[split].path for split in ordered},
        unlabeled=tuple(used["unlabeled"].all_photos()) if "unlabeled" in used else (),
        text=f"split folders {', '.join(names)}; {_BY[decision.by]}",
        notes=tuple(notes),
        not_used=not_used,
    )


def _without_splits(base: Tree, classes_from: ClassesFrom) -> Layout:
    """CLASS, perhaps with a folder of unlabeled photos beside."""
    named = _named(base)
    unlabeled = [folder for folder in base.folders if named.get(folder.name) == "unlabeled"]
    kept = replace(base, folders=tuple(folder for folder in base.folders if folder not in unlabeled))
    empty_splits = [folder for folder in kept.folders if folder.name in named and classes_from != "top"]
    kept = replace(kept, folders=tuple(folder for folder in kept.folders if folder not in empty_splits))
    decision = decide(kept) if classes_from == "folders" else Decision(classes_from)
    more = f", unlabeled photos in {listed(unlabeled)}/" if unlabeled else ""
    return Layout(
        classes={None: collect(kept, decision)},
        places={None: base.path},
        unlabeled=tuple(path for folder in unlabeled for path in folder.all_photos()),
        text=f"no split folders; {_BY[decision.by]}{more}",
        notes=(decision.note,) if decision.note else (),
        not_used=decision.skipped or ({base.path: NO_WORD} if decision.by == "names" else {}),
    )


def _splits_in_classes(base: Tree, classes_from: ClassesFrom) -> dict[str, dict[Split, Tree]]:
    """By class the splits in it, where all class folders hold nothing but split folders; else nothing.

    Raises:
        DataError: a class folder has photos beside its split folders.
    """
    classes = [folder for folder in base.filled if _named(base).get(folder.name) != "unlabeled"]
    for folder in classes:
        named = _named(folder)
        if "train" not in named.values() or any(inner.name not in named for inner in folder.filled):
            return {}
    if classes_from != "folders" or len(classes) < 2:
        return {}
    for folder in classes:
        if folder.photos:
            raise DataError(
                f"The class folder {folder.path} has {counted(len(folder.photos), 'photo')} beside its split folders "
                f"{listed(folder.folders)}.\n  Move these photos into one of them."
            )
    return {folder.name: _splits(folder, "folders") for folder in classes}


def _class_first(base: Tree, inside: Mapping[str, Mapping[Split, Tree]]) -> Layout:
    """CLASS/train, CLASS/test and so on."""
    classes: dict[Split | None, Mapping[str, ClassFolder]] = {}
    for split in LABELED:
        found = {name: splits[split] for name, splits in inside.items() if split in splits}
        if found:
            classes[split] = {name: ClassFolder(tree.path, tuple(tree.all_photos())) for name, tree in found.items()}
    loose = [splits["unlabeled"] for splits in inside.values() if "unlabeled" in splits]
    loose += [folder for folder in base.folders if _named(base).get(folder.name) == "unlabeled"]
    return Layout(
        classes=classes,
        places=dict.fromkeys(classes, base.path),
        unlabeled=tuple(path for folder in loose for path in folder.all_photos()),
        text="one folder per class, with split folders in each",
        notes=(),
        not_used={},
    )
