"""Settings on the command line: the flags that there are, and how they combine with a recipe.

Every setting is one flag of its own. There is no flag for a section: cyclopts would take the value of `--student NAME`
for the first setting of the section, or, in some versions, for nothing at all.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_args, get_origin

from cyclopts import Group, Parameter

from potstill.cli.help import OnlyInFull
from potstill.cli.values import is_whole, whole
from potstill.config.load import RENAMED, Setting, from_mapping, read_toml, settings
from potstill.config.schema import Config

SHORT: Mapping[str, tuple[str, ...]] = {
    "student.models": ("--students", "--student"),
    "teacher.model": ("--teacher", "--teachers"),
    "images.classes": ("--classes", "--class"),
    "images.labels": ("--labels",),
    "seeds": ("--seeds",),
    "metric": ("--metric",),
    "operating_point": ("--operating-point",),
    "external.class_map": ("--class-map",),
    "external.order": ("--order",),
    "student.epochs": ("--epochs",),
    "student.lr": ("--lr",),
    "student.size": ("--size",),
    "student.weights": ("--weights",),
    "budget.max_megabytes": ("--max-size",),
    "budget.max_mmacs": ("--max-macs",),
    "budget.max_milliseconds": ("--max-latency",),
}
"""Settings with short names. The first is the one that help and messages use."""

RARE = frozenset({"budget.max_mmacs", "budget.max_milliseconds", "external.class_map", "external.order"})
"""Settings with short names that only --help-all shows."""

READING = (
    *("images.classes_from", "images.labels", "images.path_column", "images.label_column"),
    *("images.labels_per_photo", "images.without_label"),
)
"""Settings that `count` and `check` take, too."""

COMMON = Group("Common settings", sort_key=20)
MORE = Group("More options", sort_key=21, help_formatter=OnlyInFull())
FIRST_SECTION = 30


def flag_of(name: str) -> str:
    """The flag of a setting, as help and messages call it."""
    return SHORT.get(name, (_long(name),))[0]


def _long(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def names_of(name: str) -> tuple[str, ...]:
    """Every name of a setting's flag; words may be joined by underscores, as in recipes.

    Long ones first: cyclopts would take `--student` for the beginning of `--student.models`, and look no further.
    """
    return tuple(dict.fromkeys((_long(name), f"--{name}", *SHORT.get(name, ()))))


def _flag(setting: Setting, group: Group, common: Group = COMMON) -> Any:
    text = f"{setting.text} Must be {setting.range}." if setting.range else setting.text
    is_list = get_origin(setting.hint) is tuple
    if is_list:
        text += " Separate several by commas"
        text += "; put a name with a comma in double quotes." if setting.name == "images.classes" else "."
    if len(alike := SHORT.get(setting.name, ())) > 1:
        text += f" {' and '.join(alike)} are the same option."
    converter = _listed if is_list else whole if is_whole(setting.hint) else None
    if setting.name.startswith("budget.max"):
        converter = _amount
    flag = Parameter(
        name=names_of(setting.name),
        help=text,
        show_default=_shown(setting.default) or False,
        group=common if setting.name in SHORT.keys() - RARE else group,
        converter=converter,
        negative=(),
    )
    return Annotated[setting.hint, flag]


def _listed(hint: Any, tokens: Sequence[Any]) -> tuple[Any, ...]:
    """`--students a,b` and `--students a --students b` are the same, and `--classes '"salt, pepper",oil'` names two."""
    kind = get_args(hint)[0]
    found: list[Any] = []
    for token in tokens:
        parts = [part.strip() for part in next(csv.reader([token.value], skipinitialspace=True), [])]
        if not all(parts) or not parts:
            raise ValueError(f"There is an empty name in {token.keyword} {token.value!r}.")
        found += parts
    return tuple(_element(kind, part) for part in found)


def _element(kind: Any, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a {'whole number' if kind is int else 'number'}.") from None


def _amount(hint: Any, tokens: Sequence[Any]) -> float:
    """`3MB` or `3`."""
    from potstill.students.budget import UNITS, parse_amount

    token = tokens[0]
    try:
        return float(token.value)
    except ValueError:
        name = next(name for name in SHORT if token.keyword in names_of(name))
        return parse_amount(token.value, UNITS[name], token.keyword)


def _photo_flags() -> Any:
    """Settings that say how photos are read, for the commands that do nothing but read them."""
    group = Group.create_default_parameters()
    flags = {setting.name: _flag(setting, group, group) for setting in settings() if setting.name in READING}
    typed_dict: Any = TypedDict
    return typed_dict("PhotoFlags", flags, total=False)


def _typed_dict() -> Any:
    """A TypedDict without required keys, which cyclopts fills with the flags that were given and no others."""
    sections = list(dict.fromkeys(setting.name.rpartition(".")[0] for setting in settings()))
    groups = {
        section: Group(f"Settings: {section}", sort_key=FIRST_SECTION + place, help_formatter=OnlyInFull())
        for place, section in enumerate(sections)
    }
    in_order = sorted(settings(), key=lambda setting: [*SHORT, setting.name].index(setting.name))
    flags = {setting.name: _flag(setting, groups[setting.name.rpartition(".")[0]]) for setting in in_order}
    for former in RENAMED:  # parsed, so that `from_mapping` can refuse it with its new name
        flags[former] = Annotated[str, Parameter(name=names_of(former), show=False)]
    typed_dict: Any = TypedDict  # made at run time, which type checkers do not follow
    return typed_dict("SettingFlags", flags, total=False)


def _shown(default: Any) -> str:
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


if TYPE_CHECKING:
    SettingFlags = dict[str, Any]
    """The settings that the command line names, by dotted name. Those that it does not name are not in it, so that a
    flag with the default's value is told from no flag."""
    PhotoFlags = dict[str, Any]
    """The same of `READING`."""
else:
    SettingFlags = Annotated[_typed_dict(), Parameter(name="*")]
    PhotoFlags = Annotated[_photo_flags(), Parameter(name="*")]


def combined(flags: Mapping[str, Any] | None, recipe: Path | None, weakest: Mapping[str, Any] | None = None) -> Config:
    """The config of a command.

    Args:
        flags: the settings that were given as flags; they win over the recipe, even with the default's value.
        recipe: a TOML file.
        weakest: settings that anything else overrides, such as those of --quick.
    """
    config = from_mapping(weakest or {})
    if recipe is not None:
        config = read_toml(recipe, base=config)
    return from_mapping(flags or {}, base=config, source="command line")
