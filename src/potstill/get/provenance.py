"""`provenance.jsonl`: one line for every photo that was tried: where it is from, whose it is, whether it was kept.

Only ever appended to; the last line of a key counts. A line that a crash cut off is dropped when the file is opened
again. The name is not metadata.jsonl because other tools read labels from that.
"""

import contextlib
import csv
import datetime
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from filelock import FileLock, Timeout

from potstill.errors import DataError
from potstill.run import files

NAME = "provenance.jsonl"
ATTRIBUTION = "ATTRIBUTION.csv"
LOCK = ".provenance.lock"

Status = Literal["ok", "rejected", "failed"]
"""ok: in its place. rejected: never tried again. failed: tried again by the next `get`."""


def latest(root: Path) -> Iterator[dict[str, Any]]:
    """The last line of every key and class, in the order of the file; read twice, so that none is kept in memory."""
    last = {_mark(entry): number for number, entry in enumerate(lines(root))}
    for number, entry in enumerate(lines(root)):
        if last[_mark(entry)] == number:
            yield entry


def lines(root: Path) -> Iterator[dict[str, Any]]:
    """Every complete line."""
    path = Path(root) / NAME
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # cut off by a crash
            try:
                entry = json.loads(line)
                entry["key"], entry["status"]
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{path} is damaged in line {number}. Fix or remove that line.") from None
            yield entry


class Writer:
    """Appends lines. Use as a context manager; a second one for the same folder is refused meanwhile."""

    def __init__(self, root: Path) -> None:
        self._path = Path(root) / NAME
        self._lock = FileLock(Path(root) / LOCK)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"Another `potstill get` is writing to {self._path.parent}. Wait for it, or stop it first."
            ) from None
        self._file = self._path.open("ab", buffering=0)
        _cut_torn_line(self._path)
        self._size = self._path.stat().st_size
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # on a full disk there is another error to show already
            os.fsync(self._file.fileno())
        self._file.close()
        self._lock.release()

    def write(self, key: str, status: Status, **facts: Any) -> None:
        """Append one line, all of it or nothing, and unbuffered: it survives a killed process."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        text = json.dumps({"key": key, "status": status, **facts, "at": now}, ensure_ascii=False)
        line = text.encode("utf-8", "replace") + b"\n"  # servers send headers and names that are no text
        try:
            written = self._file.write(line)
        except OSError:
            self._file.truncate(self._size)
            raise
        if written != len(line):
            self._file.truncate(self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._size += written


def _mark(entry: dict[str, Any]) -> int:
    return hash((entry["key"], entry.get("label")))


def write_attribution(root: Path) -> Path:
    """`ATTRIBUTION.csv`: author, title, link and license of every photo in place, as CC BY asks."""
    path = Path(root) / ATTRIBUTION
    with files.replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "author", "title", "link", "license", "license_url", "source"])
        for entry in latest(root):
            if entry["status"] == "ok":
                link = entry.get("landing_url") or entry.get("url")
                row = [entry.get(name) for name in ("path", "author", "title")]
                row += [link, *(entry.get(name) for name in ("license", "license_url", "source"))]
                table.writerow([_plain(str(value or "")) for value in row])
    return path


def _plain(value: str) -> str:
    """One line, and no formula: the texts come from strangers, and spreadsheets run what begins with = or +."""
    value = " ".join(value.split())
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**20))
        end = file.read()
        if not end.endswith(b"\n"):
            file.truncate(size - len(end) + end.rfind(b"\n") + 1)
