"""The members of a tar file, by its headers alone: what a member holds is passed over.

Python's tarfile keeps every member in memory, and ends without a word where a shard was cut off behind a member.
Formats: POSIX.1-1988 (ustar), GNU and POSIX.1-2001 (pax).
"""

import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from potstill.errors import DataError

_BLOCK = 512
_FOLDER, _OLD_PLAIN = b"5", b"\0"
_PLAIN, _SPARSE = (b"0", _OLD_PLAIN, b"7"), b"S"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL = b"L", b"K", b"x", b"g"
_MAX_EXTRA = 2**20
"""Bytes of a header's extension, which holds a long name."""
_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")


class TarMember(NamedTuple):
    """A file, link or other entry in a tar."""

    name: str
    offset: int
    """Of its first byte."""
    size: int
    is_plain: bool
    """Whether it is a file that is stored as it is: no link, no device, no sparse file."""


def tar_members(file: BinaryIO, path: Path) -> Iterator[TarMember]:
    """Everything in an uncompressed tar but its folders. Between two members the file may be read elsewhere.

    Args:
        file: open for reading, buffered.
        path: of the file, for messages.
    Raises:
        DataError: it is not a tar, is damaged, or was cut off.
    """
    total = file.seek(0, io.SEEK_END)
    at, last, name, extra = 0, "", "", dict[bytes, bytes]()
    while True:
        file.seek(at)
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            raise DataError(f"{path} is cut short: it ends{_behind(last)} without the end mark of a tar.{_AGAIN}")
        if not header.rstrip(b"\0"):
            return
        if not _is_whole(header):
            what = (
                f"the header at byte {at:,}{_behind(last)} is wrong" if at else "its first header is not one of a tar"
            )
            raise DataError(f"{path} is damaged, or not a tar: {what}.{_AGAIN}")
        kind, size, start = header[156:157], _number(header[124:136], path, last), at + _BLOCK
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_FOR_ALL):
            if size > _MAX_EXTRA:
                raise DataError(f"{path} has a header of {size:,} bytes{_behind(last)}.{_AGAIN}")
            data = file.read(size)
            if kind == _LONG_NAME:
                name = _text(data.split(b"\0", 1)[0])
            elif kind == _PAX:
                extra = _records(data)
        else:
            if b"size" in extra:
                size = int(extra[b"size"]) if re.fullmatch(rb"\d{1,18}", extra[b"size"]) else -1
            name = _text(extra[b"path"]) if b"path" in extra else name or _own_name(header)
            if size < 0 or start + size > total:
                raise DataError(f"{path} is cut short: {name} should have {size:,} bytes at byte {start:,}.{_AGAIN}")
            if kind == _SPARSE:
                raise DataError(f"{path}: {name} is a sparse file, which only GNU tar reads. Write the shard again.")
            is_sparse = any(key.startswith(b"GNU.sparse") for key in extra)
            if kind != _FOLDER and not (kind == _OLD_PLAIN and name.endswith("/")):
                yield TarMember(name, start, size, kind in _PLAIN and not is_sparse)
            last, name, extra = name, "", {}
        at = start + -(-size // _BLOCK) * _BLOCK


_AGAIN = "\n  Copy or download it again."


def _behind(last: str) -> str:
    return f" behind the member {last}" if last else ""


def _is_whole(header: bytes) -> bool:
    """Whether a header has its checksum: the sum of its bytes, with spaces for the checksum itself."""
    stored = header[148:156].replace(b"\0", b" ").strip()
    if not stored or stored.strip(b"01234567"):
        return False
    plain = header[:148] + b"        " + header[156:]
    # The lower half of Adler-32 is 1 + the sum of the bytes, modulo 65,521: more than 256 bytes can have.
    return int(stored, 8) == sum((zlib.adler32(half) & 0xFFFF) - 1 for half in (plain[:256], plain[256:]))


def _number(field: bytes, path: Path, last: str) -> int:
    """A size: octal digits, or, of GNU, a number in base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.replace(b"\0", b" ").strip()
    if digits.strip(b"01234567"):
        raise DataError(f"{path} is damaged: the size of the member{_behind(last)} is {field!r}.{_AGAIN}")
    return int(digits or b"0", 8)


def _own_name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: length, key and value."""
    found: dict[bytes, bytes] = {}
    at = 0
    while match := _RECORD.match(data, at):
        length = int(match[1])
        found[match[2]] = data[match.end() : at + length - 1]
        if length <= match.end() - at:
            break
        at += length
    return found
