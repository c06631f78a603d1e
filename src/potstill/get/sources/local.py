"""Your own photos, or lists of URLs: `--source PATH`. A folder, a list, or tar shards.

FOLDER/{train,test}/CLASS/*, FOLDER/CLASS/*       photos
FOLDER/CLASS.txt                                  one URL per line, a file per class
LIST.csv, .tsv, .jsonl, .parquet                  columns url, label [, license, author, title, sha256, split, group]
FOLDER/*.tar, SHARDS-{000..012}.tar               webdataset shards, img2dataset output: label in .cls or .json
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from potstill.data.splits import LABELED, unit_hash
from potstill.errors import SourceError
from potstill.get.names import near_matches
from potstill.get.sources import LOCAL_PREFIX, Candidate, Concept, Source, SourceOptions
from potstill.get.sources.shards import expand, shard_candidates
from potstill.get.sources.url_lists import SUFFIXES, list_candidates, text_candidates
from potstill.images.folder import list_photos, plain_name


class LocalPhotos:
    """Photos, or a list of them, at a path."""

    name = "local"
    has_licenses = False

    def __init__(self, what: str) -> None:
        self._path = Path(what)
        self._shards = expand(what)
        self.public = not self._shards and (self._path.suffix in SUFFIXES or bool(list(_text_files(self._path))))
        if not self._shards and not self._path.exists():
            raise SourceError(f"There is no file or folder {what}.")
        self._labels: Counter[str] = Counter()

    async def resolve(self, label: str, wanted: str) -> Concept:
        """A label that occurs, as it is written there, or in another case."""
        if not self._labels:
            self._labels.update(candidate.label for candidate in self._all())
        by_folded = {name.casefold(): name for name in self._labels}
        if found := by_folded.get(wanted.casefold()):
            return Concept(label=label, id=found, name=found, note=f"{self._labels[found]:,} candidates")
        have = ", ".join(name for name, _ in self._labels.most_common(12)) or "none"
        raise SourceError(
            f"{self._path} has no label {wanted!r}.{near_matches(wanted, self._labels)} Its labels: {have}."
        )

    async def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        """In the order of the list; photos in folders in the order of a hash of their names."""
        for candidate in self._all():
            if candidate.label == concept.id:
                yield replace(candidate, label=concept.label)

    async def facts(self) -> dict[str, Any]:
        return {"path": self._path.name, "labels": dict(self._labels.most_common(1000))}

    async def probe(self) -> str:
        return f"{sum(1 for _ in self._all()):,} candidates"

    def _all(self) -> Iterator[Candidate]:
        if self._shards:
            yield from shard_candidates(self._shards)
        elif self._path.is_file():
            if self._path.suffix not in SUFFIXES:
                raise SourceError(f"{self._path} is neither a tar nor a list ({', '.join(sorted(SUFFIXES))}).")
            yield from list_candidates(self._path)
        elif texts := list(_text_files(self._path)):
            for path in texts:
                yield from text_candidates(path)
        else:
            yield from _folder_candidates(self._path)


def _text_files(folder: Path) -> Iterator[Path]:
    """`CLASS.txt` files, where there is no class folder beside them."""
    if folder.is_dir() and not any(entry.is_dir() for entry in folder.iterdir()):
        yield from sorted(folder.glob("*.txt"))


def _folder_candidates(folder: Path) -> Iterator[Candidate]:
    found = [(split, label, path) for split, label, path in list_photos(folder) if path is not None and label]
    named = [(plain_name(path.relative_to(folder)), split, label, path) for split, label, path in found]
    named.sort(key=lambda item: unit_hash(item[0], seed=0, purpose="order"))
    for name, split, label, path in named:
        yield Candidate(
            key=f"{LOCAL_PREFIX}-{int(unit_hash(name, seed=0, purpose='key') * 2**53):014x}",
            label=label,
            group=f"{LOCAL_PREFIX}:{name}",
            read=path.read_bytes,
            split=("test" if split == "val" else split) if split in LABELED else "",
            title=plain_name(path.name),
            more={"file": name},
        )


def open_source(text: str, options: SourceOptions) -> Source:
    """For the registry. `text` is a path."""
    return LocalPhotos(text)
