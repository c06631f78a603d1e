"""Settings from flags, a recipe and short names, in that order of strength."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.config.load import from_mapping, read_toml, settings
from potstill.config.schema import Config


def combined(
    flags: Config | None,
    words: Sequence[str],
    recipe: Path | None,
    short: Mapping[str, Any],
    weakest: Mapping[str, Any],
) -> Config:
    """The config of a command.

    Args:
        flags: what the command line parsed; fields that were not given have their defaults.
        words: the command line, which tells the given ones. A flag wins over a recipe even with the default's value.
        recipe: a TOML file.
        short: settings from short flags such as --classes.
        weakest: settings that anything else overrides, such as those of --quick.
    """
    config = from_mapping(weakest)
    if recipe is not None:
        config = read_toml(recipe, base=config)
    named = {_setting_of(word) for word in words if word.startswith("--")}
    given = {s.name: _get(flags, s.name) for s in settings() if flags is not None and s.name in named}
    return from_mapping({**given, **short}, base=config, source="flags")


def _setting_of(word: str) -> str:
    """`--student.lr-factors=1` names `student.lr_factors`, and so does `--student.empty-models`."""
    name = word[2:].partition("=")[0].replace("-", "_")
    return ".".join(part.removeprefix("empty_").removeprefix("no_") for part in name.split("."))


def _get(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
