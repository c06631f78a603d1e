"""What is said of a command line that cannot be parsed: what is wrong with it, and the name that was probably meant."""

import difflib
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from potstill.cli import COMMANDS, EXAMPLES
from potstill.cli.settings import flag_of, names_of
from potstill.config.load import settings

HINTS = {
    "--seed": "Did you mean --seeds? It sets the number of seeds. Random seeds: --images.split-seed, --views.seed.",
}
"""What to say of names that are near to one that means something else."""


def refusal(error: CycloptsError, words: Sequence[str]) -> str:
    """The message for an error of the parser."""
    if isinstance(error, UnknownOptionError):
        names = [name for argument in error.argument_collection if argument.parse for name in argument.names]
        return unknown_option(error.token.keyword or error.token.value, names)
    if isinstance(error, UnusedCliTokensError):
        return _too_many(str((error.unused_tokens or [""])[0]), words)
    if isinstance(error, RepeatArgumentError) and error.token.keyword:
        return f"{error.token.keyword} is given twice, perhaps under another of its names."
    if isinstance(error, UnknownCommandError):
        return _unknown_command(str((error.unused_tokens or [""])[0]))
    if isinstance(error, CoercionError) and error.msg is None and error.token and error.token.keyword:
        wanted = _wanted(error.target_type)
        return f"{error.token.keyword} must be {wanted}, not {error.token.value!r}." if wanted else str(error)
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        positional = error.argument.index is not None
        name = error.argument.field_info.name.upper() if positional else error.argument.name
        missing = f"{name} has no value." if name in words else f"{name} is missing."
        example = EXAMPLES.get(words[0], "")
        return f"{missing} An example: {example}." if example else missing
    return str(error)


def _wanted(kind: Any) -> str:
    """A type in words, such as "a whole number or 'auto'"; "" where there are none for it."""
    if get_origin(kind) in (Union, types.UnionType):
        parts = [_wanted(part) for part in get_args(kind) if part is not types.NoneType]
        return " or ".join(parts) if all(parts) else ""
    if get_origin(kind) is Literal:
        return " or ".join(repr(value) for value in get_args(kind))
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "")


def unknown_option(given: str, names: Iterable[str]) -> str:
    """A name that is no option, and what was probably meant.

    Args:
        given: as it was typed, perhaps with a value.
        names: of the options that there are.
    """
    given = given.partition("=")[0]
    known = {name for name in names if name.startswith("--")} | {"--help", "--version"}
    start = f"Unknown option: {given}."
    section = f"{given.lstrip('-')}."
    if members := [s.name for s in settings() if s.name.startswith(section) and f"--{s.name}" in known]:
        return f"{start} It is a group of settings: {', '.join(flag_of(name) for name in members)}."
    if given in HINTS and "--seeds" in known:
        return f"{start} {HINTS[given]}"
    near = [name for name in _near(given, known) if name != given]
    return f"{start} Did you mean {' or '.join(near)}?" if near else start


def _near(given: str, known: set[str]) -> list[str]:
    """The nearest names: the same but for its section, else the most similar one."""
    shown = sorted(name for name in known if "_" not in name)
    wanted = "--" + given.lstrip("-").replace("_", "-").lower()
    for prefix in ("--no-", "--empty-"):
        if wanted.startswith(prefix) and "--" + wanted.removeprefix(prefix) in known:
            return ["--" + wanted.removeprefix(prefix)]
    if near := difflib.get_close_matches(wanted, shown, n=1, cutoff=0.9):
        return near
    leaf = wanted.rpartition(".")[2].lstrip("-")
    if same := [name for name in shown if _leaf(name) == leaf]:
        return [name for name in same if ("." in name) == ("." in wanted)] or same
    if len(leaf) == 1:
        return []
    by_leaf = {_leaf(name): name for name in sorted(shown, key=lambda name: "." not in name)}
    near = difflib.get_close_matches(leaf, list(by_leaf), n=1, cutoff=0.7)
    return [by_leaf[near[0]]] if near else difflib.get_close_matches(wanted, shown, n=1)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2].lstrip("-")


def _unknown_command(given: str) -> str:
    names = [name for members in COMMANDS.values() for name in members]
    start = f"There is no command {given!r}."
    if Path(given).is_dir():
        return f"{start} To distill from the photos in that folder: potstill distill {given}."
    near = difflib.get_close_matches(given.lower(), names, n=1)
    return f"{start} Did you mean {near[0]!r}?" if near else f"{start} The commands are: {', '.join(names)}."


def _too_many(word: str, words: Sequence[str]) -> str:
    """A word that belongs to nothing: often the second value of an option."""
    place = words.index(word) if word in words else 0
    option = next((before for before in reversed(words[:place]) if before.startswith("--")), "")
    lists = {flag for setting in settings() if isinstance(setting.default, tuple) for flag in names_of(setting.name)}
    if option in lists:
        return f"{word!r} belongs to no option. Separate several values by commas: {option} A,B."
    if option and place and words[place - 1] == option:
        return f"{word!r} belongs to no option: {option} takes no value."
    return f"{word!r} is one argument too many."
