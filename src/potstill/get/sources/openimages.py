"""Open Images V7: nine million photos with image-level labels checked by people. No account, no key.

The lists are large, so they are streamed line by line: validation and test first (174 MiB, downloaded once and cached),
the boxable part of train (0.95 GiB) only when those two are not enough. Photos come from the public copy, at most 1024
pixels long; train photos outside the boxable part are not in that copy and are not listed.
Annotations: CC BY 4.0 by Google. Photos: listed as CC BY 2.0, each with its author.
"""

import asyncio
import csv
import os
import re
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.data.splits import unit_hash
from potstill.errors import SourceError
from potstill.get.client import Client
from potstill.get.large_files import fetch_file
from potstill.get.licenses import license_id
from potstill.get.names import near_matches, singulars
from potstill.get.sources import Candidate, Concept, Source, SourceOptions
from potstill.monitoring.progress import Reporter
from potstill.run.cache import cache_folder

NAMES = "v7/oidv7-class-descriptions.csv"
PART_ROWS = 20_000
"""Photos whose details are looked up in one pass over the list of photos: bounds the memory."""

_MID = re.compile(r"/[mg]/[0-9a-z_]+")
_FLICKR = re.compile(r"flickr\.com/photos/([^/]+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Subset:
    """One part of Open Images, as it is published."""

    folder: str
    labels: str
    photos: str


SUBSETS = (
    Subset(
        "validation",
        "v7/oidv7-val-annotations-human-imagelabels.csv",
        "2018_04/validation/validation-images-with-rotation.csv",
    ),
    Subset(
        "test",
        "v7/oidv7-test-annotations-human-imagelabels.csv",
        "2018_04/test/test-images-with-rotation.csv",
    ),
    Subset(
        "train",
        "v5/train-annotations-human-imagelabels-boxable.csv",
        "2018_04/train/train-images-boxable-with-rotation.csv",
    ),
)


class OpenImages:
    """The default source."""

    name = "openimages"
    has_licenses = True
    public = True

    def __init__(self, client: Client, reporter: Reporter, *, quick: bool = False) -> None:
        self._client = client
        self._reporter = reporter
        self._subsets = SUBSETS[:1] if quick else SUBSETS
        self._lists = os.environ.get("POTSTILL_OPENIMAGES_BASE", "https://storage.googleapis.com/openimages").rstrip(
            "/"
        )
        self._pixels = os.environ.get(
            "POTSTILL_OPENIMAGES_PIXELS", "https://open-images-dataset.s3.amazonaws.com"
        ).rstrip("/")
        self._facts: dict[str, Any] = {}
        self._lock = asyncio.Lock()  # several classes read the same lists at the same time
        self._positives: dict[str, dict[str, array[int]]] = {}

    async def resolve(self, label: str, wanted: str) -> Concept:
        """A display name, in any case, singular or plural, or a MID like /m/01yrx."""
        by_name, by_mid = {}, {}
        with (await self._file(NAMES)).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                by_name[row["DisplayName"].casefold()] = row["LabelName"]
                by_mid[row["LabelName"]] = row["DisplayName"]
        if _MID.fullmatch(wanted):
            if wanted not in by_mid:
                raise SourceError(f"Open Images has no class {wanted}.")
            return Concept(label=label, id=wanted, name=by_mid[wanted])
        for word in singulars(wanted):
            if mid := by_name.get(word):
                note = f"read as {word!r}" if word != wanted.casefold() else ""
                return Concept(label=label, id=mid, name=by_mid[mid], note=note)
        raise SourceError(f"Open Images has no class {wanted!r}." + near_matches(wanted, by_mid.values()))

    async def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        """Subset by subset; within one, in the order of a hash of the id, which does not depend on the content."""
        for subset in self._subsets:
            ids = (await self._ids(subset, concepts))[concept.id]
            for start in range(0, len(ids), PART_ROWS):
                part = [f"{number:016x}" for number in ids[start : start + PART_ROWS]]
                rows = await asyncio.to_thread(_rows, await self._file(subset.photos), frozenset(part))
                for image_id in part:
                    if (row := rows.get(image_id)) and _is_upright(row):
                        yield self._candidate(subset, concept, row)

    async def facts(self) -> dict[str, Any]:
        return {"files": self._facts, "annotations_license": "CC-BY-4.0"}

    async def probe(self) -> str:
        async with self._client.open(f"{self._lists}/{NAMES}", {"Range": "bytes=0-99"}) as response:
            start = await response.content.read(100)
        if not start.startswith(b"LabelName,DisplayName"):
            raise SourceError(f"{self._lists} answered, but not with the list of classes.")
        return "answers"

    async def _file(self, path: str) -> Path:
        target = cache_folder() / "openimages" / path
        if not target.is_file() and path != NAMES:
            self._reporter.info(f"Open Images: downloading the list {path} (once; it is cached in {target.parent})")
        self._facts[path] = await fetch_file(self._client, f"{self._lists}/{path}", target, self._reporter)
        return target

    async def _ids(self, subset: Subset, concepts: Sequence[Concept]) -> Mapping[str, "array[int]"]:
        """Photos that people confirmed to show exactly one of the classes, by MID; ids as 64-bit numbers."""
        async with self._lock:
            if subset.folder not in self._positives:
                labels = await self._file(subset.labels)
                await self._file(subset.photos)
                mids = [concept.id for concept in concepts]
                self._positives[subset.folder] = await asyncio.to_thread(_positives, labels, mids)
        return self._positives[subset.folder]

    def _candidate(self, subset: Subset, concept: Concept, row: Mapping[str, str]) -> Candidate:
        image_id, landing = row["ImageID"], row["OriginalLandingURL"]
        flickr = _FLICKR.search(landing)
        return Candidate(
            key=f"openimages-{image_id}",
            label=concept.label,
            group=f"flickr:{flickr[1]}/{flickr[2]}" if flickr else f"openimages:{image_id}",
            url=f"{self._pixels}/{subset.folder}/{image_id}.jpg",
            license=license_id(row["License"]),
            license_url=row["License"],
            author=row["Author"],
            title=row["Title"],
            landing_url=landing,
            more={"label_origin": "human-verified", "subset": subset.folder},
        )


def _rows(path: Path, ids: frozenset[str]) -> dict[str, dict[str, str]]:
    """The details of these photos, by id."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        header = next(csv.reader([next(file)]))
        wanted = (line for line in file if line[:16] in ids)  # the id comes first: most lines need no parsing
        return {row[0]: dict(zip(header, row, strict=True)) for row in csv.reader(wanted) if len(row) == len(header)}


def _is_upright(row: Mapping[str, str]) -> bool:
    """Whether the stored pixels are the right way up; an empty field means not rotated."""
    try:
        return float(row["Rotation"] or 0.0) == 0.0
    except ValueError:
        return False


def _positives(path: Path, mids: Sequence[str]) -> dict[str, "array[int]"]:
    order = {mid: index for index, mid in enumerate(dict.fromkeys(mids))}
    seen: dict[int, int] = {}
    for image_id, mid in _confirmed(path, frozenset(order)):
        number = int(image_id, 16)
        # -1: shows two of the wanted classes, and is an example of neither.
        seen[number] = order[mid] if seen.get(number, order[mid]) == order[mid] else -1
    found: dict[str, array[int]] = {}
    for mid, index in order.items():
        numbers = [number for number, owner in seen.items() if owner == index]
        numbers.sort(key=lambda number: unit_hash(f"{number:016x}", seed=0, purpose="order"))
        found[mid] = array("Q", numbers)
    return found


def _confirmed(path: Path, mids: frozenset[str]) -> Iterator[tuple[str, str]]:
    """(ImageID, LabelName) of rows with a confidence above 0, which is written 1, 1.0, 0 or 0.0."""
    with path.open(encoding="ascii", errors="replace") as file:
        header = next(file).strip().split(",")
        if header[:4] != ["ImageID", "Source", "LabelName", "Confidence"]:
            raise SourceError(f"{path} does not start like a list of labels: {header}. Remove it and try again.")
        for line in file:
            fields = line.rstrip("\r\n").split(",")
            if len(fields) >= 4 and fields[2] in mids and fields[3] and float(fields[3]) > 0:
                yield fields[0], fields[2]


def open_source(text: str, options: SourceOptions) -> Source:
    """For the registry. Takes no text."""
    return OpenImages(options.client, options.reporter, quick=options.quick)
