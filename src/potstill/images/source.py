"""Where photos and their labels come from: a folder of class folders, a folder and a table, an archive of either, or
large files that hold photos and labels."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from potstill.config.schema import ImagesConfig
from potstill.data import table_file
from potstill.errors import ConfigError, DataError
from potstill.images.archives import SUFFIXES, is_archive, unpack
from potstill.images.containers import (
    INDEXES,
    Containers,
    find_containers,
    find_remote_containers,
    is_pattern,
    read_containers,
)
from potstill.images.folder import Folder, plain_name, read_folder
from potstill.images.ignored import is_other_file, is_system_folder
from potstill.images.label_table import TableSource, is_class_table, read_labeled
from potstill.images.split_names import split_of
from potstill.storage.addresses import Address
from potstill.storage.photos import RemoteTree
from potstill.wording import counted

UNPACKED = ".unpacked"
"""The folder for unpacked archives, beside the runs."""

_NAMES = ("metadata", "labels")
_TRAIN_LABELS = {"trainlabels": "train", "train_labels": "train"}
"""Of tables that are found without being named. Those that are named after a split, such as train.csv, are, too."""
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Source:
    """Where the photos are, and what says their labels."""

    root: Path
    tables: tuple[TableSource, ...]
    """Empty where the labels are the names of the folders."""
    notes: tuple[str, ...] = ()
    containers: Containers | None = None
    """Large files that hold the photos and their labels."""
    indexes: Path = Path()
    """The folder for the lists of their photos."""


def open_photos(data: Path, images: ImagesConfig, *, runs: Path = Path("runs")) -> Folder:
    """The photos of a folder, of a table, of an archive or of shards.

    Args:
        data: a photo folder, see `read_folder`; a folder with a table of labels, see `read_labeled`; the table itself;
            a zip or tar file of one of these; or shards or parquet files of photos, see `find_containers`. All of them
            may be in storage, such as s3://bucket/photos.
        images: where labels, splits and groups come from, among others.
        runs: archives are unpacked to `runs/.unpacked/`, lists of the photos in shards kept in `runs/.indexes/`.
    Raises:
        ConfigError: a setting about a table, and no table; or a column that is not there.
        DataError: what `read_folder`, `read_labeled`, `unpack` and `read_containers` raise; a group on both sides of a
            given split.
        StorageError, SpaceError: storage that cannot be read, or no room for a copy.
    """
    return read_source(find_source(data, images, runs=runs), images)


def read_source(source: Source, images: ImagesConfig) -> Folder:
    """The photos of a source that was found. Raises as `open_photos` does."""
    if source.containers:
        folder = read_containers(source.containers, images, source.indexes)
        if not images.group_pattern:  # nothing else gives groups, and there may be millions of photos
            return folder
    elif source.tables:
        folder = read_labeled(source.root, source.tables, images)
    else:
        _require_table(images)
        folder = read_folder(source.root, classes=images.classes, classes_from=images.classes_from)
    folder = grouped(folder, images.group_pattern)
    _require_groups_in_one_split(folder)
    return replace(folder, notes=(*source.notes, *folder.notes, *_group_notes(folder)))


def find_source(data: Path, images: ImagesConfig, *, runs: Path = Path("runs")) -> Source:
    """What there is to read, before anything is read but an archive. Photos in storage are copied here, but for large
    files of photos, which are copied one by one as they are read."""
    if (address := Address.of(data)) is not None:
        return _find_in_storage(address, images, runs)
    data, notes = Path(data), tuple[str, ...]()
    if not images.labels and not _has_photos_by_class(data, images) and (containers := find_containers(data)):
        return Source(containers.root, (), notes, containers, runs / INDEXES)
    if is_archive(data):
        unpacked = unpack(data, runs / UNPACKED)
        data, notes = unpacked.root, (unpacked.note,)
    if (images.labels or table_file.is_table(data)) and images.classes_from != "folders":
        raise ConfigError("A table and images.classes_from both say what the classes are; choose one of them.")
    if images.labels:
        return Source(data, (TableSource(_located(data, images.labels), data),), notes)
    if table_file.is_table(data):
        return Source(data.parent, (TableSource(data, data.parent),), notes)
    if is_pattern(data):
        raise DataError(f"{data} matches files that are neither shards (.tar) nor parquet files of photos.")
    if data.is_file():
        kinds = ", ".join((*SUFFIXES, *table_file.SUFFIXES))
        raise DataError(f"{data} is neither a folder nor a file that can be read ({kinds}).")
    if not data.is_dir() or _has_photos_by_class(data, images):
        _require_no_columns(images)
        return Source(data, (), notes)
    tables = _tables_in(data)
    if not tables:
        _require_no_columns(images)
    unlabeled = [table for table in tables if len(tables) > 1 and _has_only_ids(table)]
    notes += tuple(f"{table.path.name} has no labels and is not used." for table in unlabeled)
    return Source(data, tuple(table for table in tables if table not in unlabeled), notes)


def _find_in_storage(address: Address, images: ImagesConfig, runs: Path) -> Source:
    """`find_source` for what is in storage."""
    is_table = table_file.is_table(Path(address.name))
    if re.search(r"[*?{\[]", address.key):
        raise DataError(f"{address} is a pattern. In storage, name the folder of the files instead.")
    tree = RemoteTree.of(address.parent if is_table else address)
    if not images.labels and not is_table and (containers := find_remote_containers(tree)):
        return Source(containers.root, (), (f"Read from {address}.",), containers, runs / INDEXES)
    copied = tree.copy()
    source = find_source(copied / address.name if is_table else copied, images, runs=runs)
    return replace(source, notes=(f"Copied from {address} to {copied}.", *source.notes))


def _located(data: Path, labels: str) -> Path:
    """The table that the settings name: from here, or in the photo folder."""
    if not data.is_dir():
        raise ConfigError(f"images.labels names a table for the photos of a folder, but {data} is not a folder.")
    found = [path for path in (Path(labels), data / labels) if path.is_file()]
    if not found:
        raise ConfigError(f"images.labels: there is no file {labels}, neither here nor in {data}.")
    return found[0]


def _require_no_columns(images: ImagesConfig) -> None:
    for name in ("path_column", "label_column", "split_column", "group_column"):
        if value := getattr(images, name):
            raise ConfigError(
                f"images.{name} is {value!r}, but the labels are the names of folders. Name the table: --labels FILE."
            )


def _require_table(images: ImagesConfig) -> None:
    if images.labels_per_photo == "several" or images.without_label != "refuse":
        raise ConfigError(
            "Several labels per photo come from a table, but here the labels are the names of folders. Name the table: "
            "--labels FILE."
        )


def _tables_in(root: Path) -> tuple[TableSource, ...]:
    """Tables with a usual name: one for all photos, one beside the photos of each split, or one named after each split.

    Raises:
        DataError: two tables for the same photos, or one that gives a photo several labels.
    """
    folders = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir() and split_of(entry.name))]
    found = [source for folder in folders for source in _tables_of(folder, root)]
    splits = [source.split for source in found]
    if len(found) > 1 and (None in splits or len(set(splits)) < len(splits)):
        names = [plain_name(source.path.relative_to(root)) for source in found]
        raise DataError(f"{root} has the tables {' and '.join(names)}. Name the one to use: --labels {names[0]}.")
    return tuple(found)


def _tables_of(folder: Path, root: Path) -> Iterator[TableSource]:
    for path in sorted(folder.iterdir()):
        stem = path.stem.casefold()
        if is_class_table(path):
            yield TableSource(path, folder, None if folder == root else split_of(folder.name))
            continue
        if not table_file.is_table(path) or path.suffix.lower() == ".txt":
            continue
        if stem in _NAMES:
            yield TableSource(path, folder, None if folder == root else split_of(folder.name))
        elif folder == root and (split := split_of(_TRAIN_LABELS.get(stem, stem))):
            beside = [entry for entry in root.iterdir() if entry.is_dir() and split_of(entry.name) == split]
            yield TableSource(path, beside[0] if beside else root, split)


def _has_only_ids(table: TableSource) -> bool:
    """Whether a table has a single column: the one of a competition's test photos names no classes."""
    return len(table_file.read_table(table.path).columns) < 2


def _has_photos_by_class(data: Path, images: ImagesConfig) -> bool:
    """Whether the photos of a folder are to be read by the names of folders or files."""
    return data.is_dir() and (images.classes_from != "folders" or _has_class_folders(data))


def _has_class_folders(root: Path) -> bool:
    """Whether there are two or more folders of files, in the folder or in one of its splits."""
    entries = [entry for entry in root.iterdir() if entry.is_dir()]
    bases = [root, *(entry for entry in entries if split_of(entry.name))]
    return any(sum(map(_is_class_folder, base.iterdir())) > 1 for base in bases)


def _is_class_folder(path: Path) -> bool:
    plain = path.is_dir() and not is_system_folder(path.name) and not split_of(path.name)
    return plain and any(entry.is_file() and not is_other_file(entry.name) for entry in path.rglob("*"))


def grouped(folder: Folder, pattern: str) -> Folder:
    """The folder with the groups that file names give. Raises DataError where no name gives one."""
    if not pattern:
        return folder
    found = [re.search(pattern, plain_name(file.path.name)) for file in folder.files]
    groups = [match.group(1) or "" if match else "" for match in found]
    if not any(groups):
        name = folder.files[0].path.name
        raise DataError(f"images.group_pattern {pattern!r} matches no file name, such as {name!r}.")
    files = tuple(replace(file, group=group) for file, group in zip(folder.files, groups, strict=True))
    return replace(folder, files=files)


def _require_groups_in_one_split(folder: Folder) -> None:
    """Raise DataError for groups with labeled photos in several of the splits that are given."""
    splits: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for file in folder.files:
        if file.group and file.split != "unlabeled":
            splits[file.group].setdefault(file.split or "train", plain_name(file.path.relative_to(folder.root)))
    both = [(group, found) for group, found in splits.items() if len(found) > 1]
    if not both:
        return
    lines = [
        f"    {group}: " + ", ".join(f"{name} in {split}" for split, name in found.items())
        for group, found in both[:_LISTED]
    ]
    if len(both) > _LISTED:
        lines.append(f"    and {len(both) - _LISTED:,} more")
    raise DataError(
        f"{counted(len(both), 'group is', 'groups are')} on both sides of the given splits:\n" + "\n".join(lines) + "\n"
        "  Put all photos of a group into one split, let Potstill split them, or do without the groups."
    )


def _group_notes(folder: Folder) -> Iterator[str]:
    groups = {file.group for file in folder.files if file.group}
    if groups:
        alone = [file for file in folder.files if not file.group]
        example = f", such as {plain_name(alone[0].path.relative_to(folder.root))}" if alone else ""
        text = f"; {counted(len(alone), 'photo belongs', 'photos belong')} to none{example}" if alone else ""
        yield f"{counted(len(groups), 'group')}, each on one side of every split{text}."
