"""Giving photos their labels: each is moved, or copied, into the folder of its class. Every step can be undone.

`labels.jsonl` has one line per step, on the disk before the photo is touched, so that whatever a stopped program has
begun is finished or forgotten when it is read again. No file is ever overwritten, and no file is touched but the photos
that were suggested, in the photo folder itself.
"""

import filecmp
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from potstill.deploy.sorting import copy_new, free_names
from potstill.errors import DataError
from potstill.run.files import sha256_of, sync_folder
from potstill.storage.addresses import refuse_storage
from potstill.suggest.journal import Step, note, read_steps
from potstill.suggest.pool import RunPhotos
from potstill.suggest.suggestions import Suggestion


def class_folders(photos: RunPhotos) -> dict[str, Path]:
    """Where photos of each class go: the folder that holds most of its training photos.

    Raises:
        DataError: the labels of this run are not the names of folders, so that moving a photo would not label it.
    """
    folder, images = photos.folder, photos.config.images
    by_hand = "Write the labels yourself; suggestions.csv lists the photos."
    if folder.several_labels:
        raise DataError(
            f"The photos of {photos.data} may have several labels, which stand in a table, and the page moves photos "
            f"into the folder of one class. {by_hand}"
        )
    if folder.from_table:
        raise DataError(f"The labels of {photos.data} are in a table, and photos are not moved. {by_hand}")
    if images.classes_from == "names":
        raise DataError(f"The labels of {photos.data} are the names of its files. {by_hand}")
    refuse_storage(photos.data, "Labeling, which moves photos,")
    if photos.data.resolve() != folder.root.resolve():
        raise DataError(f"{photos.data} is an archive, in which nothing can be moved. Unpack it, and run again.")
    found: dict[str, Counter[Path]] = {name: Counter() for name in folder.classes}
    for file in folder.files:
        if file.label >= 0 and file.split in (None, "train"):
            found[folder.classes[file.label]][file.path.parent] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in found.items()}


class Labeler:
    """Moves or copies suggested photos into class folders, and back."""

    def __init__(
        self,
        root: Path,
        folders: Mapping[str, Path],
        suggestions: Sequence[Suggestion],
        journal: Path,
        *,
        copy: bool = False,
    ) -> None:
        """Finish what a stopped program has begun.

        Args:
            root: the photo folder.
            folders: of the classes.
            suggestions: the photos that may get a label.
            journal: labels.jsonl of the run.
            copy: leave the photos where they are, and copy them.
        Raises:
            DataError: a class folder is not in the photo folder, or a photo that is to be moved is not really in it.
        """
        self.root, self._folders, self._copy, self._journal = root.resolve(), dict(folders), copy, journal
        self._hashes = {suggestion.path: suggestion.sha256 for suggestion in suggestions}
        for place in self._folders.values():
            if not place.resolve().is_relative_to(self.root):
                raise DataError(f"The class folder {place} leads out of {root}. Label the photos there by hand.")
        for path in self._hashes:
            self._require_movable(path)
        self.steps = list(self._whole(read_steps(journal)))
        """Labels that hold, in the order in which they were given."""

    def _whole(self, steps: Sequence[Step]) -> Iterator[Step]:
        """The steps that were finished, or can be; a photo that was being moved has two names for a moment."""
        for step in steps:
            source, target = self.root / step.path, self.root / step.to
            if not target.is_file():
                continue
            if not step.copied and source.is_file() and source.samefile(target):
                source.unlink()
            yield step

    def _require_movable(self, path: str) -> None:
        """Raise DataError for a photo that only seems to be in the photo folder."""
        source = self.root / path
        inside = source.parent.resolve().is_relative_to(self.root) and ".." not in Path(path).parts
        if not self._copy and (source.is_symlink() or not inside):
            raise DataError(
                f"{path} is a link, or in a folder that is one: moving it would change {source.resolve().parent}.\n"
                "  Add --copy to copy such photos into the class folders instead."
            )

    def is_open(self, path: str) -> bool:
        """Whether a photo was suggested, has no label yet, and is still there."""
        known = path in self._hashes and all(step.path != path for step in self.steps)
        return known and (self.root / path).is_file()

    def give(self, path: str, label: str) -> Step:
        """Move or copy a photo into the folder of a class. Where another file has its name there, it gets a number.

        Raises:
            DataError: it is not among the photos that may get a label, has one, or is no longer the file that the run
                has read; or there is no such class.
            OSError: a full disk, missing rights and the like. The photo is still where it was.
        """
        if label not in self._folders:
            raise DataError(f"There is no class {label!r}.")
        if not self.is_open(path):
            raise DataError(f"{path} has a label already, was not suggested, or is no longer there.")
        self._require_movable(path)
        source, folder = self.root / path, self._folders[label].resolve()
        if sha256_of(source) != self._hashes[path]:
            raise DataError(f"{path} is no longer the file that the run has read. Run `potstill distill` again.")
        for name in free_names(source.name):
            target = folder / name
            if os.path.lexists(target):
                continue
            step = Step(path, target.relative_to(self.root).as_posix(), label, self._copy)
            note(self._journal, "give", step)
            try:
                _place(source, target, copy=self._copy)
            except FileExistsError:  # it came to be just now
                note(self._journal, "undo", step)
                continue
            self.steps.append(step)
            return step
        raise AssertionError("names do not end")

    def undo(self) -> Step:
        """Take the last label back: the photo is where it was again, or its copy is gone.

        Raises:
            DataError: there is none, or the file was changed or replaced since.
            OSError: as for `give`.
        """
        if not self.steps:
            raise DataError("There is no label to undo.")
        step = self.steps[-1]
        source, target = self.root / step.path, self.root / step.to
        if step.copied:
            if not source.is_file() or not filecmp.cmp(source, target, shallow=False):
                raise DataError(f"{step.to} is not the copy of {step.path} any more, so it is not removed.")
            target.unlink()
        else:
            if os.path.lexists(source):
                raise DataError(f"There is another file {step.path} now, so {step.to} stays where it is.")
            _place(target, source, copy=False)
        note(self._journal, "undo", step)
        return self.steps.pop()


def _place(source: Path, target: Path, *, copy: bool) -> None:
    """Move or copy a file to a name that is free. Raises FileExistsError where it is not."""
    if copy:
        copy_new(source, target)
        return
    try:
        os.link(source, target)  # unlike a rename, it never replaces a file
    except FileExistsError:
        raise
    except OSError:  # another disk, or a file system without hard links
        copy_new(source, target)
    sync_folder(target.parent)
    source.unlink()
    sync_folder(source.parent)
