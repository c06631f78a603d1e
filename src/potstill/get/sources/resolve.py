"""Which source a class name goes to. `label=id` decides it; a bare word is tried where a miss costs least."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import SourceError
from potstill.get.client import Client
from potstill.get.names import wordnet
from potstill.get.sources import Concept, Source
from potstill.get.sources.archives import FixedArchive
from potstill.get.sources.local import Bring
from potstill.get.sources.commons import Commons
from potstill.get.sources.huggingface import HuggingFace
from potstill.get.sources.imagenet import ImageNet
from potstill.get.sources.inaturalist import INaturalist
from potstill.get.sources.openimages import OpenImages
from potstill.get.sources.shards import expand
from potstill.monitoring.progress import Reporter

PINS = (
    (re.compile(r"/[mg]/[0-9a-z_]+"), "openimages"),
    (re.compile(r"Q[1-9]\d*"), "commons"),
    (re.compile(r"inat:\d+"), "inaturalist"),
)
"""What an id after `label=` looks like, and whose it is."""

PUBLIC = ("openimages", "commons", "inaturalist", "hf:uoft-cs/cifar10", "archive:imagenette2-160")
"""What `doctor` asks for a sign of life."""

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """What sources are opened with."""

    client: Client
    reporter: Reporter
    contact: str = ""
    quick: bool = False


def openers(options: SourceOptions) -> dict[str, Callable[[str], Source]]:
    """Every source by name; each is opened with what follows the colon in `--source NAME:WHAT`."""
    client, reporter = options.client, options.reporter
    return {
        "openimages": lambda what: OpenImages(client, reporter, quick=options.quick),
        "commons": lambda what: Commons(client),
        "inaturalist": lambda what: INaturalist(client),
        "hf": lambda what: HuggingFace(client, reporter, what),
        "archive": lambda what: FixedArchive(client, reporter, what),
        "imagenet": lambda what: ImageNet(what),
        "bring": lambda what: Bring(what),
    }


class Opened:
    """Sources, opened once each on first use."""

    def __init__(self, options: SourceOptions) -> None:
        self._openers = openers(options)
        self._open: dict[str, Source] = {}

    def __call__(self, spec: str) -> Source:
        """The source of `NAME` or `NAME:WHAT`, or of a path to photos of your own."""
        name, _, what = spec.partition(":")
        if name not in self._openers and (Path(spec).exists() or expand(spec)):
            name, what = "bring", spec
        if name not in self._openers:
            near = difflib.get_close_matches(name, self._openers, n=1)
            raise SourceError(
                f"There is no source {name!r}, and no file or folder of that name."
                + (f" Did you mean {near[0]!r}?" if near else "")
                + f"\n  Sources: {', '.join(self._openers)}."
            )
        if spec not in self._open:
            self._open[spec] = self._openers[name](what)
        return self._open[spec]


async def resolve(wanted: Mapping[str, str], source: str, options: SourceOptions) -> list[tuple[Source, Concept]]:
    """A source and one of its classes for every label.

    Args:
        wanted: by label, the word or id to look for.
        source: `NAME`, `NAME:WHAT`, a path, or "auto".
    Raises:
        SourceError: no source knows a word; the message names near matches.
    """
    opened = Opened(options)
    plan = []
    for label, word in wanted.items():
        if source == "auto":
            plan.append(await _search(opened, label, word, options))
        else:
            chosen = opened(source)
            plan.append((chosen, await chosen.resolve(label, word.removeprefix("inat:"))))
    return plan


async def _search(opened: Opened, label: str, word: str, options: SourceOptions) -> tuple[Source, Concept]:
    for pattern, name in PINS:
        if pattern.fullmatch(word):
            source = opened(name)
            return source, await source.resolve(label, word.removeprefix("inat:"))
    words = [word]
    if _WNID.fullmatch(word):
        if word not in wordnet().words:
            raise SourceError(f"WordNet 3.0, as far as ImageNet uses it, has no {word}.")
        words = list(wordnet().words[word])
    misses = []
    for name in ("openimages", *(["commons"] if options.contact else []), "inaturalist"):
        source = opened(name)
        for form in words:
            try:
                return source, await source.resolve(label, form)
            except SourceError as error:
                misses.append(f"{name}: {error}")
    hint = "" if options.contact else "\n  Wikimedia Commons was not asked; it wants --contact YOUR-E-MAIL."
    raise SourceError(
        f"No source knows {word!r}.\n  " + "\n  ".join(misses) + hint
        + f"\n  An id settles it: {label}=/m/01yrx (Open Images), {label}=Q146 (Wikidata), {label}=inat:118552."
    )  # fmt: skip
