"""Photos decoded on the nodes of a cluster, in shards: each a small pack that one task makes, joined in their order.

A shard depends on its photos only, so the packed photos are the same bytes wherever they are decoded. A task gives its
pack a name when it is finished, so that what is done is what is there, and one that was lost is made again.
"""

import functools
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.context import Context
from potstill.data.resize import bicubic
from potstill.engines.engine import Task, run_all
from potstill.errors import DamageError
from potstill.images.decode import Resize
from potstill.images.depth import GrayLevels
from potstill.images.folder import Folder, PhotoFile
from potstill.images.known import KnownPhotos
from potstill.images.pack import (
    Decode,
    Packed,
    PackFormat,
    Store,
    decode_here,
    decoded,
    entry_of,
    stored,
    unread_entry,
    values_of,
)
from potstill.images.stored import from_json, to_json
from potstill.run.files import read_json, write_json

SHARD = 512
"""Photos that a task decodes: some ten seconds of work, which are lost with it."""

SHARDS = "pack.shards"
"""In the folder of the packed photos, until the stage is finished."""

_DONE = "packed"


def way_to_decode(
    folder: Folder, pack_format: PackFormat, known: KnownPhotos | None, worker: str, context: Context
) -> Decode:
    """On the nodes of the cluster, where there is one and its nodes see the photos; else here.

    Args:
        known: photos that need not be decoded; with them, little is left to do.
        worker: the module of `decode_on_nodes`; "" for none.
    """
    here = functools.partial(decode_here, pack_format=pack_format, known=known)
    remote = any(file.inside is not None and file.inside.container.remote for file in folder.files[:1])
    if not worker or known or remote:
        return here
    without = context.engine.nodes_without(_samples(folder.files))
    if without:
        context.reporter.info(
            f"Photos are decoded on this machine alone: the node {without[0]} does not see {folder.root}"
        )
    if without is None or without:
        return here
    return functools.partial(decode_on_nodes, pack_format=pack_format, worker=worker, context=context)


def _samples(files: Sequence[PhotoFile]) -> list[Path]:
    """The first file, the last one, and one between."""
    chosen = [files[number] for number in sorted({0, len(files) // 2, len(files) - 1})] if len(files) else []
    return [file.inside.container.path if file.inside else file.path for file in chosen]


def decode_on_nodes(
    folder: Folder,
    start: int,
    store: Store,
    *,
    pack_format: PackFormat,
    worker: str,
    context: Context,
) -> None:
    """Decode by the tasks of an engine. See `Decode`.

    Args:
        worker: a module whose `work(job)` calls `pack_shard`, with the function that the format names for shrinking.
    """
    machine = context.machine
    threads = 1 if machine.device == "cpu" else machine.spare_threads(machine.jobs)
    shards = _Shards(folder, pack_format, context.run.images / SHARDS)
    rest = start < len(folder.files)
    waiting = list(range(start // SHARD, -(-len(folder.files) // SHARD))) if rest else []
    jobs = {shards.job(number, threads): number for number in waiting}

    def join() -> None:
        """Add the shards that are next in order."""
        while waiting and shards.is_done(waiting[0]):
            for entry, data in shards.photos(waiting[0], start):
                store.add(entry, data)
            store.flush()
            shards.remove(waiting.pop(0))

    def ended(job: Path, task: Task) -> None:
        task.check()
        join()

    todo = [job for job, number in jobs.items() if not shards.is_done(number)]
    join()
    run_all(context.engine, worker, todo, threads=threads, at_once=machine.tasks, ended=ended, watch=lambda: None)
    if waiting:
        raise DamageError(f"{shards.target} lacks photos that were there. Run again.")


@dataclass(frozen=True, slots=True)
class _Shards:
    """The shards of a folder, each in a folder of its own."""

    folder: Folder
    pack_format: PackFormat
    target: Path

    def files(self, number: int) -> Sequence[PhotoFile]:
        return self.folder.files[number * SHARD : (number + 1) * SHARD]

    def place(self, number: int) -> Path:
        return self.target / f"{number * SHARD:08d}"

    def job(self, number: int, threads: int) -> Path:
        """Write what the task is told."""
        path = self.place(number) / "worker.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        photos = [[values_of(unread_entry(self.folder, file)), to_json(file.source)] for file in self.files(number)]
        write_json(path, {"photos": photos, "format": _values_of(self.pack_format), "threads": threads})
        return path

    def is_done(self, number: int) -> bool:
        """Whether the shard is there, as it was written, and of these photos."""
        target = self.place(number) / _DONE
        if not target.is_dir():
            return False
        names = [entry.path for entry, _ in stored(target)]
        if names == [self.folder.listed(file) for file in self.files(number)]:
            return True
        shutil.rmtree(target)
        return False

    def photos(self, number: int, start: int) -> Iterator[tuple[Packed, bytes]]:
        """Those of a shard from the one at `start` in the folder on. What a node could not read is read here."""
        skipped = max(0, start - number * SHARD)
        for place, (entry, data) in enumerate(stored(self.place(number) / _DONE)):
            if place >= skipped and not entry.sha256:
                file = self.files(number)[place]
                unread = [(unread_entry(self.folder, file), file.source)]
                yield from decoded(unread, self.pack_format, threads=1)
            elif place >= skipped:
                yield entry, data

    def remove(self, number: int) -> None:
        shutil.rmtree(self.place(number))


def pack_shard(job: Path, resize: Resize = bicubic) -> None:
    """Decode the photos of a shard, in a process of a node.

    Args:
        resize: that of the pack's format.
    """
    values = read_json(job)
    photos = [(entry_of(entry), from_json(source)) for entry, source in values["photos"]]
    pack_format = _format_of(values["format"], resize)
    making = job.with_name(f"{uuid.uuid4().hex}.part")  # not shared with a lost task that works on unnoticed
    making.mkdir()
    try:
        with Store(making) as store:
            for entry, data in decoded(photos, pack_format, threads=values["threads"]):
                store.add(entry, data)
        if not job.with_name(_DONE).exists():
            making.rename(job.with_name(_DONE))
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _values_of(pack_format: PackFormat) -> dict[str, Any]:
    """All but the function that shrinks, which the worker knows."""
    return {
        "short_side": pack_format.short_side,
        "min_side": pack_format.min_side,
        "jpeg": pack_format.jpeg,
        "gray": pack_format.gray.as_dict(),
    }


def _format_of(values: dict[str, Any], resize: Resize) -> PackFormat:
    return PackFormat(**{**values, "gray": GrayLevels.of(values["gray"])}, resize=resize)
