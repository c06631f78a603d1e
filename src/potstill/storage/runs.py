"""Runs in storage.

A run is made in a folder of this machine and copied to storage as it grows: its files keep their names. What is
finished (a stage, a training) is a folder with a done.json, which has the sizes and hashes of its files; its files are
uploaded first and done.json last, so that what counts as finished in storage is whole. Commands that only read a run
copy it to the cache without its large arrays.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from potstill.errors import DamageError, PotstillError, StorageError
from potstill.run.files import check_space, read_json, replacing, sha256_of, write_bytes, write_json
from potstill.run.folder import Run
from potstill.run.integrity import LARGE
from potstill.storage.addresses import Address
from potstill.storage.cache import local_path
from potstill.storage.client import StoredObject, delete, download, exists, listed, probe, read, upload
from potstill.storage.lock import NAME as LOCK
from potstill.storage.lock import Lock
from potstill.storage.photos import RemoteTree

DONE = "done.json"

_PIXELS = "pixels.bin"

INTERVAL = 15.0
"""Seconds between two looks at what is finished."""

_RECORD = ".storage.json"
"""In the folder here: for each finished folder the hash of the done.json that both sides had last."""

_BESIDE = ("run.json", "config.toml", "environment.json", "timings.json", "README.md", "log.txt", "progress.json")
_PATTERNS = (*_BESIDE, "4_students/*/*.json", "*/ATTRIBUTION.csv", "*/ATTRIBUTION.txt")
"""Files that belong to no finished folder. They are replaced as they change, and none of them is relied on alone."""

_MAX_JSON = 256 * 2**20


def local_run(path: Path | str, *, pixels: bool = False) -> Path:
    """A run or exported file as a path of this machine: itself, or a copy of what is in storage, brought up to date.

    Large arrays, which only training reads, are not copied.

    Args:
        pixels: whether the packed photos are needed.
    Raises:
        StorageError: there is no such run or file, or it cannot be read.
        DamageError: a file is not the one that was finished.
    """
    address = Address.of(path)
    if address is None:
        return Path(path)
    run = _run_at_or_above(address)
    if run is None:
        return _local_model(address)
    folder = local_path(run)
    RemoteRun(run, folder).fetch(without=set(LARGE) - ({_PIXELS} if pixels else set()))
    return folder.joinpath(*PurePosixPath(address.key[len(run.key) :].strip("/")).parts)


def _local_model(address: Address) -> Path:
    """A model outside of a run: a folder with model.json, or an exported file with what lies beside it."""
    if exists(address / "model.json"):
        return RemoteTree.of(address).copy()
    tree = RemoteTree.of(address, missing_ok=True)
    if not tree.is_file:
        raise StorageError(f"{address} is neither a run (it has no run.json), nor a model, nor an exported file.")
    return RemoteTree.of(address.parent).copy() / address.name


def _run_at_or_above(address: Address) -> Address | None:
    for _ in range(6):
        if exists(address / "run.json"):
            return address
        if address.parent == address:
            return None
        address = address.parent
    return None


@contextlib.contextmanager
def worked_on(path: Path | str, say: Callable[[str], None], *, runs: Path = Path("runs")) -> Iterator[Path]:
    """The folder of this machine in which to work on a run. Of one in storage, what is finished is there when the block
    begins, and in storage when it ends; meanwhile, what is finished is copied there about every `INTERVAL` seconds.

    Args:
        path: the run folder, here or in storage.
        say: told what is copied.
        runs: where the folder is for a run in storage.
    Raises:
        StorageError: the storage cannot be written, or another command works on the run there, or has changed it.
    """
    address = Address.of(path)
    if address is None:
        yield Path(path)
        return
    now, lock, folder = probe(address), Lock(address), runs / address.name
    if before := lock.take(now):
        say(f"{address} was locked by {before}, which is gone")
    try:
        run = RemoteRun(address, folder)
        with Run(folder).only_here():
            fetched = run.fetch()
        if fetched:
            say(f"Fetched from {address}: {', '.join(fetched)}")
        keeper = _Keeper(run, lock, say)
        keeper.start()
        try:
            yield folder
        except BaseException:
            keeper.stop()
            with contextlib.suppress(PotstillError):  # the first error is the one to know of
                _finish(run, lock)
            raise
        keeper.stop()
        _finish(run, lock)
        say(f"{address} has everything that is finished ({run.sent / 1e6:,.1f} MB uploaded)")
    finally:
        with contextlib.suppress(StorageError):
            lock.release()


def _finish(run: "RemoteRun", lock: Lock) -> None:
    """Send what is left."""
    try:
        lock.require()
        run.push()
    except StorageError as error:
        kept = f"What was made is kept in {run.folder}. The same command sends what is missing."
        raise StorageError(f"{error}\n  {kept}") from None


@dataclass(slots=True)
class RemoteRun:
    """A run in storage, and its folder on this machine."""

    address: Address
    folder: Path
    sent: int = 0
    """Bytes."""
    _loose: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Size and time of the files beside finished folders, as they were sent."""

    def fetch(self, *, without: Collection[str] = ()) -> list[str]:
        """Copy what is finished in storage and not here.

        Args:
            without: names of files that are not needed, because the run is only read.
        Returns:
            The stages of which something was copied.
        Raises:
            StorageError: it cannot be read, or here and there something else was finished under the same name.
            DamageError: a file is not the one that was finished.
        """
        objects = self._listed()
        self._require_same_run(objects)
        record, fetched = self._record(), []
        # The deepest first: when the done.json of a stage comes, all that is in it has come.
        for name in sorted(_done_folders(objects), key=lambda name: (-name.count("/"), name)):
            if self._fetch_folder(name, objects, record, without):
                fetched.append(name.partition("/")[0])
        for name, found in objects.items():
            if _is_loose(name) and (without or not (self.folder / name).is_file()):
                download(self.address / name, self.folder / name, found)
        if not without and self.folder.is_dir():
            write_json(self.folder / _RECORD, record)
        return sorted(set(fetched))

    def push(self) -> None:
        """Copy what is finished here and not in storage, then the files beside it. Raises StorageError."""
        record = self._record()
        for done in sorted(self.folder.rglob(DONE), key=lambda path: (-len(path.parts), path)):
            name = done.parent.relative_to(self.folder).as_posix()
            digest = _digest(done)
            if "/." not in f"/{name}" and record.get(name) != digest and self._push_folder(name, done):
                record[name] = digest
                write_json(self.folder / _RECORD, record)
        for name in [name for name in record if not (self.folder / name / DONE).is_file()]:
            delete(self.address / name / DONE)  # it is being made again here
            del record[name]
            write_json(self.folder / _RECORD, record)
        for path in sorted(path for pattern in _PATTERNS for path in self.folder.glob(pattern)):
            status = path.stat()
            facts, name = (status.st_size, status.st_mtime_ns), path.relative_to(self.folder).as_posix()
            if self._loose.get(name) != facts:
                self._send(path, name)
                self._loose[name] = facts

    def _push_folder(self, name: str, done: Path) -> bool:
        """Whether a finished folder was sent; it is not where it is being changed at this moment."""
        content = done.read_bytes()
        try:
            files = _files_of(content, str(done))
            current = read(self.address / name / DONE)
            if current == content:
                return True
            if current is not None:
                delete(self.address / name / DONE)  # until its files are those of the new one
            for file, (size, _) in files.items():
                path = done.parent / file
                if path.stat().st_size != size:
                    return False
                self._send(path, f"{name}/{file}")
            if done.read_bytes() != content:
                return False
        except FileNotFoundError:
            return False
        self._send(done, f"{name}/{DONE}")
        return True

    def _send(self, path: Path, name: str) -> None:
        upload(path, self.address / name)
        self.sent += path.stat().st_size

    def _fetch_folder(
        self, name: str, objects: Mapping[str, StoredObject], record: dict[str, Any], without: Collection[str]
    ) -> bool:
        """Whether something of a finished folder was copied."""
        here = self.folder / name / DONE
        there = read(self.address / name / DONE)
        if there is None:  # it is being made again
            return False
        digest, local = hashlib.sha256(there).hexdigest(), _digest(here) if here.is_file() else None
        if not without and local not in (None, digest) and record.get(name) != local:
            if record.get(name) == digest:
                return False  # newer here: it is sent later
            raise StorageError(
                f"{name} was made both in {self.folder} and in {self.address}, and they differ. Remove "
                f"{self.folder / name} to take the one in storage, or take another --run."
            )
        files = _files_of(there, str(self.address / name / DONE))
        wanted = {file: facts for file, facts in files.items() if PurePosixPath(file).name not in without}
        missing = {
            file: facts
            for file, facts in wanted.items()
            if local != digest or not _has_size(self.folder / name / file, facts[0])
        }
        if missing:
            check_space(self.folder, sum(size for size, _ in missing.values()), f"{name} of {self.address}")
        for file, (size, sha256) in missing.items():
            self._fetch_file(f"{name}/{file}", objects, size, sha256)
        if local != digest:
            (self.folder / name / "inputs.json").unlink(missing_ok=True)
            write_bytes(here, there)
        record[name] = digest
        return bool(missing) or local != digest

    def _fetch_file(self, name: str, objects: Mapping[str, StoredObject], size: int, sha256: str) -> None:
        target = self.folder / name
        if _has_size(target, size) and sha256_of(target) == sha256:
            return
        advice = f"Delete {DONE} beside it and run `potstill distill` again: only what is missing is made."
        damaged = f"{self.address / name} is damaged: {{}}. {advice}"
        if name not in objects:
            raise DamageError(damaged.format("it is missing"))
        if objects[name].size != size:
            raise DamageError(damaged.format(f"it has {objects[name].size:,} bytes instead of {size:,}"))
        with replacing(target) as part:
            download(self.address / name, part, objects[name])
            if sha256_of(part) != sha256:
                raise DamageError(damaged.format("its bytes are not those that were written"))

    def _listed(self) -> dict[str, StoredObject]:
        """All objects of the run by name; none where there is no such run yet."""
        found = {item.name: item for item in listed(self.address, missing_ok=True)}
        for name in found:
            _require_plain(name, str(self.address))
        return {name: item for name, item in found.items() if name and PurePosixPath(name).name != LOCK}

    def _require_same_run(self, objects: Mapping[str, StoredObject]) -> None:
        if "run.json" not in objects or not (self.folder / "run.json").is_file():
            return
        with contextlib.suppress(ValueError, AttributeError):
            there = json.loads(read(self.address / "run.json") or b"{}").get("id")
            if there and (here := Run(self.folder).id) and there != here:
                raise StorageError(
                    f"{self.folder} is another run than {self.address}. Rename or remove one of them, or take another "
                    "--run."
                )

    def _record(self) -> dict[str, Any]:
        path = self.folder / _RECORD
        try:
            return dict(read_json(path)) if path.is_file() else {}
        except DamageError:
            return {}


class _Keeper:
    """Copies to storage, in the background, what becomes finished."""

    def __init__(self, run: RemoteRun, lock: Lock, say: Callable[[str], None]) -> None:
        self._run, self._lock, self._say = run, lock, say
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="storage", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after what is being sent now."""
        self._end.set()
        self._thread.join()

    def _work(self) -> None:
        failed = ""
        while not self._end.wait(INTERVAL):
            try:
                self._lock.renew()
                self._run.push()
                failed = ""
            except (PotstillError, OSError) as error:
                if not failed:  # said once; it is tried again, and at the end it is an error
                    self._say(f"Not uploaded yet, will try again: {error}")
                failed = str(error)


def _done_folders(objects: Mapping[str, StoredObject]) -> list[str]:
    return [name.rpartition("/")[0] for name in objects if name.endswith(f"/{DONE}")]


def _is_loose(name: str) -> bool:
    path = PurePosixPath(name)
    return any(path.match(pattern) and len(path.parts) == pattern.count("/") + 1 for pattern in _PATTERNS)


def _files_of(done: bytes, where: str) -> dict[str, tuple[int, str]]:
    """Size and hash of the files that a done.json names. Raises DamageError."""
    try:
        values: Any = json.loads(done) if len(done) <= _MAX_JSON else None
        files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in values.get("files", {}).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise DamageError(f"{where} is damaged. Delete it and run `potstill distill` again.") from None
    for name in files:
        _require_plain(name, where)
    return files


def _require_plain(name: str, where: str) -> None:
    """Raise DamageError for a name that would lie outside of the run folder."""
    if name and (any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name or "\\" in name):
        raise DamageError(f"{where} names a file that would not be in it: {name!r}. Nothing was copied.")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except (FileNotFoundError, NotADirectoryError):
        return False
