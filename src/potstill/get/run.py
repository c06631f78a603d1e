"""`potstill get`: names to photos. Resolve the names, list candidates, fetch, verify, split, and say whose they are."""

import asyncio
import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from potstill.errors import ConfigError, DataError
from potstill.get import provenance
from potstill.get.client import Client
from potstill.get.download import Download, Rules, Side, Stream, remove_leftovers, split_of
from potstill.get.ledger import Ledger
from potstill.get.licenses import OPEN, is_allowed
from potstill.get.limits import Limits
from potstill.get.sources import Concept, Source, SourceOptions
from potstill.get.sources.resolve import resolve
from potstill.get.summary import bars
from potstill.images.folder import check_class_names
from potstill.monitoring.progress import Reporter
from potstill.run import files

FACTS = "dataset.json"
OVER_ASK = 1.3
"""A preview stops at so many candidates per photo wanted; some are always gone or bad."""
BYTES_PER_PHOTO = 300_000
"""For the space check and the estimate: Open Images' validation photos are 288 kB on average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GetRequest:
    """What to get."""

    classes: tuple[str, ...]
    """Class names; `cat=/m/01yrx` says which id the folder `cat` is filled from."""
    into: Path
    """The photo folder."""
    train: int = 500
    """Photos per class to learn from."""
    test: int = 250
    """Photos per class for the final numbers."""
    source: str = "auto"
    """A source by name; "auto" chooses for each class."""
    licenses: tuple[str, ...] = OPEN
    """License families to keep, where the source tells each photo's license; "any" keeps all."""
    contact: str = ""
    """Your e-mail address: Wikimedia wants to know whom to tell when something goes wrong."""
    seed: int = 0
    """Another number gives another train/test split of the same photos."""
    min_side: int = 64
    """Photos with a shorter side below this many pixels are left out."""
    near_bits: int = 6
    """Photos of a public source whose 64-bit picture hash is this near to another's are left out. -1 keeps them."""
    quick: bool = False
    """Open Images: use its smallest part only (42 MB of lists)."""
    allow_private: tuple[str, ...] = ()
    """`HOST:PORT` pairs that may be private addresses: a mirror of your own."""
    limits: Limits = field(default_factory=Limits)
    """How hard servers may be asked."""

    def __post_init__(self) -> None:
        if min(self.train, self.test) < 0 or self.train + self.test == 0:
            raise ConfigError(f"--train {self.train} --test {self.test}: at least one must be above 0, none below.")


@dataclass(frozen=True, kw_only=True, slots=True)
class GetResult:
    """What came of it."""

    streams: tuple[Stream, ...]
    parked: dict[str, str]
    """Servers that were left alone, and why."""

    @property
    def is_complete(self) -> bool:
        """Whether every class has as many photos as were wanted."""
        return not any(side.have < side.wanted for stream in self.streams for side in stream.sides.values())


def get(request: GetRequest, reporter: Reporter) -> GetResult:
    """Fill `into/{train,test}/CLASS/`. Run again, it goes on where it stopped.

    Raises:
        DataError: class names that cannot be folders; another seed than before; another `get` at work here.
        SourceError: no source knows a class, or it does not answer.
        SpaceError: the disk is too small, or full.
    """
    return asyncio.run(_get(request, reporter))


async def _get(request: GetRequest, reporter: Reporter) -> GetResult:
    wanted = parse_classes(request.classes)
    share = _fixed_share(request)
    total = len(wanted) * (request.train + request.test)
    files.check_space(request.into, total * BYTES_PER_PHOTO, f"Fetching {total:,} photos")
    async with Client(request.limits, allowed=request.allow_private, contact=request.contact) as client:
        options = SourceOptions(client=client, reporter=reporter, contact=request.contact, quick=request.quick)
        plan = await resolve(wanted, request.source, options)
        for source, concept in plan:
            reporter.info(f"{concept.label}: {source.name} {concept.id} “{concept.name}” {concept.note}".rstrip())
        streams = tuple(_stream(request, source, concept) for source, concept in plan)
        for stream in streams:
            for side in stream.sides.values():
                (request.into / side.split / side.label).mkdir(parents=True, exist_ok=True)
        with provenance.Writer(request.into) as writer:
            remove_leftovers(request.into)
            _write_facts(request, share, streams, {})
            await _download(request, share, client, streams, writer, reporter)
        provenance.write_attribution(request.into)
        _write_facts(request, share, streams, {source.name: await source.facts() for source, _ in plan})
        return GetResult(streams=streams, parked=client.hosts.parked())


def preview(request: GetRequest, reporter: Reporter) -> Table:
    """What `get` would fetch, as a table: candidates per split and license, and about how many megabytes."""
    return asyncio.run(_preview(request, reporter))


async def _preview(request: GetRequest, reporter: Reporter) -> Table:
    out = Table("class", "source", "id", "train candidates", "test candidates", "licenses", "about MB")
    share = _fixed_share(request)
    async with Client(request.limits, allowed=request.allow_private, contact=request.contact) as client:
        options = SourceOptions(client=client, reporter=reporter, contact=request.contact, quick=request.quick)
        plan = await resolve(parse_classes(request.classes), request.source, options)
        for source, concept in plan:
            concepts = [other for owner, other in plan if owner is source]
            wanted = {"train": request.train, "test": request.test}
            found, licenses = Counter[str](), Counter[str]()
            async for candidate in source.candidates(concepts, concept):
                if source.has_licenses and not is_allowed(candidate.license, request.licenses):
                    continue
                found[split_of(candidate, share, request.seed)] += 1
                licenses[candidate.license or "unknown"] += 1
                if all(found[split] >= OVER_ASK * count for split, count in wanted.items()):
                    break
            size = sum(min(found[split], count) for split, count in wanted.items()) * BYTES_PER_PHOTO / 1e6
            names = ", ".join(f"{name} {count:,}" for name, count in licenses.most_common(4))
            sides = [f"{found[split]:,} for {count:,}" for split, count in wanted.items()]
            out.add_row(concept.label, source.name, f"{concept.id} {concept.name}", *sides, names, f"{size:,.0f}")
    return out


async def _download(
    request: GetRequest,
    share: float,
    client: Client,
    streams: Sequence[Stream],
    writer: provenance.Writer,
    reporter: Reporter,
) -> None:
    rules = Rules(
        root=request.into,
        seed=request.seed,
        test_share=share,
        licenses=frozenset(request.licenses),
        min_side=request.min_side,
    )
    is_public = all(stream.source.public for stream in streams)
    ledger = Ledger(near_bits=request.near_bits if is_public else -1)
    with bars(streams, reporter) as tick:
        download = Download(client, rules, streams, writer, ledger, tick)
        download.restore(provenance.latest(request.into))
        await download.run()


def parse_classes(classes: Sequence[str]) -> dict[str, str]:
    """`cat` and `cat=/m/01yrx` to label and word. Raises DataError for labels that cannot be folder names."""
    wanted: dict[str, str] = {}
    for item in classes:
        label, _, word = item.partition("=")
        if label in wanted:
            raise DataError(f"The class {label!r} is named twice.")
        wanted[label] = word or label
    if not wanted:
        raise DataError("Name the classes to get: `potstill get cat dog --into data`.")
    check_class_names(list(wanted))
    return wanted


def _fixed_share(request: GetRequest) -> float:
    """The share of test among candidates: fixed by the first run, so that no later one moves a photo across."""
    path = request.into / FACTS
    if not path.is_file():
        return request.test / (request.train + request.test) if request.train and request.test else 1 / 3
    before = files.read_json(path)
    if before["seed"] != request.seed:
        raise DataError(
            f"{request.into} was split with seed {before['seed']}; seed {request.seed} would mix train and test.\n"
            f"  Leave out --seed {request.seed}, or get into another folder."
        )
    return float(before["test_share"])


def _stream(request: GetRequest, source: Source, concept: Concept) -> Stream:
    wanted = {"train": request.train, "test": request.test}
    return Stream(source, concept, {split: Side(concept.label, split, count) for split, count in wanted.items()})


def _write_facts(
    request: GetRequest, share: float, streams: Sequence[Stream], sources: dict[str, dict[str, Any]]
) -> None:
    """`dataset.json`: what was asked for and what it was made from; classes and sources of earlier runs stay."""
    path = request.into / FACTS
    before = files.read_json(path) if path.is_file() else {}
    classes = {
        stream.concept.label: {
            "source": stream.source.name,
            "concept": stream.concept.id,
            "name": stream.concept.name,
            "photos": {split: side.have for split, side in stream.sides.items()},
        }
        for stream in streams
    }
    facts = {
        "tool": f"potstill/{importlib.metadata.version('potstill')}",
        "seed": request.seed,
        "test_share": share,
        "licenses": list(request.licenses),
        "classes": {**before.get("classes", {}), **classes},
        "sources": {**before.get("sources", {}), **sources},
    }
    files.write_json(path, facts)
