"""From candidates to photos in their folders: as many as wanted of each class and split, and not one more.

A candidate is only begun while those in place and those under way do not fill its side. So the photos that end up in
the folder are the first good ones in the source's order, whatever the speed of servers and however often the run
was killed in between.
"""

import asyncio
import contextlib
import errno
import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from potstill.data.splits import in_share
from potstill.errors import PotstillError, SpaceError
from potstill.get.client import Client, Fetched, FetchError
from potstill.get.ledger import Ledger, Row, Verdict
from potstill.get.licenses import is_allowed
from potstill.get.provenance import Status, Writer
from potstill.get.sources import Candidate, Concept, Source
from potstill.get.verify import Photo, verify
from potstill.images.decode import BadPhotoError
from potstill.images.reasons import action
from potstill.processes.cores import available_cores
from potstill.run import files

AHEAD = 64
"""Candidates that a source may list ahead of their use."""
WAITING = 2000
"""Candidates of a full side that are kept in case some of its photos are rejected late."""
WRITING = 2
"""Threads beyond those that decode: a write waits for the disk. Many more only fight for the interpreter: 16 made
it a fifth slower."""
PARKED = 50
"""A class is given up after so many candidates from parked servers."""


@dataclass(slots=True)
class Side:
    """The photos of one class in one split."""

    label: str
    split: str
    wanted: int
    have: int = 0
    under_way: int = 0
    waiting: deque[tuple[int, Candidate]] = field(default_factory=deque)

    @property
    def is_open(self) -> bool:
        """Whether another candidate should be begun."""
        return self.have + self.under_way < self.wanted


@dataclass(slots=True)
class Stream:
    """The candidates of one class, and what became of them."""

    source: Source
    concept: Concept
    sides: Mapping[str, Side]
    reasons: Counter[str] = field(default_factory=Counter)
    """How often a candidate was left out, by reason code."""
    examples: dict[str, str] = field(default_factory=dict)
    """One sentence per code."""
    error: str = ""
    """Why the source stopped listing."""
    listed: int = 0
    exhausted: bool = False
    queue: deque[tuple[int, Candidate]] = field(default_factory=deque)
    known: set[int] = field(default_factory=set)
    """Hashes of the keys that need no second look."""

    @property
    def is_open(self) -> bool:
        return any(side.is_open for side in self.sides.values())

    def count(self, code: str, reason: str) -> None:
        """Note why a candidate was left out."""
        self.reasons[code] += 1
        self.examples.setdefault(code, reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What is kept, and where it goes."""

    root: Path
    seed: int
    test_share: float
    licenses: frozenset[str]
    min_side: int


class Download:
    """Fills the sides of all streams. One per run."""

    def __init__(
        self,
        client: Client,
        rules: Rules,
        streams: Iterable[Stream],
        writer: Writer,
        ledger: Ledger,
        tick: Callable[[], None],
    ) -> None:
        self._client, self._rules, self._writer, self._ledger, self._tick = client, rules, writer, ledger, tick
        self._streams = {stream.concept.label: stream for stream in streams}
        self._workers = available_cores()
        self._decoding = threading.BoundedSemaphore(self._workers)
        self._window = client.limits.connections + 4 * self._workers
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._fatal: BaseException | None = None

    def restore(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take in what earlier runs have done.

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
                self._judge(_row_of(entry), restoring=True)

    async def run(self) -> None:
        """Until every side is full or its source has no more. Raises SpaceError on a full disk."""
        with ThreadPoolExecutor(self._workers + WRITING, thread_name_prefix="photos") as self._pool:
            listing = [asyncio.create_task(self._list(stream)) for stream in self._streams.values()]
            try:
                while self._fatal is None:
                    self._changed.clear()
                    self._begin_what_may()
                    if not self._tasks and all(_is_over(stream) for stream in self._streams.values()):
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
                while len(stream.queue) >= AHEAD or not stream.is_open:
                    self._room.clear()
                    await self._room.wait()
        except (PotstillError, FetchError) as error:
            stream.error = str(error)
        except Exception as error:  # a bug in a source: say so, with its traceback
            self._fatal = error
        stream.exhausted = True
        self._changed.set()

    def _begin_what_may(self) -> None:
        begun = True
        while begun:
            begun = False
            for stream in self._streams.values():
                if len(self._tasks) < self._window and (found := self._next(stream)):
                    side, order, candidate = found
                    side.under_way += 1
                    task = asyncio.create_task(self._one(stream, side, order, candidate))
                    self._tasks.add(task)
                    task.add_done_callback(self._done)
                    begun = True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                error = SpaceError(
                    f"The disk of {self._rules.root} is full. What is there is complete; free some space and run the "
                    "same command again."
                )
            self._fatal = self._fatal or error
        self._changed.set()

    def _next(self, stream: Stream) -> tuple[Side, int, Candidate] | None:
        """The next candidate worth a request, if its side is open."""
        if stream.reasons["parked"] >= PARKED:
            return None
        for side in stream.sides.values():
            if side.is_open and side.waiting:
                return side, *side.waiting.popleft()
        while stream.queue and stream.is_open:
            order, candidate = stream.queue.popleft()
            if (mark := hash(candidate.key)) in stream.known:
                continue
            stream.known.add(mark)
            if stream.source.has_licenses and not is_allowed(candidate.license, self._rules.licenses):
                stream.count("license", candidate.license or candidate.license_url or "none given")
                continue
            side = stream.sides[split_of(candidate, self._rules.test_share, self._rules.seed)]
            if side.is_open:
                return side, order, candidate
            if len(side.waiting) < WAITING:
                side.waiting.append((order, candidate))
        return None

    async def _one(self, stream: Stream, side: Side, order: int, candidate: Candidate) -> None:
        """Fetch, verify, write and record one candidate."""
        loop = asyncio.get_running_loop()
        facts = _origin(stream, side, order, candidate)
        try:
            if candidate.read is not None:
                data = await loop.run_in_executor(self._pool, candidate.read)
                fetched = Fetched(data, "", 0, {}, 1, redirected=False)
            else:
                fetched = await self._client.photo(candidate.url)
            place = self._rules.root / side.split / side.label / candidate.key
            photo = await _to_the_end(loop.run_in_executor(self._pool, self._keep, fetched.body, candidate, place))
        except (FetchError, BadPhotoError) as error:
            stream.count(error.code, error.reason)
            if error.code != "parked":
                if isinstance(error, FetchError):
                    facts |= {"attempts": error.attempts, "http_status": error.status}
                status: Status = "failed" if action(error.code) == "retry" else "rejected"
                self._writer.write(candidate.key, status, **facts, reason=error.code, detail=error.reason)
        else:
            facts |= _found(photo, fetched)
            facts["path"] = f"{side.split}/{side.label}/{candidate.key}.{photo.extension}"
            side.have += 1
            self._writer.write(candidate.key, "ok", **facts)
            self._judge(_row_of({"key": candidate.key, **facts}))
        finally:
            side.under_way -= 1
            self._tick()

    def _keep(self, data: bytes, candidate: Candidate, place: Path) -> Photo:
        """Verify, then write under the true extension. Runs in a thread."""
        for name, promised in (("sha1", candidate.sha1), ("sha256", candidate.sha256)):
            if promised and hashlib.new(name, data, usedforsecurity=False).hexdigest() != promised.lower():
                raise BadPhotoError("checksum", f"{name} is not {promised}")
        with self._decoding:  # as many as there are cores: decoded photos are large
            photo = verify(data, min_side=self._rules.min_side)
        files.write_bytes(place.with_name(f"{place.name}.{photo.extension}"), data)
        return photo

    def _judge(self, row: Row, *, restoring: bool = False) -> None:
        """Remove what the newcomer shows to be a copy, a placeholder or of two classes; maybe itself."""
        for verdict in self._ledger.add(row):
            stream = self._streams.get(verdict.row.label)
            path = self._rules.root / verdict.row.path
            if stream is None:
                continue
            if path.is_file():
                path.unlink()
                stream.sides["test" if verdict.row.test else "train"].have -= 1
            elif restoring or not verdict.before:
                continue  # recorded long ago, or removed by its owner
            else:
                stream.reasons[verdict.before] -= 1
            stream.count(verdict.reason, "")
            self._writer.write(verdict.row.key, "rejected", **_facts_of(verdict))


def split_of(candidate: Candidate, test_share: float, seed: int) -> str:
    """The source's own split, else by the hash of the candidate's group."""
    is_test = in_share(candidate.group, test_share, seed=seed, purpose="test")
    return candidate.split or ("test" if is_test else "train")


async def _to_the_end(work: asyncio.Future[Photo]) -> Photo:
    """Await work that a Ctrl-C must not cut in two: a photo in its place needs its line in the provenance."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        return await work


def _is_over(stream: Stream) -> bool:
    if not stream.is_open or stream.reasons["parked"] >= PARKED:
        return True
    return stream.exhausted and not stream.queue


def _origin(stream: Stream, side: Side, order: int, candidate: Candidate) -> dict[str, Any]:
    names = ("group", "url", "license", "license_url", "author", "title", "landing_url")
    return {
        "label": side.label,
        "split": side.split,
        "source": stream.source.name,
        "concept": stream.concept.id,
        "order": order,
        **{name: value for name in names if (value := getattr(candidate, name))},
        **candidate.more,
    }


_FACTS = [field.name for field in fields(Photo) if field.name != "extension"]


def _found(photo: Photo, fetched: Fetched) -> dict[str, Any]:
    facts: dict[str, Any] = {name: getattr(photo, name) for name in _FACTS}
    facts["phash"], facts["phash_mirrored"] = f"{photo.phash:016x}", f"{photo.phash_mirrored:016x}"
    if fetched.status:
        facts |= {"http_status": fetched.status, "attempts": fetched.attempts}
        if fetched.redirected:
            facts["final_url"] = fetched.url
        if etag := fetched.headers.get("ETag"):
            facts["etag"] = etag
    return facts


def _row_of(entry: Mapping[str, Any]) -> Row:
    return Row(
        key=entry["key"],
        label=entry["label"],
        test=entry["split"] == "test",
        order=entry["order"],
        url=entry.get("url", ""),
        path=entry["path"],
        sha256=entry["sha256"],
        phash=int(entry["phash"], 16),
        phash_mirrored=int(entry["phash_mirrored"], 16),
    )


def _facts_of(verdict: Verdict) -> dict[str, Any]:
    row = verdict.row
    return {
        "label": row.label,
        "split": "test" if row.test else "train",
        "order": row.order,
        "url": row.url,
        "path": row.path,
        "sha256": row.sha256,
        "phash": f"{row.phash:016x}",
        "phash_mirrored": f"{row.phash_mirrored:016x}",
        "reason": verdict.reason,
    }


def remove_leftovers(root: Path) -> None:
    """Delete files that an interrupted run was still writing."""
    for split in ("train", "test"):
        for path in _leftovers(Path(root) / split):
            with contextlib.suppress(OSError):
                path.unlink()


def _leftovers(folder: Path) -> Iterator[Path]:
    return folder.glob("*/.*.part")
