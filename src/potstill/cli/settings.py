"""Settings on the command line: the flags that there are, and how they combine with a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from cyclopts import Parameter

from potstill.config.load import RENAMED, from_mapping, read_toml, settings
from potstill.config.schema import Config


def _typed_dict() -> Any:
    """A TypedDict without required keys, which cyclopts fills with the flags that were given and no others."""
    sections: dict[str, dict[str, Any]] = {"": {}}
    for setting in settings():
        section, _, name = setting.name.rpartition(".")
        text = f"{setting.text} Must be {setting.range}." if setting.range else setting.text
        flag = Parameter(help=text, show_default=_shown(setting.default) or False)
        sections.setdefault(section, {})[name] = Annotated[setting.hint, flag]
    for former in RENAMED:  # parsed, so that `from_mapping` can refuse it with its new name
        section, _, name = former.rpartition(".")
        sections[section][name] = Annotated[str, Parameter(show=False)]
    own = sections.pop("")
    typed_dict: Any = TypedDict  # made at run time, which type checkers do not follow
    nested = {section: typed_dict(section, flags, total=False) for section, flags in sections.items()}
    return typed_dict("SettingFlags", {**own, **nested}, total=False)


def _shown(default: Any) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


if TYPE_CHECKING:
    SettingFlags = dict[str, Any]
    """The settings that the command line names, nested by section. Those that it does not name are not in it, so that
    a flag with the default's value is told from no flag."""
else:
    SettingFlags = Annotated[_typed_dict(), Parameter(name="*")]


def combined(
    flags: Mapping[str, Any] | None,
    short: Mapping[str, Any],
    recipe: Path | None,
    weakest: Mapping[str, Any] | None = None,
) -> Config:
    """The config of a command.

    Args:
        flags: the settings that were given as flags; they win over the recipe, even with the default's value.
        short: settings from short flags such as --classes, which win over everything.
        recipe: a TOML file.
        weakest: settings that anything else overrides, such as those of --quick.
    """
    config = from_mapping(weakest or {})
    if recipe is not None:
        config = read_toml(recipe, base=config)
    return from_mapping({**(flags or {}), **short}, base=config, source="command line")
