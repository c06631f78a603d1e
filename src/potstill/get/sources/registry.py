"""All photo sources by name: what each is, which ids are its own, and how it is opened.

A new source is one module here and one entry in SOURCES (or a call of `register`, from outside the package).
Importing this imports no source.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from potstill.errors import SourceError, did_you_mean
from potstill.get.sources import Source, SourceOptions

Opener = Callable[[str, SourceOptions], Source]
"""Opens a source. The text is what follows the colon in `--source NAME:TEXT`: a source's own options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceType:
    """A kind of source, as `--source NAME` or `--source NAME:TEXT` opens it."""

    name: str
    open: Opener
    usage: str
    """How to write it after `--source`, for the help: `hf:OWNER/NAME`."""
    summary: str
    """What it is, in a few words, for the help."""
    id_pattern: str = ""
    """Regular expression of its own ids: with `cat=ID`, "auto" goes straight to this source."""
    id_example: str = ""
    """One such id for a cat, and whose it is."""
    searched: bool = False
    """Whether "auto" looks up words here; sources are tried in the order of SOURCES."""
    needs_contact: bool = False
    """Whether "auto" skips it without `--contact`."""
    probe: str = ""
    """What `potstill doctor` opens and sends one small request to; empty: nothing."""


def _module(name: str) -> Opener:
    """Opens with the function `open_source` of a module here, imported on first use."""

    def open_source(text: str, options: SourceOptions) -> Source:
        module = importlib.import_module(f"potstill.get.sources.{name}")
        source: Source = module.open_source(text, options)
        return source

    return open_source


SOURCES: dict[str, SourceType] = {
    source.name: source
    for source in (
        SourceType(
            name="openimages",
            open=_module("openimages"),
            usage="openimages",
            summary="Open Images V7, labels checked by people",
            id_pattern=r"/[mg]/[0-9a-z_]+",
            id_example="/m/01yrx (Open Images)",
            searched=True,
            probe="openimages",
        ),
        SourceType(
            name="commons",
            open=_module("commons"),
            usage="commons",
            summary="Wikimedia Commons, by what a photo depicts",
            id_pattern=r"Q[1-9]\d*",
            id_example="Q146 (Wikidata)",
            searched=True,
            needs_contact=True,
            probe="commons",
        ),
        SourceType(
            name="inaturalist",
            open=_module("inaturalist"),
            usage="inaturalist",
            summary="iNaturalist, by species or group",
            id_pattern=r"inat:\d+",
            id_example="inat:118552 (iNaturalist)",
            searched=True,
            probe="inaturalist",
        ),
        SourceType(
            name="hf",
            open=_module("huggingface"),
            usage="hf:OWNER/NAME",
            summary="a labeled image set on Hugging Face",
            probe="hf:uoft-cs/cifar10",
        ),
        SourceType(
            name="archive",
            open=_module("archives"),
            usage="archive:NAME",
            summary="a fixed data set such as imagenette2-160 or oxford-pets",
            probe="archive:imagenette2-160",
        ),
        SourceType(
            name="imagenet",
            open=_module("imagenet"),
            usage="imagenet:FOLDER",
            summary="your own copy of ImageNet",
        ),
        SourceType(
            name="local",
            open=_module("local"),
            usage="PATH",
            summary="a folder of photos, a list of URLs, or tar shards",
        ),
    )
}
"""Every source, in the order in which "auto" tries them and the help names them."""


def register(source: SourceType) -> None:
    """Add a source, after those that exist. Raises ValueError when the name is taken."""
    if source.name in SOURCES:
        raise ValueError(f"There is a source {source.name!r} already.")
    SOURCES[source.name] = source


def source_type(name: str) -> SourceType:
    """The source of this name. Raises SourceError with the nearest name."""
    if name not in SOURCES:
        raise SourceError(
            f"There is no source {name!r}, and no file or folder of that name."
            + did_you_mean(name, SOURCES)
            + f"\n  Sources: {', '.join(source.usage for source in SOURCES.values())}."
        )
    return SOURCES[name]


def owner_of(id: str) -> str:
    """The name of the source whose ids look like this; "" for a word."""
    owners = (s.name for s in SOURCES.values() if s.id_pattern and re.fullmatch(s.id_pattern, id))
    return next(owners, "")


def source_help() -> str:
    """One sentence for `--source` of `potstill get --help`."""
    known = ", ".join(f"{source.usage} ({source.summary})" for source in SOURCES.values())
    return f"Where photos come from: auto (the first source that knows the word), {known}."
