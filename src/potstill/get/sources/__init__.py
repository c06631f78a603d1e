"""Where photos come from. One module per source, each an implementation of `Source`; `registry` lists them.

A source turns a word into one of its own classes (`resolve`) and then lists photos of it in a fixed order
(`candidates`), as lazily as it can: the caller stops when it has enough. It never fetches a photo itself.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from potstill.errors import SourceError

if TYPE_CHECKING:  # importing the protocol loads no HTTP client
    from potstill.get.client import Client
    from potstill.monitoring.progress import Reporter

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

LOCAL_PREFIX = "bring"
"""Of the keys and groups of photos of one's own. Never changed: by it photos keep their file and their split in folders
that earlier versions filled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """What a class name means to one source."""

    label: str
    """The user's class name, and the name of its folder."""
    id: str
    """The source's own id: a Freebase MID, a Wikidata QID, a taxon number, a wnid, a label."""
    name: str
    """What the source calls it."""
    note: str = ""
    """Anything a person should know about the choice: other meanings, a plural turned singular."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A photo that a source says shows a class. Nobody has opened it yet."""

    key: str
    """`SOURCE-ID`, unique, and the file name without its extension: only letters, digits, `-`, `_` and `.`."""
    label: str
    group: str
    """Photos of one group stay on one side of the split: one observation, one page, one original."""
    url: str = ""
    read: Callable[[], bytes] | None = None
    """Gives the bytes where they are on this machine already; runs in a thread."""
    sha1: str = ""
    """Hex, of the very bytes at `url`, where the source promises it."""
    sha256: str = ""
    license: str = ""
    """As in licenses.license_id; "" is unknown."""
    license_url: str = ""
    author: str = ""
    title: str = ""
    landing_url: str = ""
    split: str = ""
    """The split that the source itself prescribes; "" leaves it to the hash of the group."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the provenance: what makes a row of a data set findable again."""

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):  # parts of it come from servers, and it becomes a file name
            raise SourceError(f"A photo of {self.label!r} has the key {self.key!r}, which cannot be a file name.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """What every source is opened with."""

    client: "Client"
    """For all requests: it keeps to the limits of each server."""
    reporter: "Reporter"
    contact: str = ""
    """The user's e-mail address, for servers that ask for one."""
    quick: bool = False
    """Read the smallest lists only, where a source has large ones."""


class Source(Protocol):
    """What every source can do."""

    name: str
    """As in the provenance of its photos."""
    has_licenses: bool
    """Whether each photo carries a license, so that the license filter applies."""
    public: bool
    """Whether strangers add to it: one photo then turns up under many names, and copies are worth leaving out."""

    async def resolve(self, label: str, wanted: str) -> Concept:
        """What `wanted` (a word, or an id given as `label=id`) means here. Raises SourceError with near matches."""
        ...

    def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        """Photos of one of the resolved classes, the same ones in the same order each time."""
        ...

    async def facts(self) -> dict[str, Any]:
        """For dataset.json: files used, with their ETags, revisions, licenses of the whole."""
        ...

    async def probe(self) -> str:
        """One small request. Returns what was found; raises SourceError or FetchError."""
        ...
