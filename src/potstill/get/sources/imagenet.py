"""ImageNet from your own tars: `--source imagenet:FOLDER`. Under its terms only you may download them.

FOLDER holds `n02123045.tar` and the like, or `ILSVRC2012_img_train.tar` (a tar of those), or folders of that name.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from potstill.data.splits import unit_hash
from potstill.errors import SourceError
from potstill.get.names import wordnet
from potstill.get.sources import Candidate, Concept, Source, SourceOptions
from potstill.get.tars import members

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True, slots=True)
class Synset:
    """Where the photos of one wnid are."""

    path: Path
    offset: int = 0
    size: int | None = None

    def photos(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """(name without extension, reader) of each."""
        if self.path.is_dir():
            for path in self.path.iterdir():
                if path.is_file():
                    yield path.stem, path.read_bytes
        else:
            for member in members(self.path, offset=self.offset, size=self.size):
                yield PurePosixPath(member.name).stem, member.read


class ImageNet:
    """The user's own copy."""

    name = "imagenet"
    has_licenses = False
    public = False

    def __init__(self, what: str) -> None:
        self._folder = Path(what)
        if not what or not self._folder.exists():
            raise SourceError(
                f"There is no {what or 'folder'}. Name the folder of your ImageNet tars: --source imagenet:FOLDER.\n"
                "  Potstill cannot download them: image-net.org gives them to registered researchers only."
            )
        self._synsets = find_synsets(self._folder)
        if not self._synsets:
            raise SourceError(
                f"{self._folder} has no n########.tar, no folder of such a name, and no ILSVRC train tar."
            )

    async def resolve(self, label: str, wanted: str) -> Concept:
        """A wnid, or a word: its first WordNet meaning that has photos here, with all its subclasses."""
        return resolve_synsets(label, wanted, self._synsets, str(self._folder))

    async def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        """All subclasses mixed, in the order of a hash of the name."""
        table = wordnet()
        wnids = [wnid for wnid in self._synsets if table.is_a(wnid, concept.id)]
        found = [(wnid, name, read) for wnid in wnids for name, read in self._synsets[wnid].photos()]
        found.sort(key=lambda item: (unit_hash(item[1], seed=0, purpose="order"), item[1]))
        for wnid, name, read in found:
            key = re.sub(r"[^A-Za-z0-9_-]", "-", name)
            yield Candidate(
                key=f"imagenet-{key}",
                label=concept.label,
                group=f"imagenet:{name}",
                read=read,
                title=wordnet().words.get(wnid, (wnid,))[0],
                landing_url="https://image-net.org",
                license="ImageNet-non-commercial",
                more={"wnid": wnid, "file": name},
            )

    async def facts(self) -> dict[str, Any]:
        return {"synsets": len(self._synsets), "terms": "non-commercial research only (image-net.org)"}

    async def probe(self) -> str:
        return f"{len(self._synsets)} synsets"


def find_synsets(folder: Path) -> dict[str, Synset]:
    """Every wnid below a folder (or in one ILSVRC tar), and where its photos are."""
    found: dict[str, Synset] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
        if _WNID.fullmatch(path.stem) and (path.is_dir() or path.suffix == ".tar"):
            found[path.stem] = Synset(path)
        elif path.suffix == ".tar":
            for member in members(path):
                stem = PurePosixPath(member.name).stem
                if _WNID.fullmatch(stem) and member.name.endswith(".tar"):
                    found[stem] = Synset(path, member.offset, member.size)
    return found


def resolve_synsets(label: str, wanted: str, have: Sequence[str] | dict[str, Any], where: str) -> Concept:
    """The first meaning of a word of which some subclass is in `have`. Raises SourceError."""
    table = wordnet()
    for wnid in table.find(wanted):
        if subclasses := [other for other in have if table.is_a(other, wnid)]:
            name = table.words[wnid][0]
            note = (
                ""
                if subclasses == [wnid]
                else f"{len(subclasses)} subclasses: " + ", ".join(table.words[k][0] for k in subclasses[:4])
            )
            return Concept(label=label, id=wnid, name=name, note=note)
    few = ", ".join(f"{wnid} {table.words.get(wnid, ('?',))[0]}" for wnid in list(have)[:8])
    raise SourceError(f"{where} has no photos of {wanted!r}. It has {len(have)} synsets, such as {few}.")


def open_source(text: str, options: SourceOptions) -> Source:
    """For the registry. `text` is a folder."""
    return ImageNet(text)
