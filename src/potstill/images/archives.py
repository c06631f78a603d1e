"""Zip and tar files of photos: unpacked once, into a folder that is named after their content.

An archive can be made to do harm. Only plain files are written, none outside of the folder, and no more of them than
the limits here; links, devices and hidden files are left out.
"""

import bz2
import contextlib
import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from filelock import FileLock

from potstill.errors import DataError
from potstill.images.ignored import is_system_folder
from potstill.images.split_names import split_of
from potstill.run.files import check_space, read_json, sha256_of, write_json, write_text
from potstill.wording import counted

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")

MAX_FILES = 2_000_000
MAX_BYTES = 200 * 2**30
"""Files and bytes that an archive may unpack to."""
MAX_RATIO = 200
"""Bytes that may come out of one byte of the archive: photos hardly shrink, decompression bombs do."""
ALWAYS_ALLOWED = 100 * 2**20
"""Bytes that may come out of any archive, whatever its ratio."""

_BLOCK = 2**20
_MARK = ".unpacked.json"
"""What was unpacked, in the folder; written last."""
_TIME = 315_532_800
"""Time of every unpacked file, 1980-01-01: unpacked again it must look like the same photo to a run."""
_DAMAGES = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, LookupError, NotImplementedError, RuntimeError),
)
"""What the libraries raise for archives that are damaged or that they do not know."""
_BAD_NAMES = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL}
"""What the system says to names that it does not take, or that are a file and a folder at once."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The files of an archive."""

    root: Path
    """The folder of the photos: the topmost one that is not alone."""
    note: str
    """A line about what was unpacked, and what was not."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A file in an archive."""

    name: str
    file: IO[bytes] | None
    """None for what is not a plain file."""


@dataclass(slots=True)
class _Facts:
    """What is known of an unpacked archive."""

    files: int = 0
    bytes: int = 0
    skipped: int = 0
    example: str = ""
    """One of the skipped members."""


def is_archive(path: Path) -> bool:
    """Whether a path is a file with the name of an archive."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpack(archive: Path, into: Path) -> Unpacked:
    """Unpack an archive to a folder below `into`, if that has not been done before.

    Raises:
        DataError: it is damaged, needs a password, names files outside of it, or is too large.
        SpaceError: it does not fit on the disk.
    """
    digest = sha256_of(archive)[:16]
    target = into / digest
    into.mkdir(parents=True, exist_ok=True)
    write_text(into / ".gitignore", "*\n")
    with FileLock(into / f".{digest}.lock"):
        if not (target / _MARK).is_file():
            _unpack_to(archive, target)
    facts = _Facts(**read_json(target / _MARK))
    special = counted(facts.skipped, "link or other special file", "links and other special files")
    left_out = f"; {special} left out, such as {facts.example}"
    note = f"{archive.name}: {counted(facts.files, 'file')}, unpacked to {target}, where later commands find them"
    note += f"{left_out if facts.skipped else ''}."
    return Unpacked(_photo_root(target), note)


def _unpack_to(archive: Path, target: Path) -> None:
    """Fill a folder beside the target, and rename it when it is whole."""
    check_space(target.parent, archive.stat().st_size, f"Unpacking {archive.name}")
    partial = target.with_name(target.name + ".part")
    for leftover in (partial, target):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        write_json(partial / _MARK, asdict(_extract(archive, partial)))
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> _Facts:
    facts, limit = _Facts(), _limit(archive)
    members = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    try:
        for member in members(archive, limit):
            parts = safe_parts(member.name, archive)
            if member.file is None and parts:
                facts.skipped += 1
                facts.example = facts.example or "/".join(parts)
            elif member.file is not None and parts:
                facts.files += 1
                _require(facts.files <= MAX_FILES, archive, f"holds more than {MAX_FILES:,} files")
                facts.bytes = _write(member.file, folder.joinpath(*parts), facts.bytes, limit, archive)
    except _DAMAGES as error:
        raise DataError(f"{archive} is damaged, or not an archive: {error}") from None
    except (OSError, ValueError) as error:
        code = getattr(error, "errno", None)
        if code is not None and code not in _BAD_NAMES:
            raise  # a full disk is no fault of the archive
        raise DataError(f"{archive} cannot be unpacked: {error}") from None
    return facts


def _limit(archive: Path) -> int:
    return min(MAX_BYTES, ALWAYS_ALLOWED + MAX_RATIO * archive.stat().st_size)


def _require(condition: bool, archive: Path, why: str) -> None:
    if not condition:
        raise DataError(f"{archive} {why}. Unpack it yourself if you trust it, and give the folder.")


def _require_size(count: int, limit: int, archive: Path) -> None:
    why = f"unpacks to more than {limit:,} bytes, {MAX_RATIO} times its own size: it looks like a decompression bomb"
    _require(count <= limit, archive, why if limit < MAX_BYTES else f"unpacks to more than {limit:,} bytes")


def safe_parts(name: str, archive: Path) -> tuple[str, ...]:
    """Folders and name of a member; empty for hidden files and what macOS adds, which are no photos."""
    text = name.replace("\\", "/")
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    outside = text.startswith("/") or re.match("[A-Za-z]:", text) or ".." in parts
    _require(not outside, archive, f"names a file outside of it, {name!r}")
    hidden = parts[-1:] and (parts[-1].startswith(".") or any(is_system_folder(part) for part in parts))
    return () if hidden else parts


def _write(source: IO[bytes], path: Path, count: int, limit: int, archive: Path) -> int:
    """Copy a member. Returns the bytes of all members so far, `count` of them before this one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        while block := source.read(_BLOCK):
            count += len(block)
            _require_size(count, limit, archive)
            target.write(block)
    os.utime(path, (_TIME, _TIME))
    return count


def _zip_members(archive: Path, limit: int) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        _require_size(sum(info.file_size for info in infos), limit, archive)
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.filename.endswith("/"):
                continue
            if kind not in (0, stat.S_IFREG):
                yield _Member(info.filename, None)
                continue
            _require(not info.flag_bits & 1, archive, "needs a password")
            with opened.open(info) as file:
                yield _Member(info.filename, file)


def _tar_members(archive: Path, limit: int) -> Iterator[_Member]:
    with (
        _decompressed(archive) as plain,
        tarfile.open(fileobj=cast(IO[bytes], _Counted(plain, limit, archive)), mode="r|") as opened,
    ):
        for item in opened:
            if item.isdir():
                continue
            # A sparse file can claim any size without a byte in the archive.
            plain_file = item.isreg() and not item.issparse()
            yield _Member(item.name, opened.extractfile(item) if plain_file else None)


@contextlib.contextmanager
def _decompressed(archive: Path) -> Iterator[IO[bytes]]:
    """The tar in a compressed tar, as a stream."""
    openers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open, "zst": _open_zstd}
    kind = archive.name.lower().rpartition(".")[2].removeprefix("t")  # .tgz is .tar.gz
    with openers[kind](archive) if kind in openers else archive.open("rb") as file:
        yield file


def _open_zstd(archive: Path) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise DataError(f"{archive} needs pyarrow: pip install 'potstill[data]'.") from None
    return pyarrow.input_stream(str(archive), compression="zstd")


class _Counted:
    """A stream that ends in a DataError where too much comes out of it: headers, too, can be bombs."""

    def __init__(self, file: IO[bytes], limit: int, archive: Path) -> None:
        self._file, self._limit, self._archive = file, limit, archive
        self._count = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._count += len(data)
        _require_size(self._count, 2 * self._limit, self._archive)  # headers and padding are not files
        return data


def _photo_root(folder: Path) -> Path:
    """The folder itself, or what it holds as long as that is one folder that is not a split."""
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if len(entries) != 1 or not entries[0].is_dir() or split_of(entries[0].name):
            return folder
        folder = entries[0]
