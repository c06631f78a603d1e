"""From candidates to photos in their folders: exactly as many as wanted of each class and split.

A candidate is only tried while the photos in place and those under way do not fill its side. So the folder ends up with
the first good ones in the source's order, however fast the servers are and however often the run was killed.
"""

import asyncio
import contextlib
import errno
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from potstill.errors import PotstillError, SpaceError
from potstill.get.client import Client, Fetched, FetchError
from potstill.get.ledger import Ledger, Row
from potstill.get.provenance import Status, Writer
from potstill.get.records import candidate_facts, photo_facts, row_of, verdict_facts
from potstill.get.sources import Candidate
from potstill.get.streams import SIDES, Rules, Side, Stream
from potstill.get.verify import Photo, verify
from potstill.images.errors import BadPhotoError
from potstill.images.reasons import action
from potstill.processes.cores import available_cores
from potstill.run import files

LISTED_AHEAD = 64
"""Candidates that a source may list ahead of their use."""
WRITER_THREADS = 2
"""Beyond the threads that decode, because a write waits for the disk. More compete for the interpreter: with 16, `get`
was a fifth slower."""


class Download:
    """Fills the sides of all streams. One per run."""

    def __init__(
        self,
        client: Client,
        rules: Rules,
        streams: Iterable[Stream],
        writer: Writer,
        tick: Callable[[], None],
    ) -> None:
        self._client, self._rules, self._writer, self._tick = client, rules, writer, tick
        self._ledger = Ledger(near_bits=rules.near_bits)
        self._streams = {stream.concept.label: stream for stream in streams}
        self._workers = available_cores()
        self._decoding = threading.BoundedSemaphore(self._workers)
        self._window = client.limits.connections + 4 * self._workers
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._fatal: BaseException | None = None

    def restore(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take over what earlier runs have done.

        A photo that is recorded as in place but is not there was removed by its owner, or is in quarantine: it is
        neither counted nor fetched again.
        """
        for entry in entries:
            stream = self._streams.get(entry.get("label", ""))
            if stream is not None and entry["status"] != "failed":
                stream.known.add(hash(entry["key"]))
                if entry["status"] == "rejected":
                    stream.count(entry["reason"], entry.get("detail", ""))
                elif (self._rules.root / entry["path"]).is_file():
                    stream.sides[entry["split"]].have += 1
            if "phash" in entry:
                self._remove_rejected(row_of(entry), restoring=True)

    async def run(self) -> None:
        """Work until every side is full or its source has no more. Raises SpaceError on a full disk."""
        with ThreadPoolExecutor(self._workers + WRITER_THREADS, thread_name_prefix="photos") as self._pool:
            listing = [asyncio.create_task(self._list(stream)) for stream in self._streams.values()]
            try:
                while self._fatal is None:
                    self._changed.clear()
                    self._start_tasks()
                    if not self._tasks and all(stream.is_over for stream in self._streams.values()):
                        break
                    self._room.set()
                    await self._changed.wait()
            finally:
                for task in (*listing, *self._tasks):
                    task.cancel()
                await asyncio.gather(*listing, *self._tasks, return_exceptions=True)
        if self._fatal is not None:
            raise self._fatal

    async def _list(self, stream: Stream) -> None:
        """Keep a stream's queue filled, a little ahead of its use."""
        concepts = [other.concept for other in self._streams.values() if other.source is stream.source]
        candidates = stream.source.candidates(concepts, stream.concept)
        try:
            async for candidate in candidates:
                stream.queue.append((stream.listed, candidate))
                stream.listed += 1
                self._changed.set()
                while len(stream.queue) >= LISTED_AHEAD or not stream.is_open:
                    self._room.clear()
                    await self._room.wait()
        except (PotstillError, FetchError) as error:
            stream.error = str(error)
        except Exception as error:  # a bug in a source: stop, with its traceback
            self._fatal = error
        stream.exhausted = True
        self._changed.set()

    def _start_tasks(self) -> None:
        started = True
        while started:  # one of each class in turn
            started = False
            for stream in self._streams.values():
                if len(self._tasks) < self._window and (found := stream.next(self._rules)):
                    side, order, candidate = found
                    side.under_way += 1
                    task = asyncio.create_task(self._try(stream, side, order, candidate))
                    self._tasks.add(task)
                    task.add_done_callback(self._done)
                    started = True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                error = SpaceError(
                    f"The disk of {self._rules.root} is full. The photos in it are complete. Free some space and run "
                    "the same command again."
                )
            self._fatal = self._fatal or error
        self._changed.set()

    async def _try(self, stream: Stream, side: Side, order: int, candidate: Candidate) -> None:
        """Fetch, verify, write and record one candidate."""
        loop = asyncio.get_running_loop()
        facts = candidate_facts(stream, side, order, candidate)
        try:
            if candidate.read is not None:
                data = await loop.run_in_executor(self._pool, candidate.read)
                fetched = Fetched(data, "", 0, {}, 1, redirected=False)
            else:
                fetched = await self._client.photo(candidate.url)
            place = self._rules.root / side.split / side.label / candidate.key
            photo = await _uninterrupted(loop.run_in_executor(self._pool, self._keep, fetched.body, candidate, place))
        except (FetchError, BadPhotoError) as error:
            stream.count(error.code, error.reason)
            if error.code != "parked":
                if isinstance(error, FetchError):
                    facts |= {"attempts": error.attempts, "http_status": error.status}
                status: Status = "failed" if action(error.code) == "retry" else "rejected"
                self._writer.write(candidate.key, status, **facts, reason=error.code, detail=error.reason)
        else:
            facts |= photo_facts(photo, fetched)
            facts["path"] = f"{side.split}/{side.label}/{candidate.key}.{photo.extension}"
            side.have += 1
            self._writer.write(candidate.key, "ok", **facts)
            self._remove_rejected(row_of({"key": candidate.key, **facts}))
        finally:
            side.under_way -= 1
            self._tick()

    def _keep(self, data: bytes, candidate: Candidate, place: Path) -> Photo:
        """Verify, then write with the extension of its real format. Runs in a thread."""
        for name, promised in (("sha1", candidate.sha1), ("sha256", candidate.sha256)):
            if promised and hashlib.new(name, data, usedforsecurity=False).hexdigest() != promised.lower():
                raise BadPhotoError("checksum", f"{name} is not {promised}")
        with self._decoding:  # one per core: decoded photos are large
            photo = verify(data, min_side=self._rules.min_side)
        files.write_bytes(place.with_name(f"{place.name}.{photo.extension}"), data)
        return photo

    def _remove_rejected(self, row: Row, *, restoring: bool = False) -> None:
        """Remove the photos, maybe the new one itself, that it reveals as copies, placeholders or of two classes."""
        for verdict in self._ledger.add(row):
            stream = self._streams.get(verdict.row.label)
            path = self._rules.root / verdict.row.path
            if stream is None:
                continue
            if path.is_file():
                path.unlink()
                stream.sides[verdict.row.split].have -= 1
            elif restoring or not verdict.before:
                continue  # recorded long ago, or removed by its owner
            else:
                stream.reasons[verdict.before] -= 1
            stream.count(verdict.reason, "")
            self._writer.write(verdict.row.key, "rejected", **verdict_facts(verdict))


async def _uninterrupted(work: asyncio.Future[Photo]) -> Photo:
    """Finish the work even when Ctrl-C cancels the task: a photo in its place needs its line in the provenance."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        return await work


def remove_leftovers(root: Path) -> None:
    """Delete files that an interrupted run was still writing."""
    for split in SIDES:
        for path in _leftovers(Path(root) / split):
            with contextlib.suppress(OSError):
                path.unlink()


def _leftovers(folder: Path) -> Iterator[Path]:
    return folder.glob("*/.*.part")
