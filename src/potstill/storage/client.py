"""Every request to a store: it is tried again where that can help, and ends in one error that says what is wrong."""

import contextlib
import datetime
import errno
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from potstill.errors import StorageError
from potstill.run.files import replacing
from potstill.storage.addresses import BACKENDS, Address

T = TypeVar("T")

ATTEMPTS = 5
"""Of each request."""

WAIT = 8.0
"""Seconds between two attempts, at most; about 10 s in all."""

_TIMEOUTS = {"connect_timeout": 10, "read_timeout": 30}
"""In seconds, of S3."""

_WITHOUT_CREDENTIALS = ("NoCredentials", "PartialCredentials", "CredentialRetrieval", "TokenRetrieval", "SSOTokenLoad")
_PERMANENT = (
    StorageError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    FileExistsError,
    NotImplementedError,
    TypeError,
    ValueError,
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
"""What the backends call the time of an object."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it is listed."""

    name: str
    """Its path below the address that was listed; "" for the object at that address itself."""
    size: int
    """In bytes."""
    mtime_ns: int


def listed(address: Address, *, missing_ok: bool = False) -> Iterator[StoredObject]:
    """The objects at and below an address, without those that only stand for folders, in the order of the store.

    Args:
        missing_ok: there may be nothing.
    Raises:
        StorageError: it cannot be listed, or there is nothing.
    """
    found = _try(address, "list", lambda: _found(address))
    if not found and not missing_ok:
        raise StorageError(f"There is nothing at {address}. Check the name; `{address.parent}` is where it would be.")
    prefix = f"{address.key}/"
    for key, size, mtime_ns in found:
        if key == address.key:
            yield StoredObject("", size, mtime_ns)
        elif key.startswith(prefix) and not key.endswith("/"):
            yield StoredObject(key[len(prefix) :], size, mtime_ns)


def exists(address: Address) -> bool:
    """Whether there is anything at or below an address. Raises StorageError."""
    return bool(_try(address, "list", lambda: _store(address).exists(address.key)))


def download(address: Address, target: Path, expected: StoredObject | None = None) -> None:
    """Copy an object to a file, which is whole once it has its name. Its time is the one that was expected.

    Raises:
        StorageError: it cannot be read, or is not the object that was expected.
    """

    def get() -> None:
        if expected is not None:
            info = _store(address).info(address.key)
            if (int(info["size"]), _time_of(info)) != (expected.size, expected.mtime_ns):
                raise StorageError(f"{address} has changed since it was listed. Run again.")
        with replacing(target) as part:
            _store(address).get_file(address.key, str(part))
            if expected is not None and (size := part.stat().st_size) != expected.size:
                raise ConnectionError(f"only {size:,} of {expected.size:,} bytes came")
            if expected is not None:
                os.utime(part, ns=(expected.mtime_ns, expected.mtime_ns))

    _try(address, "read", get)


def read(address: Address) -> bytes | None:
    """The bytes of a small object; None where there is none. Raises StorageError."""

    def get() -> bytes | None:
        try:
            return bytes(_store(address).cat_file(address.key))
        except FileNotFoundError:
            return None

    return _try(address, "read", get)


def upload(path: Path, address: Address) -> None:
    """Copy a file to an object, which stores show only once it is whole.

    Raises:
        StorageError: it cannot be written.
    """

    def put() -> None:
        size = path.stat().st_size
        _store(address).put_file(str(path), address.key)
        if (stored := int(_store(address).info(address.key)["size"])) != size:
            raise ConnectionError(f"{stored:,} of {size:,} bytes were stored")

    _try(address, "write", put)


def write(address: Address, data: bytes) -> None:
    """Write a small object, or replace it. Raises StorageError."""
    _try(address, "write", lambda: _store(address).pipe_file(address.key, data))


def create(address: Address, data: bytes) -> bool:
    """Write a small object unless there is one. Returns whether it was written.

    A look comes first, since some stores ignore the condition of a request; those that know it decide between two that
    write at once.

    Raises:
        StorageError: it cannot be written.
    """

    def put() -> bool:
        if _store(address).exists(address.key):
            return False
        try:
            _store(address).pipe_file(address.key, data, mode="create")
        except FileExistsError:
            return False
        except (TypeError, ValueError, NotImplementedError):
            _store(address).pipe_file(address.key, data)
        return True

    return _try(address, "write", put)


def delete(address: Address) -> None:
    """Remove an object, if it is there. Raises StorageError."""

    def remove() -> None:
        with contextlib.suppress(FileNotFoundError):
            _store(address).rm_file(address.key)

    _try(address, "delete", remove)


def time_of(address: Address) -> float:
    """When an object was written, in seconds, by the clock of the store; 0 where there is none. Raises StorageError."""

    def look() -> float:
        try:
            return _time_of(_store(address).info(address.key)) / 1e9
        except FileNotFoundError:
            return 0.0

    return _try(address, "read", look)


def probe(address: Address) -> float:
    """Write, read and delete a small object below an address: what would fail after hours fails here.

    Returns:
        The time in seconds, by the clock of the store.
    Raises:
        StorageError: one of them is not possible.
    """
    trial = address / f".potstill-probe-{uuid.uuid4().hex[:12]}"
    write(trial, b"written by potstill to see whether it can write here; safe to delete\n")
    now = time_of(trial)
    delete(trial)
    return now


def _store(address: Address) -> Any:
    return _backend(address.scheme)


@cache
def _backend(scheme: str) -> Any:
    """The fsspec file system. Raises StorageError where its package is not installed."""
    package = BACKENDS[scheme]
    missing = next((name for name in ("fsspec", package) if find_spec(name) is None), None)
    if missing:
        extra = "'potstill[storage]'" if package in ("s3fs", "fsspec") else f"'potstill[storage]' {package}"
        raise StorageError(f"{scheme}:// needs the package {missing}: pip install {extra}")
    import fsspec

    if scheme != "s3":
        return fsspec.filesystem(scheme, use_listings_cache=False)
    # Attempts are counted here, for every kind of storage: attempts of attempts of attempts would take minutes.
    logging.getLogger("s3fs").setLevel(logging.CRITICAL)
    store = fsspec.filesystem(
        "s3", use_listings_cache=False, config_kwargs={**_TIMEOUTS, "retries": {"total_max_attempts": 1}}
    )
    store.retries = 1
    return store


def forget() -> None:
    """Open stores anew at the next request, with the credentials that there are then."""
    _backend.cache_clear()


def _found(address: Address) -> list[tuple[str, int, int]]:
    """Key, bytes and time of all objects; as tuples, since there may be a million."""
    store = _store(address)
    found: list[tuple[str, int, int]] = []
    try:
        # By default fsspec leaves out, without a word, what cannot be listed.
        for _, _, files in store.walk(address.key, detail=True, on_error="raise"):
            found += [(info["name"].strip("/"), int(info["size"]), _time_of(info)) for info in files.values()]
    except FileNotFoundError:
        if found:
            raise ConnectionError("it has changed while it was listed") from None
    if not found and store.isfile(address.key):
        info = store.info(address.key)
        found = [(address.key, int(info["size"]), _time_of(info))]
    return found


def _time_of(info: Any) -> int:
    """In nanoseconds, from what a backend tells of an object."""
    value = next((info[name] for name in _TIMES if info.get(name) is not None), 0.0)
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    seconds = value.timestamp() if isinstance(value, datetime.datetime) else float(value)
    return round(seconds * 1e6) * 1000


def _try(address: Address, doing: str, request: Callable[[], T]) -> T:
    """What a request returns, after several attempts where it fails for a reason that may pass."""
    _backend(address.scheme)
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(0.5, WAIT),
        retry=retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        return attempts(request)
    except StorageError:
        raise
    except Exception as error:  # each backend has errors of its own
        raise StorageError(_explained(error, address, doing)) from error


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, _PERMANENT) or (isinstance(error, OSError) and error.errno in _FULL):
        return False
    return isinstance(error, Exception) and not type(error).__name__.startswith(_WITHOUT_CREDENTIALS)


def _explained(error: Exception, address: Address, doing: str) -> str:
    """One sentence on what is wrong, and what to do."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    bucket = address.key.partition("/")[0]
    if type(error).__name__.startswith(_WITHOUT_CREDENTIALS):
        return (
            f"There are no credentials for {address.scheme}://{bucket}. Set them as {BACKENDS[address.scheme]} reads "
            "them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile (AWS_PROFILE), for S3."
        )
    if isinstance(error, PermissionError):
        return f"The storage does not let us {doing} {address}: {reason}. Check the credentials and what they allow."
    if isinstance(error, FileNotFoundError):
        return f"Cannot {doing} {address}: there is no such object or bucket. Check the bucket's name, {bucket}."
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"Cannot {doing} {address}: {reason}. Free some space."
    tried = f", in {ATTEMPTS} attempts" if _may_pass(error) else ""
    return f"Cannot {doing} {address}{tried}: {type(error).__name__}: {reason.rstrip('.')}. Try again later."
