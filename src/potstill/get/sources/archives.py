"""Fixed archives by name: `--source archive:imagenette2-160`. Small, labeled and fixed: good for a first try.

Imagenette, Imagewoof and STL-10 consist of ImageNet photos: for non-commercial use. Oxford pets: CC BY-SA 4.0.
"""

import asyncio
import io
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from potstill.data.splits import unit_hash
from potstill.errors import SourceError
from potstill.get.client import Client
from potstill.get.large_files import fetch_file
from potstill.get.names import near_matches, singulars, wordnet
from potstill.get.sources import Candidate, Concept, Source, SourceOptions
from potstill.get.sources.imagenet import resolve_synsets
from potstill.get.tars import Member, members, unzipped
from potstill.monitoring.progress import Reporter
from potstill.run.cache import cache_folder

FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas"
PETS = "https://www.robots.ox.ac.uk/~vgg/data/pets/data"
STL = "http://ai.stanford.edu/~acoates/stl10"


@dataclass(frozen=True, slots=True)
class Archive:
    """What to download, and how to read it."""

    kind: str
    files: tuple[tuple[str, str], ...]
    """(URL, md5 in hex or "")."""
    license: str


ARCHIVES = {
    "imagenette2-160": Archive(
        "wnid", ((f"{FASTAI}/imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412"),), "ImageNet-non-commercial"
    ),
    "imagenette2-320": Archive(
        "wnid", ((f"{FASTAI}/imagenette2-320.tgz", "3df6f0d01a2c9592104656642f5e78a3"),), "ImageNet-non-commercial"
    ),
    "imagenette2": Archive(
        "wnid", ((f"{FASTAI}/imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612"),), "ImageNet-non-commercial"
    ),
    "imagewoof2-160": Archive("wnid", ((f"{FASTAI}/imagewoof2-160.tgz", ""),), "ImageNet-non-commercial"),
    "imagewoof2-320": Archive("wnid", ((f"{FASTAI}/imagewoof2-320.tgz", ""),), "ImageNet-non-commercial"),
    "imagewoof2": Archive("wnid", ((f"{FASTAI}/imagewoof2.tgz", ""),), "ImageNet-non-commercial"),
    "oxford-pets": Archive(
        "pets",
        (
            (f"{PETS}/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            (f"{PETS}/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
        "CC-BY-SA-4.0",
    ),
    "stl10": Archive(
        "stl10", ((f"{STL}/stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb"),), "ImageNet-non-commercial"
    ),
}


@dataclass(frozen=True, slots=True)
class Item:
    """A photo of an archive."""

    name: str
    classes: tuple[str, ...]
    """All its class names: a wnid; a breed and a species."""
    split: str
    read: Callable[[], bytes]


class FixedArchive:
    """One archive of ARCHIVES."""

    name = "archive"
    has_licenses = False
    public = False

    def __init__(self, client: Client, reporter: Reporter, what: str) -> None:
        if what not in ARCHIVES:
            raise SourceError(
                f"There is no archive {what!r}.{near_matches(what, ARCHIVES)} Archives: {', '.join(ARCHIVES)}."
            )
        self._what, self._archive = what, ARCHIVES[what]
        self._client, self._reporter = client, reporter
        self._items: list[Item] = []
        self._facts: list[dict[str, Any]] = []

    async def resolve(self, label: str, wanted: str) -> Concept:
        """One of its class names; or a WordNet word, where the class names are wnids."""
        await self._open()
        classes = sorted({name for item in self._items for name in item.classes})
        if self._archive.kind == "wnid":
            return resolve_synsets(label, wanted, classes, self._what)
        plain = {name.casefold().replace("_", " "): name for name in classes}
        for word in singulars(wanted):
            if word in plain:
                return Concept(label=label, id=plain[word], name=plain[word])
        raise SourceError(
            f"{self._what} has no class {wanted!r}.{near_matches(wanted, classes)} Its classes: {', '.join(classes)}."
        )

    async def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        """All subclasses mixed, in the order of a hash of the name, in the archive's own splits."""
        table = wordnet()
        for item in self._items:
            if concept.id in item.classes or any(table.is_a(name, concept.id) for name in item.classes):
                yield Candidate(
                    key=re.sub(r"[^A-Za-z0-9._-]", "-", f"{self._what}-{item.name}"),
                    label=concept.label,
                    group=f"{self._what}:{item.name}",
                    read=item.read,
                    split=item.split,
                    license=self._archive.license,
                    landing_url=self._archive.files[0][0],
                    more={"archive": self._what, "file": item.name},
                )

    async def facts(self) -> dict[str, Any]:
        return {"archive": self._what, "license": self._archive.license, "files": self._facts}

    async def probe(self) -> str:
        async with self._client.open(self._url(self._archive.files[0][0]), {"Range": "bytes=0-9"}) as response:
            start = await response.content.read(2)
        if start != b"\x1f\x8b":
            raise SourceError(f"{self._archive.files[0][0]} is not a gzip file.")
        return f"{self._what} answers"

    async def _open(self) -> None:
        if self._items:
            return
        self._reporter.info(f"{self._what}: license {self._archive.license}")
        tars = []
        for url, md5 in self._archive.files:
            path = cache_folder() / "archives" / self._what / PurePosixPath(url).name
            self._facts.append(await fetch_file(self._client, self._url(url), path, self._reporter, md5=md5))
            tars.append(await asyncio.to_thread(unzipped, path))
        found = [list(members(tar)) for tar in tars]
        if self._archive.kind == "wnid":
            items = _wnid_items(found[0])
        elif self._archive.kind == "pets":
            items = _pet_items(*found)
        else:
            items = _stl_items(found[0])
        self._items = sorted(items, key=lambda item: (unit_hash(item.name, seed=0, purpose="order"), item.name))

    def _url(self, url: str) -> str:
        """`POTSTILL_ARCHIVES_BASE` serves all archives from one place, by file name."""
        base = os.environ.get("POTSTILL_ARCHIVES_BASE")
        return f"{base.rstrip('/')}/{PurePosixPath(url).name}" if base else url


def _wnid_items(found: list[Member]) -> Iterator[Item]:
    """`imagenette2-160/{train,val}/n01440764/n01440764_10026.JPEG`."""
    for member in found:
        parts = PurePosixPath(member.name).parts
        if len(parts) == 4 and parts[1] in ("train", "val"):
            yield Item(
                PurePosixPath(parts[3]).stem, (parts[2],), {"train": "train", "val": "test"}[parts[1]], member.read
            )


def _pet_items(photos: list[Member], notes: list[Member]) -> Iterator[Item]:
    """`images/Abyssinian_1.jpg`; `annotations/{trainval,test}.txt`: name, class, species (1 cat, 2 dog), breed."""
    by_name = {PurePosixPath(member.name).stem: member for member in photos if member.name.endswith(".jpg")}
    for note in notes:
        split = {"trainval.txt": "train", "test.txt": "test"}.get(PurePosixPath(note.name).name)
        if split is None:
            continue
        for line in note.read().decode().splitlines():
            name, _, species, _ = line.split()
            if name in by_name:
                classes = (name.rpartition("_")[0].replace("_", " "), {"1": "cat", "2": "dog"}[species])
                yield Item(name, classes, split, by_name[name].read)


def _stl_items(found: list[Member]) -> Iterator[Item]:
    """`{train,test}_X.bin`: N × 3 × 96 × 96 bytes, columns first; `_y.bin`: classes from 1."""
    by_name = {PurePosixPath(member.name).name: member for member in found}
    names = by_name["class_names.txt"].read().decode().split()
    for split in ("train", "test"):
        for number, label in enumerate(by_name[f"{split}_y.bin"].read()):
            yield Item(
                f"{split}-{number:05d}", (names[label - 1],), split, _stl_reader(by_name[f"{split}_X.bin"], number)
            )


def _stl_reader(member: Member, number: int) -> Callable[[], bytes]:
    size = 3 * 96 * 96

    def read() -> bytes:
        pixels = np.frombuffer(member.read(number * size, size), np.uint8).reshape(3, 96, 96).transpose(2, 1, 0)
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG")
        return out.getvalue()

    return read


def open_source(text: str, options: SourceOptions) -> Source:
    """For the registry. `text` is a name of ARCHIVES."""
    return FixedArchive(options.client, options.reporter, text)
