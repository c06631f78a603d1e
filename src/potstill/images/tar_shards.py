"""Tar shards as webdataset writes them: members with one key are one photo and its label.

The key is the path up to the first dot of the file name. The class is in KEY.cls, as a number or a name, or in a field
of KEY.json; without either, it is the folder that the photo lies in. Only the headers and the labels of a shard are
read.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from potstill.errors import DataError
from potstill.images.archives import MAX_FILES, safe_parts
from potstill.images.photo_index import ABSENT, EMPTY, ROW, Facts, PhotoIndex
from potstill.images.stored import Container
from potstill.images.tar_headers import TarMember, tar_members

PHOTOS = frozenset(
    (
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "webp",
        "gif",
        "bmp",
        "dib",
        "tif",
        "tiff",
        "avif",
        "ppm",
        "pgm",
        "jp2",
        "ico",
    )
) | {"heic", "heif", "jxl"}
"""Extensions of photos in shards; everything else beside a label has another purpose."""

FIELDS = ("label", "labels", "class", "cls", "class_name", "classname", "category", "target", "y")
"""Fields of KEY.json that hold the class, in this order."""

_LABEL_BYTES, _JSON_BYTES = 1000, 2**20
_BUFFER = 1 << 13
"""Bytes that are read at once: photos are passed over."""
_SEVERAL = re.compile(r"-?\d+([\s,;|]+-?\d+)+|.*[\n\r].*", re.DOTALL)
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,8})")
_FIRST = 64
"""Members that show whether a tar is a shard."""

Label = int | str | None
"""A number or a name of a class; None for a photo without a label."""


def is_shard(path: Path) -> bool:
    """Whether a tar is a shard with labels in KEY.cls, by its first members."""
    try:
        with path.open("rb", buffering=_BUFFER) as file:
            first = itertools.islice(tar_members(file, path), _FIRST)
            return any(member.name.lower().endswith(".cls") for member in first)
    except (DataError, OSError):
        return False


def index_tar(container: Container, label_field: str) -> PhotoIndex:
    """The photos of one shard with their labels, by one pass over its headers.

    Args:
        label_field: of KEY.json; "" takes one with a usual name.
    Raises:
        DataError: it is damaged or cut short, names files outside of it, has too many members, the same one twice, two
            photos for one label, or a label that is not one class.
    """
    container.fetch()
    try:
        with container.path.open("rb", buffering=_BUFFER) as file:
            shard = _Shard(container.path, file, label_field)
            for count, member in enumerate(tar_members(file, container.path), 1):
                if count > MAX_FILES:
                    raise DataError(f"{container.path} has more than {MAX_FILES:,} members. Write smaller shards.")
                shard.add(member)
    except OSError as error:
        raise DataError(f"{container.path} cannot be read: {error.strerror}.") from None
    return shard.index()


class _Shard:
    """What was found in one shard so far."""

    def __init__(self, path: Path, file: BinaryIO, label_field: str) -> None:
        self._path, self._file, self._field = path, file, label_field
        self._photos: dict[str, tuple[int, int]] = {}
        """Offset and size by name."""
        self._labels: dict[str, tuple[Label, str]] = {}
        """Label, and the member that says so, by key."""
        self._facts = Facts()

    def add(self, member: TarMember) -> None:
        """Count a member as a photo, a label or neither."""
        name = "/".join(safe_parts(member.name, self._path))
        if not member.is_plain:
            self._facts.special += 1
            self._facts.special_one = self._facts.special_one or member.name
            return
        if not name:  # hidden, or of the system
            self._other(member.name)
            return
        kind = name.rpartition(".")[2].lower()
        if kind in PHOTOS:
            if name in self._photos:
                raise DataError(f"{self._path} has two members {name}. Write the shard again.")
            if "\0" in name:
                raise DataError(f"{self._path} has a member with a zero byte in its name. Write the shard again.")
            self._photos[name] = (member.offset, member.size)
        elif kind == "cls":
            self._say(name, self._text_label(name, self._read(member, name, _LABEL_BYTES)))
        elif kind == "json":
            self._add_json(member, name)
        else:
            self._other(name)

    def _add_json(self, member: TarMember, name: str) -> None:
        try:
            values: Any = json.loads(self._read(member, name, _JSON_BYTES))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self._path}: {name} is not JSON: {error}.") from None
        known = values if isinstance(values, dict) else {}
        if self._field and self._field not in known:
            raise DataError(f"{self._path}: {name} has no field {self._field!r} (images.label_column).")
        field = self._field or next((field for field in FIELDS if field in known), "")
        if field:
            self._say(name, plain_label(known[field], f"{self._path}: the field {field!r} of {name}"))
        else:
            self._other(name)

    def _say(self, name: str, label: Label) -> None:
        before = self._labels.setdefault(key_of(name), (label, name))
        if isinstance(before[0], int) != isinstance(label, int):  # a number, and its name
            if name.lower().endswith(".cls"):
                self._labels[key_of(name)] = (label, name)
        elif before[0] != label:
            raise DataError(
                f"{self._path}: {before[1]} says {before[0]!r} and {name} says {label!r}. A photo has one class here."
            )

    def _read(self, member: TarMember, name: str, most: int) -> bytes:
        if member.size > most:
            raise DataError(f"{self._path}: {name} has {member.size:,} bytes; a label may have {most:,}.")
        self._file.seek(member.offset)
        return self._file.read(member.size)

    def _text_label(self, name: str, data: bytes) -> Label:
        try:
            text = data.decode().strip()
        except UnicodeDecodeError:
            raise DataError(f"{self._path}: {name} is not a text in UTF-8: {data[:20]!r}.") from None
        if _SEVERAL.fullmatch(text):
            raise DataError(f"{self._path}: {name} has several labels, {text[:40]!r}. A photo has one class here.")
        return plain_label(text, f"{self._path}: {name}")

    def _other(self, name: str) -> None:
        self._facts.others += 1
        self._facts.other = self._facts.other or name

    def index(self) -> PhotoIndex:
        """Of all members."""
        rows, end, used = np.zeros(len(self._photos), ROW), 0, dict[str, str]()
        codes: dict[Label, int] = {None: EMPTY}
        used_for: dict[str, None] = {}
        for row, (name, (offset, size)) in enumerate(self._photos.items()):
            key = key_of(name)
            if key in self._labels:
                label, where = self._labels[key]
                if (other := used.setdefault(key, name)) != name:
                    raise DataError(f"{self._path}: {other} and {name} share the label of {where}. Keep one of them.")
                used_for["KEY.cls" if where.lower().endswith(".cls") else "KEY.json"] = None
                code = codes.setdefault(label, len(codes) - 1)
            elif "/" in name:
                used_for["class folders"] = None
                code = codes.setdefault(self._folder(name), len(codes) - 1)
            else:
                code = ABSENT
            end += len(name.encode("utf-8", "surrogateescape"))
            rows[row] = (offset, size, end, code)
        lone = [where for key, (_, where) in self._labels.items() if key not in used]
        self._facts.lone, self._facts.lone_one = len(lone), lone[0] if lone else ""
        self._facts.labels = [label for label in codes if label is not None]
        self._facts.used = list(used_for)
        names = "".join(self._photos).encode("utf-8", "surrogateescape")
        return PhotoIndex(rows, np.frombuffer(names, np.uint8), self._facts)

    def _folder(self, name: str) -> Label:
        folder, _, _ = name.rpartition("/")
        if "/" in folder:
            raise DataError(
                f"{self._path}: {name} has no label and lies {folder.count('/') + 1} folders deep. A shard has its "
                "class folders outermost (CLASS/KEY.jpg), or a label for each photo (KEY.cls)."
            )
        return plain_label(folder, name)


def key_of(name: str) -> str:
    """The path of a member up to the first dot of its file name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def plain_label(value: Any, where: str) -> Label:
    """A label as a number, a name, or None where it is empty. Raises DataError for what is not one class."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if _NUMBER.fullmatch(text) else text or None
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise DataError(f"{where} holds {str(value)[:40]!r}, which is not one class.")
