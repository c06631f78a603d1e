"""What in a folder of photos is not used, for people: whole folders together, with the reason."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from potstill.images.ignored import OTHER, Unused
from potstill.images.tree import Tree

NO_PHOTOS = "no photos in it"
LOOSE = "in no class folder"
NOT_PART = "neither a class nor a split here"


def unused_files(root: Tree, used: Collection[Path], why: Mapping[Path, str]) -> tuple[Unused, ...]:
    """Everything below `root` that is not in `used`, whole folders together.

    Args:
        used: photos.
        why: reasons by folder, where there is a better one than that it is not used.
    """
    found = _Found(root.path, used, why)
    found.look(root)
    return found.all()


class _Found:
    """What is not used, collected folder by folder."""

    def __init__(self, root: Path, used: Collection[Path], why: Mapping[Path, str]) -> None:
        self._root, self._used, self._why = root, used, why
        self._groups: dict[str, list[tuple[str, int]]] = {}

    def look(self, folder: Tree) -> bool:
        """Collect what is not used below a folder. Returns whether any of it is used."""
        mark = {why: len(items) for why, items in self._groups.items()}
        any_used = False
        for inner in folder.folders:
            any_used |= self.look(inner)
        loose = [path for path in folder.photos if path not in self._used]
        any_used |= len(loose) < len(folder.photos)
        if any_used or folder.path == self._root:
            for path in loose:
                self._add(self._why.get(folder.path, LOOSE), self._name(path), 1)
            for path, files in folder.others:
                self._add(OTHER, self._name(path) + ("/" if path.is_dir() else ""), files)
            for path, why in folder.not_read:
                self._add(why, self._name(path) + "/", 0)
        else:
            self._groups = {why: items[: mark[why]] for why, items in self._groups.items() if why in mark}
            if folder.files:
                reason = NO_PHOTOS if not folder.total else NOT_PART
                self._add(self._why.get(folder.path, reason), self._name(folder.path) + "/", folder.files)
        return any_used

    def _add(self, why: str, name: str, files: int) -> None:
        self._groups.setdefault(why, []).append((name, files))

    def _name(self, path: Path) -> str:
        # Not images.folder.plain_name: that module stands on this one.
        return os.fsencode(path.relative_to(self._root)).decode("utf-8", "backslashreplace").replace(os.sep, "/")

    def all(self) -> tuple[Unused, ...]:
        return tuple(
            Unused(_some([name for name, _ in items]), sum(files for _, files in items), why)
            for why, items in sorted(self._groups.items(), key=lambda group: (group[0] != OTHER, group[0]))
            if items
        )


def _some(names: list[str], most: int = 3) -> str:
    # One name for all files that are called alike: Thumbs.db lies in every folder.
    short = {name.rstrip("/").rpartition("/")[2]: name for name in sorted(names, reverse=True)}
    shown = sorted(short.values())
    return ", ".join(shown[:most]) + (", …" if len(names) > min(most, len(shown)) else "")
