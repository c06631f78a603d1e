"""Files that are never seen half written, checksums, and room on the disk."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from potstill.errors import DamageError, PotstillError, SpaceError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, renamed to `path` when the block ends well, removed when it does not.

    The file is on the disk before it gets its name, and the name is on the disk when this returns: after a power loss
    there is the old file or the new one, and what was written before this file is there if this one is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names of a folder's files as they are now, on systems and disks that can."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that is never seen half written."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


REMOVE = "Remove it and run again."
"""The advice about a damaged file on which nothing else depends."""
REWRITTEN = "`potstill distill` with --run writes it again."
"""The advice about damaged run.json and config.toml."""

CHECKSUM = "checksum"
"""The last key of every JSON object that `write_json` writes: without it, one changed digit would be believed."""


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for JSON, indented, keys in the given order; an object gets its checksum as the last key."""
    if isinstance(value, Mapping):
        value = {**value, CHECKSUM: _checksum(value)}
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, advice: str = "Remove its folder and run again.") -> Any:
    """The value in a JSON file, without its checksum.

    Args:
        advice: what to do where it is damaged.
    Raises:
        DamageError: it is damaged.
        PotstillError: it is missing.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise PotstillError(f"{path} is missing.") from None
    except (ValueError, RecursionError) as error:  # not JSON, or not UTF-8
        raise DamageError(f"{path} is damaged: {error}. {advice}") from None
    if isinstance(value, dict) and value.pop(CHECKSUM, expected := _checksum(value)) != expected:
        raise DamageError(f"{path} is damaged: its values do not match its checksum. {advice}")
    return value


_LAST_LINE = "# checksum of the lines above: "


def with_checksum(text: str) -> str:
    """A TOML text with the checksum of its lines as a comment behind them."""
    return f"{text}\n{_LAST_LINE}{hashlib.sha256(text.encode()).hexdigest()[:16]}\n"


def read_toml_text(path: Path) -> str:
    """The text that `with_checksum` made. Raises DamageError where it is damaged, PotstillError where it is missing."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise PotstillError(f"{path} is missing.") from None
    except UnicodeDecodeError as error:
        raise DamageError(f"{path} is damaged: {error}. {REWRITTEN}") from None
    if with_checksum(text.rpartition(f"\n{_LAST_LINE}")[0]) != text:
        raise DamageError(f"{path} is damaged: its lines do not match its checksum. {REWRITTEN}")
    return text


def _checksum(value: Mapping[str, Any]) -> str:
    plain = {name: item for name, item in value.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SEAL = ".seal"
"""Ends the name of the file with the hash of another one, while their stage is not finished."""


def seal(path: Path) -> None:
    """Remember the hash of a file of an unfinished stage; `Stage.finish` keeps it in done.json instead."""
    write_text(path.with_name(path.name + SEAL), sha256_of(path))


def is_sealed(path: Path) -> bool:
    """Whether a file is there, and as it was when `seal` was called. Takes about a second per GB."""
    try:
        return path.with_name(path.name + SEAL).read_text("utf-8") == sha256_of(path)
    except (FileNotFoundError, UnicodeDecodeError):
        return False


def remove_sealed(path: Path) -> None:
    """Remove a file and its seal, if they are there."""
    for file in (path.with_name(path.name + SEAL), path):
        file.unlink(missing_ok=True)


def check_space(folder: Path, needed: float, what: str) -> None:
    """Raise SpaceError when `needed` bytes (and 5 % to spare) do not fit on the disk of `folder`."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed * 1.05 > free:
        raise SpaceError(
            f"{what} needs {needed / 1e9:.2f} GB in {folder}, but {free / 1e9:.2f} GB are free there.\n"
            "  Free some space, choose another place with --run, or make it smaller: fewer views (views.count), "
            "a smaller margin (images.margin) or cache (machine.cache_gb)."
        )
