"""Photos in large files, read where they lie: tar shards (`tar_shards.py`) and parquet files (`parquet_photos.py`).

What is true of folders of photos is true of these: their splits are named by folders or files, what is not used is
counted and named, and what is doubtful is refused.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, product
from pathlib import Path
from typing import Literal, overload

import numpy as np

from potstill.config.schema import ImagesConfig
from potstill.data.splits import LABELED, SPLITS, Split
from potstill.errors import ConfigError, DataError, did_you_mean
from potstill.images.class_folders import shown
from potstill.images.folder import Folder, PhotoFile, check_class_names
from potstill.images.ignored import OTHER, Unused, is_system_folder
from potstill.images.parquet_photos import holds_photos, index_parquet
from potstill.images.photo_index import ABSENT, EMPTY, Facts, PhotoIndex, kept_index
from potstill.images.split_names import find_splits, split_of
from potstill.images.stored import Container, ParquetPhoto, TarPhoto
from potstill.images.tar_shards import PHOTOS, index_tar, is_shard
from potstill.storage.cache import RemoteFile
from potstill.storage.photos import RemoteTree
from potstill.wording import counted

INDEXES = ".indexes"
"""The folder for the lists of photos in large files, beside the runs."""

NAME_FILES = ("classes.txt", "labels.txt", "class_names.txt", "dataset_info.json")
"""Names of classes by number, one a line, or as `datasets` writes them; the first one that is there is used."""

_MAX_FILES, _MAX_NAME_BYTES = 100_000, 8 * 2**20
_LISTED = 3
_UNLIKELY = 5
"""Classes, from which on it is checked that they have more than one photo each."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

Kind = Literal["tar", "parquet"]


@dataclass(frozen=True, slots=True)
class Containers:
    """Large files of photos, and what lies beside them."""

    root: Path
    files: tuple[Path, ...]
    """Below `root`, sorted."""
    kind: Kind
    others: tuple[Path, ...] = ()
    """Other files below `root`."""
    remote: Mapping[Path, RemoteFile] = field(default_factory=dict)
    """Where they are in storage: `files` are the places of their copies then."""


def find_containers(data: Path) -> Containers | None:
    """The shards or parquet files that a path means; None where it means something else.

    Args:
        data: one file, a pattern with {000..012}, {a,b}, * or ?, or a folder with nothing but such files and texts.
    Raises:
        DataError: a file of a pattern is missing, or there are files of both kinds.
    """
    if data.is_file():
        kind = _kind(data)
        is_alone = (kind == "tar" and is_shard(data)) or (kind == "parquet" and holds_photos(data))
        return Containers(data.parent, (data,), kind) if kind and is_alone else None
    if is_pattern(data):
        return _of_files(_fixed_part(data), _expanded(data), data)
    files = _files_without_photos(data) if data.is_dir() else None
    return _of_files(data, files, data) if files else None


def find_remote_containers(tree: RemoteTree) -> Containers | None:
    """The shards or parquet files of a tree in storage; None where it is something else.

    Small files beside them, such as classes.txt, are copied here; of the parquet files the first one, to see what is in
    it. Nothing else is.

    Raises:
        DataError: there are files of both kinds.
        StorageError, SpaceError: a file cannot be copied.
    """
    found = [item for item in tree.objects if not any(map(_is_hidden, item.name.split("/")))]
    if tree.is_file or any(item.name.rpartition(".")[2].lower() in PHOTOS for item in found):
        return None
    remote = {tree.root / item.name: tree.large_file(item) for item in found}
    large = [path for path in sorted(remote) if _kind(path)]
    if not large:
        return None
    if first := next((path for path in large if _kind(path) == "parquet"), None):
        remote[first].fetch()
    containers = _of_files(tree.root, sorted(remote), tree.root)
    if containers is None:
        return None
    for path in containers.others:
        if path.parent == tree.root and path.name in NAME_FILES:
            remote[path].fetch()
    return replace(containers, remote={path: remote[path] for path in containers.files})


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or is_system_folder(name)


def is_pattern(data: Path) -> bool:
    """Whether a path is a pattern for several files, and not the name of one."""
    return bool(re.search(r"[*?{\[]", str(data))) and not data.exists()


def _kind(path: Path) -> Kind | None:
    return {".tar": "tar", ".parquet": "parquet"}.get(path.suffix.lower())  # type: ignore[return-value]


def _of_files(root: Path, files: Sequence[Path], data: Path) -> Containers | None:
    tars = [path for path in files if _kind(path) == "tar"]
    parquets = [path for path in files if _kind(path) == "parquet"]
    # The first one decides: a table of paths has no column of bytes. What a pattern names must be photos.
    photos = parquets if parquets and (is_pattern(data) or holds_photos(parquets[0])) else []
    if tars and photos:
        raise DataError(f"{data} has shards ({tars[0].name}) and parquet files of photos ({photos[0].name}). Name one.")
    used = tuple(tars or photos)
    if not used:
        compressed = [path for path in files if path.name.lower().endswith(_COMPRESSED)]
        if compressed and not parquets:
            raise DataError(
                f"{data} has compressed shards ({compressed[0].name}), in which no photo can be read without "
                "all before it. Decompress them to .tar."
            )
        return None
    return Containers(root, used, "tar" if tars else "parquet", tuple(path for path in files if path not in set(used)))


def _files_without_photos(root: Path) -> list[Path] | None:
    """All files below a folder, sorted; None where one is a photo by its name."""
    found: list[Path] = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not is_system_folder(name)]
        if any(name.rpartition(".")[2].lower() in PHOTOS for name in names):
            return None
        found += [Path(place) / name for name in names if not name.startswith(".")]
    return sorted(found)


def _fixed_part(data: Path) -> Path:
    """The folder that the pattern's last part without a wildcard names."""
    parts = data.parts
    first = next(i for i, part in enumerate(parts) if re.search(r"[*?{\[]", part))
    return Path(*parts[:first]) if first else Path()


def _expanded(data: Path) -> list[Path]:
    """The files of a pattern, sorted. Raises DataError where one is missing, or where there are none."""
    pieces = []
    for piece in re.split(r"(\{[^{}]*\})", str(data)):
        numbers = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", piece)
        if numbers and int(numbers[2]) - int(numbers[1]) < _MAX_FILES:
            width = len(numbers[1])
            pieces.append([f"{n:0{width}d}" for n in range(int(numbers[1]), int(numbers[2]) + 1)])
        else:
            pieces.append(piece[1:-1].split(",") if piece.startswith("{") else [piece])
    found: set[Path] = set()
    for number, parts in enumerate(product(*pieces)):
        text = "".join(parts)
        path = Path(text)
        if number > _MAX_FILES:
            raise DataError(f"{data} matches more than {_MAX_FILES:,} files.")
        if re.search(r"[*?\[]", text):
            root = _fixed_part(path)
            matches = {match for match in root.glob(str(path.relative_to(root))) if match.is_file()}
        else:
            matches = {path} if path.is_file() else set()
        if not matches:
            raise DataError(f"There is no file {text}, which is part of {data}.")
        found |= matches
    return sorted(found)


def read_containers(containers: Containers, images: ImagesConfig, indexes: Path) -> Folder:
    """The photos of shards or parquet files. The first time, each file is read once for its list of photos.

    Args:
        indexes: the folder in which the lists are kept.
    Raises:
        ConfigError: a setting that has no effect here, or a column that is not there.
        DataError: what `index_tar` and `index_parquet` raise; splits that only some files name, or without one to train
            on; names of classes that contradict each other; a number without a name; classes as for tables.
    """
    _require_settings(containers, images)
    splits = _splits(containers)
    parts = [_part(path, splits[path], containers, images, indexes) for path in containers.files]
    names, name_file = _class_names(containers, parts)
    labels = [_named(part, names) for part in parts]
    classes = _classes(parts, labels, images, containers)
    files = StoredFiles(tuple(_chosen(part, found, classes) for part, found in zip(parts, labels, strict=True)))
    notes = [*_notes(containers, splits, parts, name_file), *_losses(parts, labels, classes)]
    if idle := [name for name in names if name not in classes] if not images.classes else []:
        notes.append(f"{counted(len(idle), 'class has', 'classes have')} no photo with a label: {shown(idle)}.")
    return Folder(
        root=containers.root,
        classes=classes,
        files=files,
        flat=not any(split in LABELED for split in splits.values()),
        unused=_unused(containers, parts, name_file),
        notes=tuple(notes),
        from_table=True,
    )


def _require_settings(containers: Containers, images: ImagesConfig) -> None:
    columns = ("split_column", "group_column", *(["path_column"] if containers.kind == "tar" else []))
    for name in columns:
        if (value := getattr(images, name)) not in ("", "none"):
            raise ConfigError(f"images.{name} is {value!r}, but is for tables, and has no effect on {containers.root}.")
    for name in ("labels_per_photo", "without_label"):
        if getattr(images, name) not in ("auto", "one", "refuse"):
            raise ConfigError(f"images.{name}: photos in shards and parquet files have one label each.")
    if images.labels or images.classes_from != "folders":
        name = "labels" if images.labels else "classes_from"
        raise ConfigError(f"images.{name} has no effect on shards and parquet files, which say the classes themselves.")


@dataclass(frozen=True, slots=True)
class _Part:
    """One file with its photos."""

    container: Container
    split: Split | None
    index: PhotoIndex

    @property
    def name(self) -> str:
        return self.container.path.name

    @property
    def facts(self) -> Facts:
        return self.index.facts

    def where(self, row: int) -> str:
        """A photo, for messages."""
        name = self.index.name(row)
        return f"{self.container.path}, row {row}" if name.startswith("#") else f"{self.container.path}: {name}"


def _part(path: Path, split: Split | None, containers: Containers, images: ImagesConfig, indexes: Path) -> _Part:
    remote = containers.remote.get(path)
    container = Container.in_storage(remote) if remote else Container.of(path)
    label = images.label_column
    if containers.kind == "tar":
        index = kept_index(container, f"tar\0{label}", indexes, lambda one: index_tar(one, label))
    else:
        photo = images.path_column
        how = f"parquet\0{photo}\0{label}"
        index = kept_index(container, how, indexes, lambda one: index_parquet(one, photo, label))
    return _Part(container, split, index)


def _splits(containers: Containers) -> dict[Path, Split | None]:
    """By file, as its folder or its name says."""
    by_name = find_splits(sorted({path.stem for path in containers.files}))
    found: dict[Path, Split | None] = {}
    for path in containers.files:
        folders = path.relative_to(containers.root).parts[:-1]
        by_folder = next((split for folder in folders if (split := split_of(folder))), None)
        named = by_name.get(path.stem)
        if by_folder and named and named != by_folder:
            raise DataError(f"{path} is of {by_folder} by its folder and of {named} by its name. Rename one.")
        found[path] = by_folder or named
    without = [path for path, split in found.items() if split is None]
    labeled = [path for path, split in found.items() if split in LABELED]
    if without and labeled:
        raise DataError(
            f"Some files of {containers.root} name a split and others do not: {labeled[0].name} is of "
            f"{found[labeled[0]]}, {without[0].name} of none. Name them all: train-000000{without[0].suffix}."
        )
    if labeled and "train" not in found.values():
        raise DataError(f"{containers.root} has files of {found[labeled[0]]} ({labeled[0].name}), but none of train.")
    return found


def _class_names(containers: Containers, parts: Sequence[_Part]) -> tuple[list[str], Path | None]:
    """The names of the classes by number, and the file that has them; none where nothing names them."""
    path = next((path for name in NAME_FILES if (path := containers.root / name).is_file()), None)
    named = [(part.name, part.facts.names) for part in parts if part.facts.names]
    if differing := [name for name, names in named if names != named[0][1]]:
        raise DataError(f"{named[0][0]} and {differing[0]} of {containers.root} name the classes differently.")
    if named:
        return named[0][1], None
    if path is None:
        return [], None
    names = _names_in(path)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or "" in names:
        raise DataError(f"{path} {f'names {twice[0]!r} twice' if twice and twice[0] else 'has an empty line'}.")
    return names, path


def _names_in(path: Path) -> list[str]:
    """Raises DataError where the file holds no names."""
    if (size := path.stat().st_size) > _MAX_NAME_BYTES:
        raise DataError(f"{path} has {size:,} bytes; names of classes may have {_MAX_NAME_BYTES:,}.")
    try:
        text = path.read_text("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text in UTF-8.") from None
    if path.suffix != ".json":
        return [line.strip() for line in text.split("\n")] if text else []
    try:
        features: Mapping[str, Mapping[str, object]] = json.loads(text)["features"]
        found = [feature["names"] for feature in features.values() if isinstance(feature.get("names"), list)]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        found = []
    if len(found) != 1:
        raise DataError(f"{path} names no classes, or several kinds. Write them to classes.txt, one a line.")
    return [str(name) for name in found[0]]  # type: ignore[attr-defined]


def _named(part: _Part, names: Sequence[str]) -> list[str]:
    """The names of a file's labels. Raises DataError for a number or a name that is none of the classes."""
    if not names:
        return [str(label) for label in part.facts.labels]
    known, found = set(names), []
    for code, label in enumerate(part.facts.labels):
        if isinstance(label, int) and 0 <= label < len(names) and str(label) not in known:
            found.append(names[label])
        elif str(label) in known:
            found.append(str(label))
        else:
            row = int(np.argmax(part.index.rows["label"] == code))
            what = f"the class number {label}" if isinstance(label, int) else f"the class {label!r}"
            raise DataError(
                f"{part.where(row)} has {what}, but there are {counted(len(names), 'name')} of classes: "
                f"{shown(names)}, with numbers from 0 to {len(names) - 1}."
            )
    return found


def _classes(
    parts: Sequence[_Part], labels: Sequence[Sequence[str]], images: ImagesConfig, containers: Containers
) -> tuple[str, ...]:
    """The classes to use, sorted."""
    found: Counter[str] = Counter()
    trained: set[str] = set()
    for part, own in zip(parts, labels, strict=True):
        if part.split == "unlabeled":
            continue
        for code, number in zip(*np.unique(part.index.rows["label"], return_counts=True), strict=True):
            if code >= 0:
                found[own[code]] += int(number)
                trained |= {own[code]} if part.split in (None, "train") else set()
    if not found:
        photos = sum(len(part.index.rows) for part in parts)
        how = "KEY.cls, KEY.json with the field label, or CLASS/KEY.jpg" if containers.kind == "tar" else "a class"
        raise DataError(
            f"None of the {counted(photos, 'photo')} of {containers.root} has a label ({how}). "
            f"The first file is {parts[0].name}."
        )
    if missing := [name for name in images.classes if name not in found]:
        near = did_you_mean(missing[0], found)
        raise DataError(f"{containers.root} has no class {missing[0]!r}. It has: {shown(sorted(found))}.{near}")
    classes = sorted(set(images.classes) or found)
    if len(classes) < 2:
        raise DataError(f"{containers.root} has one class ({shown(classes)}); a classifier needs at least 2.")
    if len(classes) > _UNLIKELY and 2 * len(classes) > found.total():
        raise DataError(
            f"{containers.root} gives {found.total():,} photos {len(classes):,} different labels, such as "
            f"{shown(classes)}: these are hardly classes.\n  Name the field or column: --images.label-column NAME."
        )
    check_class_names(classes)
    if untrained := [name for name in classes if name not in trained]:
        raise DataError(f"No photo of train has the class {untrained[0]!r}, so no model can learn it. Leave it out.")
    return tuple(classes)


_NOT_USED, _LEFT_OUT, _UNLABELED_TEST = -3, -4, -5
"""Codes of photos beside the indices of classes and -1 for photos without a label."""


def _codes(part: _Part, own: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(N,) for each photo the index of its class, -1 without a label, or a code that says why it is not used."""
    index = {name: number for number, name in enumerate(classes)}
    without = _UNLABELED_TEST if part.split in ("val", "test") else -1
    table = [index.get(name, _LEFT_OUT) for name in own]
    if part.split == "unlabeled":
        return np.full(len(part.index.rows), -1, np.int32)
    # Negative labels count from the end: -1 is EMPTY, -2 is ABSENT.
    assert (EMPTY, ABSENT) == (-1, -2)
    return np.array([*table, _NOT_USED, without], np.int32)[part.index.rows["label"]]


def _chosen(part: _Part, own: Sequence[str], classes: Sequence[str]) -> "_Chosen":
    codes = _codes(part, own, classes)
    rows = np.flatnonzero(codes >= -1).astype(np.int32)
    return _Chosen(part.container, part.split, part.index, rows, codes[rows])


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The photos of one file that are used."""

    container: Container
    split: Split | None
    index: PhotoIndex
    rows: np.ndarray
    """(n,) int32, into the index."""
    labels: np.ndarray
    """(n,) int32, as in `PhotoFile`."""

    def file(self, number: int) -> PhotoFile:
        row, label = int(self.rows[number]), int(self.labels[number])
        offset, size, _, _ = self.index.rows[row].tolist()
        name, path, column = self.index.name(row), self.container.path, self.index.facts.column
        split = self.split if label >= 0 else "unlabeled"
        if column:
            inside = ParquetPhoto(self.container, column, offset, size)
            return PhotoFile(path.with_name(path.name + name), split, label, inside=inside)
        return PhotoFile(path / name, split, label, inside=TarPhoto(self.container, offset, size))


class StoredFiles(Sequence[PhotoFile]):
    """Photos of large files, in their order: made when they are asked for, since they may be millions."""

    def __init__(self, parts: tuple[_Chosen, ...], numbers: range | None = None) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part.rows) for part in parts))
        self._numbers = range(self._ends[-1]) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, which: int) -> PhotoFile: ...
    @overload
    def __getitem__(self, which: slice) -> "StoredFiles": ...
    def __getitem__(self, which: int | slice) -> "PhotoFile | StoredFiles":
        if isinstance(which, slice):
            return StoredFiles(self._parts, self._numbers[which])
        number = self._numbers[which]
        part = int(np.searchsorted(self._ends, number, side="right"))
        return self._parts[part].file(number - (self._ends[part - 1] if part else 0))

    def counts(self) -> Counter[tuple[Split | None, int]]:
        """Photos by split and label."""
        if len(self) < self._ends[-1]:
            return Counter((file.split, file.label) for file in self)
        found: Counter[tuple[Split | None, int]] = Counter()
        for part in self._parts:
            for label, number in zip(*np.unique(part.labels, return_counts=True), strict=True):
                found[part.split if label >= 0 else "unlabeled", int(label)] += int(number)
        return found


def _notes(
    containers: Containers, splits: Mapping[Path, Split | None], parts: Sequence[_Part], name_file: Path | None
) -> Iterator[str]:
    """What was understood."""
    what = {"tar": "tar shard", "parquet": "parquet file"}[containers.kind]
    by_split = Counter(splits.values())
    listed = ", ".join(f"{by_split[split]:,} of {split}" for split in SPLITS if by_split[split])
    used = list(dict.fromkeys(way for part in parts for way in part.facts.used))
    column = f"photos from column {parts[0].facts.column}, " if parts[0].facts.column else ""
    names = f", names of classes from {name_file.name}" if name_file else ""
    names = names or (", names of classes from the files' metadata" if parts[0].facts.names else "")
    photos = sum(len(part.index.rows) for part in parts)
    yield (
        f"{counted(len(parts), what)}{f' ({listed})' if listed else ''} with {counted(photos, 'photo')}, read where "
        f"they lie: {column}classes from {' and '.join(used)}{names}."
    )
    if containers.kind == "parquet" and parts[0].facts.other:
        yield f"Columns that are not used: {parts[0].facts.other}."


def _losses(parts: Sequence[_Part], labels: Sequence[Sequence[str]], classes: Sequence[str]) -> Iterator[str]:
    """Photos that are not used, counted by reason, each with an example."""
    reasons = {
        _NOT_USED: "nothing says its class",
        _UNLABELED_TEST: "of val or test without a label",
        _LEFT_OUT: "of a class that images.classes leaves out",
    }
    total: Counter[int] = Counter()
    first: dict[int, str] = {}
    for part, own in zip(parts, labels, strict=True):
        codes = _codes(part, own, classes)
        for reason in reasons:
            if number := int(np.count_nonzero(codes == reason)):
                total[reason] += number
                first.setdefault(reason, f"{part.name}/{part.index.name(int(np.argmax(codes == reason)))}")
    for reason, text in reasons.items():
        if total[reason]:
            yield f"{counted(total[reason], 'photo')} not used, such as {first[reason]}: {text}."
    if lone := sum(part.facts.lone for part in parts):
        example = next(f"{part.name}/{part.facts.lone_one}" for part in parts if part.facts.lone)
        yield f"{counted(lone, 'label has', 'labels have')} no photo, such as {example}."


def _unused(containers: Containers, parts: Sequence[_Part], name_file: Path | None) -> tuple[Unused, ...]:
    """Members and files that are neither photos nor labels."""
    found = []
    if containers.kind == "tar":
        if members := sum(part.facts.others for part in parts):
            example = next(f"{part.name}/{part.facts.other}" for part in parts if part.facts.others)
            found.append(Unused(example + (", …" if members > 1 else ""), members, OTHER))
        if special := sum(part.facts.special for part in parts):
            example = next(f"{part.name}/{part.facts.special_one}" for part in parts if part.facts.special)
            found.append(Unused(example + (", …" if special > 1 else ""), special, "links and other special files"))
    if beside := [path.relative_to(containers.root).as_posix() for path in containers.others if path != name_file]:
        names = ", ".join(sorted(beside)[:_LISTED]) + (", …" if len(beside) > _LISTED else "")
        found.append(Unused(names, len(beside), OTHER))
    return tuple(found)
