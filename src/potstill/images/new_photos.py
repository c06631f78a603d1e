"""Photos for a finished run, to judge its models by or to add: as for training, but one class is enough, and none is
needed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from potstill.config.schema import ImagesConfig
from potstill.data.splits import Split
from potstill.errors import DataError
from potstill.images.class_folders import unwrapped
from potstill.images.folder import Folder, PhotoFile
from potstill.images.label_table import read_labeled
from potstill.images.layout import recognize
from potstill.images.source import find_source
from potstill.images.tree import Tree, read_tree
from potstill.wording import counted


@dataclass(frozen=True, order=True, slots=True)
class NewPhoto:
    """A photo file, and what is known of it."""

    path: Path
    label: str
    """The name of its class, "" where none is known."""
    split: Split | None = None
    """As given by a folder or a table."""
    group: str = ""
    labels: tuple[str, ...] = ()
    """Where photos may have several: the names of all its classes. Without any, it shows none of the classes, or it is
    in the split "unlabeled"."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all its classes."""
        return self.labels or ((self.label,) if self.label else ())


@dataclass(frozen=True, slots=True)
class NewPhotos:
    """Photo files with their classes."""

    root: Path
    photos: tuple[NewPhoto, ...]
    """Sorted by path."""
    notes: tuple[str, ...] = ()
    """How they were understood, one sentence each."""

    @property
    def files(self) -> tuple[tuple[Path, str], ...]:
        """Each with the name of its class, "" where none is known."""
        return tuple((photo.path, photo.label) for photo in self.photos)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({name for photo in self.photos for name in photo.names}))


def read_new_photos(
    data: Path, images: ImagesConfig, *, several_labels: bool = False, runs: Path = Path("runs")
) -> NewPhotos:
    """The photos of a folder, of a table or of an archive, of all splits.

    Args:
        data: as for training (`open_photos`). Photos that lie in no class folder, and folders such as `unlabeled/`, are
            photos without a label.
        images: where labels come from, among others.
        several_labels: whether they are for a model that gives a photo several labels, and come with as many.
        runs: archives are unpacked to `runs/.unpacked/`.
    Raises:
        ConfigError, DataError: as `open_photos` does, but not for classes that are few or were not trained; no photos.
    """
    if several_labels and images.labels_per_photo == "auto":
        images = replace(images, labels_per_photo="several")
    source = find_source(data, images, runs=runs)
    if source.containers:
        raise DataError(f"The photos of {data} are in large files, which only `distill` and `count` read. Unpack them.")
    if source.tables:
        folder = read_labeled(source.root, source.tables, images, to_train=False)
        if folder.several_labels and not several_labels:
            raise DataError("This takes photos with one label each, but in the table they may have several.")
        photos = [_of_table(file, folder) for file in folder.files]
        notes = folder.notes
    else:
        if not source.root.is_dir():
            raise DataError(f"There is no folder {source.root}. Name a folder of photos, a table or an archive.")
        photos, notes = _in_folders(read_tree(source.root), images)
        if several_labels and any(photo.label for photo in photos):
            raise DataError(
                f"The class folders of {data} name one class of each photo. The model gives a photo several labels, "
                "and whether it has the others is not known.\n  Name a table with all labels of each photo (--labels), "
                "or a folder of photos without class folders."
            )
    if images.classes:
        photos = [photo for photo in photos if not photo.label or photo.label in images.classes]
    if not photos:
        raise DataError(f"There are no photos in {data}. Put them into {data}/CLASS/, or right into {data} unlabeled.")
    return NewPhotos(source.root, tuple(sorted(photos, key=lambda photo: photo.path)), (*source.notes, *notes))


def _of_table(file: PhotoFile, folder: Folder) -> NewPhoto:
    if folder.several_labels:
        names = tuple(folder.classes[label] for label in file.labels)
        return NewPhoto(file.path, "", file.split, file.group, names)
    names = (*folder.classes, "")  # label -1 is the empty name
    return NewPhoto(file.path, names[file.label], file.split, file.group)


def _in_folders(tree: Tree, images: ImagesConfig) -> tuple[list[NewPhoto], tuple[str, ...]]:
    """Photos by class folder, and what to say about it."""
    bare = unwrapped(tree)
    if bare.photos and not bare.filled and images.classes_from == "folders":
        loose = [NewPhoto(path, "", "unlabeled") for path in bare.photos]
        return loose, (f"{bare.path} has no class folders: photos without labels.",)
    layout = recognize(tree, images.classes_from)
    photos = [
        NewPhoto(path, name, split)
        for split, found in layout.classes.items()
        for name in found
        for path in found[name].photos
    ]
    photos += [NewPhoto(path, "", "unlabeled") for path in layout.unlabeled]
    notes = [*([f"Folder layout: {layout.text}."] if layout.text else []), *layout.notes]
    return photos, (*notes, *_lost(tree, {photo.path for photo in photos}))


def _lost(tree: Tree, used: set[Path]) -> Iterator[str]:
    """A sentence about photos that are in no class folder beside others that are."""
    lost = [path for path in tree.all_photos() if path not in used]
    if lost:
        yield f"Not used: {counted(len(lost), 'photo')} in no class folder, such as {lost[0]}."
