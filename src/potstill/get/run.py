"""`potstill get`, from class names to photos: find the classes, list candidates, download, check, split, attribute."""

import asyncio
import importlib.metadata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.errors import ConfigError, DataError
from potstill.get import provenance
from potstill.get.client import Client
from potstill.get.download import Download, remove_leftovers
from potstill.get.licenses import OPEN, is_allowed
from potstill.get.limits import Limits
from potstill.get.sources import Concept, Source, SourceOptions
from potstill.get.sources.resolve import resolve
from potstill.get.streams import BYTES_PER_PHOTO, Preview, Rules, Side, Stream, split_of
from potstill.get.summary import bars
from potstill.images.folder import check_class_names
from potstill.monitoring.progress import Reporter
from potstill.run import files
from potstill.wording import counted

FACTS = "dataset.json"
DAMAGED = "Remove it and run again, with the --train, --test and --seed of the first time."
SPARE = 1.3
"""A preview stops at this many candidates per photo wanted; some are always gone or bad."""


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
    unlabeled: int = 0
    """Photos per class name to use without a label: of the candidates that are left when train is full."""
    source: str = "auto"
    """A source by name; "auto" chooses for each class."""
    licenses: tuple[str, ...] = OPEN
    """License families to keep, where the source knows each photo's license; "any" keeps all."""
    contact: str = ""
    """Your e-mail address: Wikimedia asks for one, to write to when something goes wrong."""
    seed: int = 0
    """Another number gives another train/test split of the same photos."""
    min_side: int = 64
    """Photos with a shorter side below this many pixels are left out."""
    near_bits: int = 6
    """Photos of a public source are left out when their 64-bit perceptual hash differs from another one in at most this
    many bits. -1 keeps them."""
    quick: bool = False
    """Open Images: read its smallest lists only (42 MB)."""
    allow_private: tuple[str, ...] = ()
    """`HOST:PORT` pairs that may be private addresses: a mirror of your own."""
    limits: Limits = field(default_factory=Limits)
    """How many requests, how fast and how large."""

    def __post_init__(self) -> None:
        counts = self.train, self.test, self.unlabeled
        if min(counts) < 0 or not any(counts):
            raise ConfigError(
                f"--train {self.train} --test {self.test} --unlabeled {self.unlabeled}: at least one must be above 0, "
                "none below."
            )

    @property
    def wanted(self) -> dict[str, int]:
        """Photos per class, by split."""
        return {"train": self.train, "test": self.test, "unlabeled": self.unlabeled}


@dataclass(frozen=True, kw_only=True, slots=True)
class GetResult:
    """What `get` has done."""

    streams: tuple[Stream, ...]
    parked: dict[str, str]
    """Servers that were left alone, and why."""

    @property
    def is_complete(self) -> bool:
        """Whether every class has as many photos as were wanted."""
        return not any(side.have < side.wanted for stream in self.streams for side in stream.sides.values())


def get(request: GetRequest, reporter: Reporter) -> GetResult:
    """Fill `into/{train,test,unlabeled}/CLASS/`. Run again, it resumes.

    Raises:
        DataError: class names that cannot be folders; another seed than before; another `get` at work in this folder.
        SourceError: no source knows a class, or the source does not answer.
        SpaceError: the disk is too small, or full.
    """
    return asyncio.run(_get(request, reporter))


async def _get(request: GetRequest, reporter: Reporter) -> GetResult:
    wanted = parse_classes(request.classes)
    share = _test_share(request)
    total = len(wanted) * sum(request.wanted.values())
    files.check_space(request.into, total * BYTES_PER_PHOTO, f"Downloading {counted(total, 'photo')}")
    async with _client(request) as client:
        plan = await resolve(wanted, request.source, _options(request, client, reporter))
        for source, concept in plan:
            reporter.info(f"{concept.label}: {source.name} {concept.id} “{concept.name}” {concept.note}".rstrip())
        _make_folders(request, [concept.label for _, concept in plan])
        with provenance.Writer(request.into) as writer:
            remove_leftovers(request.into)
            for wanted_now in _rounds(request):
                streams = tuple(_stream(wanted_now, source, concept) for source, concept in plan)
                _write_facts(request, share, streams, {})
                with bars(streams, reporter) as tick:
                    download = Download(client, _rules(request, share, streams), streams, writer, tick)
                    download.restore(provenance.latest(request.into))
                    await download.run()
        provenance.write_attribution(request.into)
        _write_facts(request, share, streams, {source.name: await source.facts() for source, _ in plan})
        return GetResult(streams=streams, parked=client.hosts.parked())


def _rounds(request: GetRequest) -> Iterator[dict[str, int]]:
    """What is wanted, round by round. Only when train and test are full is it known which candidates are left for
    unlabeled, so that a run that was killed ends with the same files; the second round starts as another run would."""
    if request.train or request.test:
        yield {**request.wanted, "unlabeled": 0}
    if request.unlabeled:
        yield request.wanted


def preview(request: GetRequest, reporter: Reporter) -> list[Preview]:
    """What `get` would download, class by class; no photo is fetched. Raises as `get` does."""
    return asyncio.run(_preview(request, reporter))


async def _preview(request: GetRequest, reporter: Reporter) -> list[Preview]:
    share = _test_share(request)
    async with _client(request) as client:
        wanted = parse_classes(request.classes)
        plan = await resolve(wanted, request.source, _options(request, client, reporter))
        concepts = {source.name: [concept for owner, concept in plan if owner is source] for source, _ in plan}
        return [await _preview_class(request, share, source, concepts[source.name], c) for source, c in plan]


async def _preview_class(
    request: GetRequest, share: float, source: Source, concepts: Sequence[Concept], concept: Concept
) -> Preview:
    needed = {"train": request.train + request.unlabeled, "test": request.test}
    candidates, licenses = Counter[str](), Counter[str]()
    async for candidate in source.candidates(concepts, concept):
        if source.has_licenses and not is_allowed(candidate.license, request.licenses):
            continue
        candidates[split_of(candidate, share, request.seed)] += 1
        licenses[candidate.license or "unknown"] += 1
        if all(candidates[split] >= SPARE * count for split, count in needed.items()):
            break
    candidates["unlabeled"] = max(candidates["train"] - round(SPARE * request.train), 0)
    candidates["train"] -= candidates["unlabeled"]
    return Preview(
        source=source.name,
        concept=concept,
        candidates={split: candidates[split] for split in request.wanted},
        wanted=request.wanted,
        licenses=licenses,
    )


def _client(request: GetRequest) -> Client:
    return Client(request.limits, allowed=request.allow_private, contact=request.contact)


def _options(request: GetRequest, client: Client, reporter: Reporter) -> SourceOptions:
    return SourceOptions(client=client, reporter=reporter, contact=request.contact, quick=request.quick)


def _rules(request: GetRequest, share: float, streams: Sequence[Stream]) -> Rules:
    is_public = all(stream.source.public for stream in streams)  # photos of your own may look alike
    return Rules(
        root=request.into,
        seed=request.seed,
        test_share=share,
        licenses=frozenset(request.licenses),
        min_side=request.min_side,
        near_bits=request.near_bits if is_public else -1,
    )


def _make_folders(request: GetRequest, labels: Sequence[str]) -> None:
    """Only of the splits that are asked for: an empty folder in train would be a class without photos."""
    for label in labels:
        for split, count in request.wanted.items():
            if count:
                (request.into / split / label).mkdir(parents=True, exist_ok=True)


def parse_classes(classes: Sequence[str]) -> dict[str, str]:
    """`cat` and `cat=/m/01yrx` to label and word. Raises DataError for labels that cannot be folder names."""
    wanted: dict[str, str] = {}
    for item in classes:
        label, _, word = item.partition("=")
        if label in wanted:
            raise DataError(f"The class {label!r} is given twice.")
        wanted[label] = word or label
    if not wanted:
        raise DataError("Name the classes to get: `potstill get cat dog --into data`.")
    check_class_names(list(wanted))
    return wanted


def _test_share(request: GetRequest) -> float:
    """The share of candidates that go to test. The first run sets it, so that no photo ever changes its split."""
    path = request.into / FACTS
    if not path.is_file():
        return request.test / (request.train + request.test) if request.train and request.test else 1 / 3
    before = files.read_json(path, DAMAGED)
    if before["seed"] != request.seed:
        raise DataError(
            f"{request.into} was split with seed {before['seed']}; seed {request.seed} would mix train and test.\n"
            f"  Leave out --seed {request.seed}, or use another folder."
        )
    return float(before["test_share"])


def _stream(wanted: Mapping[str, int], source: Source, concept: Concept) -> Stream:
    return Stream(source, concept, {split: Side(concept.label, split, count) for split, count in wanted.items()})


def _write_facts(
    request: GetRequest, share: float, streams: Sequence[Stream], sources: dict[str, dict[str, Any]]
) -> None:
    """`dataset.json`: what was asked for and where it is from; classes and sources of earlier runs are kept."""
    path = request.into / FACTS
    before = files.read_json(path, DAMAGED) if path.is_file() else {}
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
