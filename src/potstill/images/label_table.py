"""Photos and a table that says what they show: a path and a class in every row, perhaps a split and a group. Where a
photo may have several labels, `potstill.images.label_cells` reads them.

Columns have many names, and paths many beginnings: both are understood where there is no doubt, and the `notes` of the
folder say how. What is doubtful is refused, with the rows.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from potstill.config.schema import ImagesConfig
from potstill.data.splits import LABELED, SPLITS, Split
from potstill.data.table_file import Row, Table, read_table
from potstill.errors import ConfigError, DataError, did_you_mean
from potstill.images.class_folders import shown
from potstill.images.folder import Folder, PhotoFile, check_class_name, check_class_names, plain_name
from potstill.images.ignored import Unused
from potstill.images.label_cells import LabelCells, Labels, cell_text
from potstill.images.split_names import split_of
from potstill.images.tree import read_tree
from potstill.wording import counted

_PATHS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "filepaths"),
    *("image", "image_path", "image_file", "image_name", "image_id", "img", "img_path", "photo", "id"),
)
_LABELS = ("label", "labels", "class", "class_name", "classname", "category", "target", "y")
_SPLITS = ("split", "data_set", "dataset", "subset", "partition", "set")
_GROUPS = ("group", "group_id", "patient_id", "subject_id")
_NONE = "none"

_LISTED = 5
"""Faults or examples that a message names."""


@dataclass(frozen=True, slots=True)
class TableSource:
    """A table of labels, and where its photos are."""

    path: Path
    base: Path
    """Its paths begin here."""
    split: Split | None = None
    """Of all its photos."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which column says what; "" where none does."""

    path: str
    labels: tuple[str, ...]
    """The one with the labels; several where each class has one."""
    split: str
    group: str

    @property
    def names(self) -> list[str]:
        return [name for name in (self.path, *self.labels, self.split, self.group) if name]

    def words(self) -> str:
        classes = f"{len(self.labels)} of 0 and 1" if len(self.labels) > 1 else self.labels[0]
        return ", ".join(name for name in (self.path, classes, self.split, self.group) if name)


@dataclass(frozen=True, slots=True)
class _Labeled:
    """What a row says about a photo that is there."""

    path: Path
    labels: Labels
    """None where they are not known; one, unless a photo may have several, or none."""
    split: Split | None
    group: str
    where: str
    """The table and the row, for messages."""
    rows: int = 1
    """That its labels come from."""

    @property
    def is_labeled(self) -> bool:
        return self.labels is not None

    @property
    def facts(self) -> tuple[str, Split | None, str]:
        return "|".join(sorted(self.labels or ())), self.split, self.group


@dataclass(slots=True)
class _Reading:
    """What has been read so far."""

    root: Path
    images: ImagesConfig
    several: bool
    """Whether a photo may have several labels."""
    to_train: bool = True
    """Whether the classes must be those of a classifier to be trained."""
    photos: dict[Path, _Labeled] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    """A sentence about each table."""
    notes: list[str] = field(default_factory=list)


def read_labeled(root: Path, sources: Sequence[TableSource], images: ImagesConfig, *, to_train: bool = True) -> Folder:
    """The photos below a folder that tables name.

    Photos without a row are not used, but for those in `root/unlabeled/`. A row without a class is a photo without a
    label. Rows without a photo are counted.

    Args:
        to_train: False takes a single class, too, and classes that train does not have.
    Raises:
        ConfigError: a column that the settings name is not there.
        DataError: a column is missing, rows are wrong or contradict each other, no photo is found, or the classes are
            not those of a classifier.
    """
    tables = [_Opened.of(source, images) for source in sources]
    several = any(table.cells.several for table in tables)
    tables = [replace(table, cells=replace(table.cells, several=several)) for table in tables]
    reading = _Reading(root, images, several, to_train)
    for table in tables:
        _read_source(table, reading)
    _refuse(reading)
    photos = _in_splits(list(reading.photos.values()), reading)
    photos, classes = _in_classes(_drawn_where_needed(photos, reading), reading)
    files = [_file(photo, classes, several=several) for photo in photos]
    unlabeled, unused = _without_row(reading)
    files += [PhotoFile(path, "unlabeled", -1) for path in unlabeled]
    order = {split: number for number, split in enumerate((None, *SPLITS))}
    files.sort(key=lambda file: (order[file.split], file.label, file.path))
    flat = not any(file.split in LABELED for file in files)
    notes = (*reading.summaries, *reading.notes)
    return Folder(
        root,
        tuple(classes),
        tuple(files),
        flat,
        unused=unused,
        notes=notes,
        from_table=True,
        several_labels=several,
    )


def _file(photo: _Labeled, classes: Sequence[str], *, several: bool) -> PhotoFile:
    """A photo with its labels by number."""
    split = photo.split if photo.is_labeled else "unlabeled"
    numbers = tuple(sorted(classes.index(name) for name in photo.labels or ()))
    first = numbers[0] if numbers else len(classes) if photo.is_labeled else -1
    return PhotoFile(photo.path, split, first, photo.group, labels=numbers if several else ())


@dataclass(frozen=True, slots=True)
class _Opened:
    """A table, and how its labels are read."""

    source: TableSource
    table: Table
    columns: _Columns
    cells: LabelCells

    @classmethod
    def of(cls, source: TableSource, images: ImagesConfig) -> "_Opened":
        table = read_table(source.path)
        columns = _columns(table, images)
        return cls(source, table, columns, LabelCells.of(table, columns.labels, images))


def _read_source(opened: _Opened, reading: _Reading) -> None:
    """Add the photos of one table."""
    source, table, columns = opened.source, opened.table, opened.columns
    index = _Index(source.base)
    absent: list[str] = []
    repeated = 0
    before = len(reading.photos)
    for row in table.rows:
        where = f"{source.path}, row {row.number}"
        try:
            photo = _photo(row, opened, index, where)
        except DataError as error:
            reading.faults.append(f"{where}: {error}")
            continue
        if photo is None:
            absent.append(f"row {row.number}: {cell_text(row.values.get(columns.path))}")
            continue
        first = reading.photos.setdefault(photo.path, photo)
        if first.facts == photo.facts or _is_part_of(photo, first):
            repeated += first is not photo
        elif opened.cells.several and _each_has_one(first, photo):
            labels = (*(first.labels or ()), *(photo.labels or ()))
            reading.photos[photo.path] = replace(first, labels=labels, rows=first.rows + 1)
        else:
            reading.faults.append(f"{where}: {photo.path.name} {_contradiction(first, photo, reading)}")
    if len(absent) == len(table.rows):
        hint = " Photos at addresses are downloaded by `potstill get`." if "://" in absent[0] else ""
        raise DataError(
            f"None of the {counted(len(table.rows), 'row')} of {source.path} names a photo below {source.base}: "
            f"{absent[0]}.\n  The paths in the column {columns.path!r} must begin there, or --images.path-column must "
            f"name another column.{hint}"
        )
    reading.summaries.append(_summary(table, columns, len(reading.photos) - before))
    reading.notes += opened.cells.notes(table)
    if absent:
        reading.notes.append(
            f"{counted(len(absent), 'row names', 'rows name')} no photo that is there, such as {absent[0]}."
        )
    if repeated:
        reading.notes.append(f"{counted(repeated, 'row repeats', 'rows repeat')} another one.")


def _summary(table: Table, columns: _Columns, photos: int) -> str:
    others = [name for name in table.columns if name and name not in columns.names]
    unused = f"; not used: {shown(others)}" if others else ""
    odd = f", read as {table.encoding}, since it is not UTF-8" if table.encoding else ""
    return (
        f"Labels from {table.path.name}{odd}: {counted(len(table.rows), 'row')}, {counted(photos, 'photo')} "
        f"(columns used: {columns.words()}{unused})."
    )


def _is_part_of(photo: _Labeled, first: _Labeled) -> bool:
    """Whether a row repeats one of those that a photo's labels were put together from."""
    return first.rows > 1 and first.facts[1:] == photo.facts[1:] and set(photo.labels or ()) < set(first.labels or ())


def _each_has_one(first: _Labeled, second: _Labeled) -> bool:
    """Whether two rows of a photo are parts of one list: each has one label, and the rest is the same."""
    return first.facts[1:] == second.facts[1:] and len(second.labels or ()) == 1 == len(first.labels or ()) / first.rows


def _contradiction(first: _Labeled, second: _Labeled, reading: _Reading) -> str:
    names = ("labels" if reading.several else "class", "split", "group")
    what = [
        f"the {name} {a or 'none'!r} and the {name} {b or 'none'!r}"
        for name, a, b in zip(names, first.facts, second.facts, strict=True)
        if a != b
    ]
    return f"has {' and '.join(what)}; the first is in {first.where.rpartition(', ')[2]}"


def _refuse(reading: _Reading) -> None:
    """Raise DataError for faults of rows, if there are any."""
    faults = reading.faults
    if faults:
        more = f"\n    and {len(faults) - _LISTED:,} more" if len(faults) > _LISTED else ""
        lines = "\n".join(f"    {fault}" for fault in faults[:_LISTED])
        hint = ""
        if not reading.several and any(" the class " in fault for fault in faults):
            hint = " If photos may have several labels: --images.labels-per-photo several."
        raise DataError(
            f"The table cannot be used as it is:\n{lines}{more}\n  Correct these rows, or remove them.{hint}"
        )


def _columns(table: Table, images: ImagesConfig) -> _Columns:
    """Which column says what: as the settings name them, or by their usual names."""
    path = _chosen(table, "path_column", images.path_column) or _usual(table, _PATHS)
    if not path:
        raise DataError(_no_column(table, "the paths of the photos", "path"))
    label = _chosen(table, "label_column", images.label_column)
    split = "" if images.split_column == _NONE else _chosen(table, "split_column", images.split_column)
    group = "" if images.group_column == _NONE else _chosen(table, "group_column", images.group_column)
    taken = {path, label, split, group}
    label = label or _usual(table, _LABELS, taken)
    if not split and images.split_column != _NONE:
        split = _usual(table, _SPLITS, taken | {label})
    if not group and images.group_column != _NONE and not images.group_pattern:
        group = _usual(table, _GROUPS, taken | {label})
    left = [name for name in table.columns if name and name not in (path, split, group)]
    if is_class_table(table.path) and images.labels_per_photo != "one" and not images.label_column:
        if len(left) < 2:
            raise DataError(f"{table.path} has {counted(len(left), 'class')}; a classifier needs at least 2.")
        return _Columns(path, tuple(left), split, group)
    if not label:
        if images.labels_per_photo == "several" and len(left) > 1 and _is_one_hot(table):
            return _Columns(path, tuple(left), split, group)
        if len(left) != 1:
            raise DataError(_no_column(table, "the classes", "label"))
        label = left[0]
    return _Columns(path, (label,), split, group)


def is_class_table(path: Path) -> bool:
    """Whether a table is Roboflow's for several labels per photo, with a column of 0 and 1 for each class."""
    return path.name == "_classes.csv"


def _chosen(table: Table, setting: str, name: str) -> str:
    """The column that a setting names, in any case. Raises ConfigError where there is none."""
    if not name:
        return ""
    found = [column for column in table.columns if column == name] or [
        column for column in table.columns if _plain(column) == _plain(name)
    ]
    if not found:
        raise ConfigError(
            f"images.{setting}: {table.path} has no column {name!r}.{did_you_mean(name, table.columns)} "
            f"It has: {shown(table.columns)}."
        )
    return found[0]


def _usual(table: Table, names: Sequence[str], taken: set[str] | None = None) -> str:
    """The first column that has one of these names, in the order of the names."""
    by_name = {_plain(column): column for column in reversed(table.columns) if column not in (taken or ())}
    return next((by_name[name] for name in names if name in by_name), "")


def _plain(column: str) -> str:
    return column.strip().casefold().replace(" ", "_").replace("-", "_")


def _no_column(table: Table, what: str, setting: str) -> str:
    if setting == "label" and _is_one_hot(table):
        return (
            f"{table.path} has a column of 0 and 1 for each class.\n  If photos may have several labels: "
            "--images.labels-per-photo several. If each has one: make a column with it, named label."
        )
    return (
        f"{table.path} has no column that is known to hold {what}. Its columns: {shown(table.columns)}.\n"
        f"  Name the column with --images.{setting}-column; the first row must be a header."
    )


def _is_one_hot(table: Table) -> bool:
    """Whether there are two or more columns of nothing but 0 and 1."""
    rows = table.rows[:100]
    found = [c for c in table.columns if all(cell_text(row.values.get(c)) in ("0", "1", "0.0", "1.0") for row in rows)]
    return len(found) > 1


def _photo(row: Row, opened: _Opened, index: "_Index", where: str) -> _Labeled | None:
    """What a row says; None where there is no such photo. Raises DataError for a row that is wrong."""
    columns, source = opened.columns, opened.source
    name = cell_text(row.values.get(columns.path))
    path = index.find(_parts(name, index))
    labels = opened.cells.labels(row)
    group = cell_text(row.values.get(columns.group)) if columns.group else ""
    for label in labels or ():
        check_class_name(label)
    if unprintable := [c for c in group if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]:
        raise DataError(f"the group {group!r} holds {unprintable[0]!r}")
    split = source.split
    if columns.split and (text := cell_text(row.values.get(columns.split))):
        split = split_of(text)
        if split is None:
            raise DataError(
                f"{text!r} in the column {columns.split!r} is not a split; known are train, val, test and unlabeled "
                "(--images.split-column none ignores the column)"
            )
    if path is None:
        return None
    if split == "unlabeled":
        return _Labeled(path, None, split, group, where)
    return _Labeled(path, opened.cells.known(labels), split, group, where)


def _parts(name: str, index: "_Index") -> tuple[str, ...]:
    """Folders and file name of a path in a table. Raises DataError for a path that leads out of the folder."""
    if not name:
        raise DataError("the path is empty")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise DataError(f"the path {name[:60]!r} holds characters that no path has")
    text = name.replace("\\", "/")
    drive = len(text) > 1 and text[1] == ":"
    if text.startswith("/") or drive:
        base = index.absolute.as_posix().rstrip("/") + "/"
        if not text.startswith(base):
            raise DataError(f"{name!r} is an absolute path, and not one below {index.root}")
        text = text.removeprefix(base)
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if ".." in parts:
        raise DataError(f"{name!r} leads out of the folder")
    if not parts:
        raise DataError(f"{name!r} is not a file")
    return parts


class _Index:
    """The files below a folder, to be found by what a table calls them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.absolute = root.resolve()

    def find(self, parts: tuple[str, ...]) -> Path | None:
        """The file with this path; or the only one whose path ends so, with or without a photo's suffix.

        Raises:
            DataError: several files end so.
        """
        parts = self._below(parts)
        exact = self.root.joinpath(*parts)
        try:
            if exact.is_file():
                return exact
        except (OSError, ValueError):
            return None  # a name that the system does not take
        folded = tuple(unicodedata.normalize("NFC", part) for part in parts)
        found = [path for path in self._by_name.get(folded[-1], ()) if self._ends_with(path, folded[:-1])]
        if len(found) > 1:
            names = ", ".join(plain_name(path.relative_to(self.root)) for path in found[:2])
            folder = plain_name(found[0].parent.relative_to(self.root))
            raise DataError(
                f"{'/'.join(parts)!r} may be {len(found)} files, such as {names}; name the folder of the photos "
                f"({folder}) and give the table by --labels"
            )
        return found[0] if found else None

    def _below(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """The path without a beginning that repeats the end of the folder's own: `photos/a.jpg` in `data/photos`."""
        own = self.absolute.parts
        for count in range(len(parts) - 1, 0, -1):
            if own[-count:] == parts[:count] and not (self.root / parts[0]).is_dir():
                return parts[count:]
        return parts

    def _ends_with(self, path: Path, parents: tuple[str, ...]) -> bool:
        above = path.relative_to(self.root).parts[:-1]
        ours = tuple(unicodedata.normalize("NFC", part) for part in above[len(above) - len(parents) :])
        return len(above) >= len(parents) and ours == parents

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[Path]]:
        found: defaultdict[str, list[Path]] = defaultdict(list)
        for path in read_tree(self.root).all_photos():
            name = unicodedata.normalize("NFC", path.name)
            found[name].append(path)
            found[PurePosixPath(name).stem].append(path)
        return found


def _in_splits(photos: list[_Labeled], reading: _Reading) -> list[_Labeled]:
    """The photos with their split: the row's, or that of the folder that they lie in. A row with a label says more than
    a folder of photos without."""
    by_folder = [photo.split or _split_of_folder(photo.path, reading.root) for photo in photos]
    found = [
        replace(photo, split=None if photo.is_labeled and split == "unlabeled" else split)
        for photo, split in zip(photos, by_folder, strict=True)
    ]
    blank = [p for p in found if p.split in ("val", "test") and not p.is_labeled]
    if blank:
        reading.notes.append(f"{counted(len(blank), 'photo')} of val or test without a label: not used.")
    return [p for p in found if p.is_labeled or p.split not in ("val", "test")]


def _split_of_folder(path: Path, root: Path) -> Split | None:
    parts = path.relative_to(root).parts
    return split_of(parts[0]) if len(parts) > 1 else None


def _drawn_where_needed(photos: list[_Labeled], reading: _Reading) -> list[_Labeled]:
    """Without a split for test, Potstill draws it from train; with one, a photo without a split is for training."""
    labeled = Counter(photo.split for photo in photos if photo.is_labeled)
    if labeled["test"]:
        if labeled[None]:
            reading.notes.append(f"{counted(labeled[None], 'photo')} without a split: used for training.")
        return [replace(p, split="train") if p.split is None else p for p in photos]
    if labeled["train"]:
        reading.notes.append("No photo of test has a label, so a test split is drawn from the photos of train.")
    return [replace(p, split=None) if p.split == "train" else p for p in photos]


def _in_classes(photos: list[_Labeled], reading: _Reading) -> tuple[list[_Labeled], list[str]]:
    """The photos of the wanted classes, and the classes, sorted."""
    found = Counter(label for photo in photos for label in photo.labels or ())
    wanted = reading.images.classes
    if missing := [name for name in wanted if name not in found]:
        near = did_you_mean(missing[0], found)
        raise DataError(f"The table has no class {missing[0]!r}. It has: {shown(sorted(found))}.{near}")
    classes = sorted(wanted or found)
    if len(classes) < 2 and reading.to_train:
        raise DataError(
            f"The table has {counted(len(classes), 'class')} ({shown(classes)}); a classifier needs at least 2."
        )
    if len(classes) > _LISTED and 2 * len(classes) > found.total():
        raise DataError(
            f"The table gives {found.total():,} photos {len(classes):,} different labels, such as {shown(classes)}: "
            "these are hardly classes.\n  Name the column with the classes by --images.label-column."
        )
    check_class_names(classes)
    learned = [photo for photo in photos if photo.split in (None, "train") or not reading.to_train]
    trained = {label for photo in learned for label in photo.labels or ()}
    if untrained := [name for name in classes if name not in trained]:
        raise DataError(f"No photo of train has the class {untrained[0]!r}, so no model can learn it. Leave it out.")
    if left_out := sum(count for name, count in found.items() if name not in classes):
        what = "label" if reading.several else "photo"
        reading.notes.append(f"{counted(left_out, what)} of classes that images.classes leaves out: not used.")
    if reading.several:
        return [_within(photo, classes, reading.images) for photo in photos], classes
    return [photo for photo in photos if photo.labels is None or photo.labels[0] in classes], classes


def _within(photo: _Labeled, classes: Sequence[str], images: ImagesConfig) -> _Labeled:
    """The photo with those of its labels that are used. Raises DataError where none is left and no setting says what
    that means."""
    if not photo.labels:
        return photo
    kept = tuple(label for label in photo.labels if label in classes)
    if not kept and images.without_label == "refuse":
        raise DataError(
            f"{photo.where}: no label of {photo.path.name} is in images.classes.\n  --images.without-label none says "
            "that such photos show none of the classes."
        )
    return replace(photo, labels=kept or (() if images.without_label == "none" else None))


def _without_row(reading: _Reading) -> tuple[list[Path], tuple[Unused, ...]]:
    """Photos that no row names: those in `unlabeled/`, and all others, which are not used."""
    unlabeled, unused = list[Path](), list[Path]()
    for path in read_tree(reading.root).all_photos():
        if path not in reading.photos:
            (unlabeled if _split_of_folder(path, reading.root) == "unlabeled" else unused).append(path)
    if not unused:
        return unlabeled, ()
    example = plain_name(unused[0].relative_to(reading.root))
    why = "no row in the table; one with an empty label would let the teacher label it"
    return unlabeled, (Unused(example if len(unused) == 1 else f"{example}, …", len(unused), why),)
