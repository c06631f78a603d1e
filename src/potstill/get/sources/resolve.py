"""Which source a class name goes to. `label=id` decides it; a bare word is tried where a miss costs least."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from potstill.errors import SourceError, UnreachableError
from potstill.get.names import wordnet
from potstill.get.sources import Concept, Source, SourceOptions
from potstill.get.sources.registry import SOURCES, SourceType, owner_of, source_type
from potstill.get.sources.shards import expand

NO_NETWORK = """No network: none of the photo sources could be reached.
  Without one you can use your own photos (`potstill init CLASS CLASS --into FOLDER` makes the folders), copy them from
  a disk or mirror that you have (`--source PATH`), or try the built-in photos (`potstill demo`).
  With one, `potstill doctor` shows what can be reached. What each source said:"""

_WNID = re.compile(r"n\d{8}")


class OpenSources:
    """Sources, opened once each on first use."""

    def __init__(self, options: SourceOptions) -> None:
        self._options = options
        self._open: dict[str, Source] = {}

    def __call__(self, spec: str) -> Source:
        """The source of `NAME` or `NAME:TEXT`, or of a path to photos of your own."""
        name, _, text = spec.partition(":")
        if name not in SOURCES and (Path(spec).exists() or expand(spec)):
            name, text = "local", spec
        if spec not in self._open:
            self._open[spec] = source_type(name).open(text, self._options)
        return self._open[spec]


async def resolve(wanted: Mapping[str, str], source: str, options: SourceOptions) -> list[tuple[Source, Concept]]:
    """A source and one of its classes for every label.

    Args:
        wanted: by label, the word or id to look for.
        source: `NAME`, `NAME:TEXT`, a path, or "auto".
    Raises:
        SourceError: no source knows a word; the message names near matches.
        UnreachableError: no source answers.
    """
    opened = OpenSources(options)
    plan = []
    for label, word in wanted.items():
        name = owner_of(word) if source == "auto" else source
        if name:
            chosen = opened(name)
            plan.append((chosen, await chosen.resolve(label, word)))
        else:
            plan.append(await _search(opened, label, word, options))
    return plan


async def _search(opened: OpenSources, label: str, word: str, options: SourceOptions) -> tuple[Source, Concept]:
    """The first source that knows the word, of those that are searched for words."""
    searched = [source for source in SOURCES.values() if source.searched]
    skipped = [source for source in searched if source.needs_contact and not options.contact]
    words = _words(word)
    misses: dict[str, list[SourceError]] = {}
    for name in (source.name for source in searched if source not in skipped):
        source = opened(name)
        for variant in words:
            try:
                return source, await source.resolve(label, variant)
            except SourceError as error:
                misses.setdefault(name, []).append(error)
                if isinstance(error, UnreachableError):
                    break
    raise _not_found(label, word, misses, skipped)


def _words(word: str) -> list[str]:
    """The word itself, or the words of a WordNet id."""
    if not _WNID.fullmatch(word):
        return [word]
    if word not in wordnet().words:
        raise SourceError(f"The part of WordNet 3.0 that ImageNet uses has no {word}.")
    return list(wordnet().words[word])


def _not_found(
    label: str, word: str, misses: Mapping[str, Sequence[SourceError]], skipped: Sequence[SourceType]
) -> SourceError:
    silent = [name for name, errors in misses.items() if isinstance(errors[-1], UnreachableError)]
    details = [f"{name}: {error}" for name, errors in misses.items() for error in errors]
    if silent and len(silent) == len(misses):
        return UnreachableError("\n  ".join([NO_NETWORK, *details]))
    known = [name for name in misses if name not in silent]
    lines = [f"No source knows {word!r}." if not silent else f"{', '.join(known)} does not know {word!r}."]
    if silent:
        lines[0] += f" {', '.join(silent)} could not be reached: try again later."
    lines += details
    lines += [f"{source.name} was not searched: it needs --contact YOUR-E-MAIL." for source in skipped]
    ids = ", ".join(f"{label}={source.id_example}" for source in SOURCES.values() if source.id_example)
    lines.append(f"Name the class by its id instead: {ids}.")
    return SourceError("\n  ".join(lines))
