"""Settings by name: from recipes, flags and mappings to a Config and back, and the documentation of each."""

import ast
import dataclasses
import inspect
import itertools
import tomllib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import tomli_w

from potstill.config.schema import Config, Range, range_of
from potstill.errors import ConfigError, did_you_mean

RENAMED: Mapping[str, str] = {
    "teacher.levels": "teacher.feature_stages",
    "teacher.probe_penalty": "teacher.head_l2",
    "student.crop": "student.crop_pct",
}
"""Former names of settings. They are refused, and the message gives the name of today."""


def from_mapping(values: Mapping[str, Any], *, base: Config | None = None, source: str = "settings") -> Config:
    """A Config from nested plain values, such as a TOML file's or `{"student.lr": 1e-3}`.

    Args:
        values: sections as nested mappings, or dotted names.
        base: what is not named keeps this config's value; the defaults when None.
        source: what to call the values in messages.
    Raises:
        ConfigError: unknown name (with the nearest valid one), former name (with the one of today), wrong type, value
            out of range.
    """
    config: Any = base or Config()
    changes: dict[str, dict[str, Any]] = {"": {}}
    for name, value in _flatten(values):
        setting = _named(name, source)
        section, _, leaf = name.rpartition(".")
        changes.setdefault(section, {})[leaf] = _coerced(setting.hint, value, f"{source}: {name}")
    own = changes.pop("")
    try:
        sections = {name: dataclasses.replace(getattr(config, name), **items) for name, items in changes.items()}
        return dataclasses.replace(config, **sections, **own)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def read_toml(path: Path, *, base: Config | None = None) -> Config:
    """A Config from a recipe file. Raises ConfigError when it is missing, not TOML, or has unknown settings."""
    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no recipe {path}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    values.pop("data", None)  # a finished run's config.toml names its photos; a recipe need not
    return from_mapping(values, base=base, source=str(path))


def to_mapping(config: Any) -> dict[str, Any]:
    """Nested plain values, ready for TOML or JSON."""
    plain: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        plain[item.name] = (
            to_mapping(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        )
    return plain


def to_toml(config: Config) -> str:
    """The config as a TOML text that `read_toml` reads back unchanged."""
    return tomli_w.dumps(to_mapping(config))


@dataclass(frozen=True, slots=True)
class Setting:
    """One documented setting, for help, the reference and tests."""

    name: str
    hint: Any
    """Its type, as `potstill.config.schema` annotates it."""
    range: Range | None
    default: Any
    text: str

    @property
    def type(self) -> str:
        """Its type and range in words."""
        return _hint_text(self.hint) + (f", {self.range}" if self.range else "")


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting with its documentation, in the order of `potstill.config.schema`."""
    found: list[Setting] = []
    for item in dataclasses.fields(Config):
        section: Any = item.default_factory
        if section is dataclasses.MISSING:
            found.append(_setting("", Config, item))
        else:
            found += [_setting(f"{item.name}.", section, inner) for inner in dataclasses.fields(section)]
    return tuple(found)


def _setting(prefix: str, owner: type, item: dataclasses.Field[Any]) -> Setting:
    return Setting(
        name=prefix + item.name,
        hint=_hints(owner)[item.name],
        range=range_of(item.type),
        default=item.default,
        text=field_docs(owner)[item.name],
    )


@cache
def field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass, by field name."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(cls) or cls))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)
    docs = {}
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _named(name: str, source: str) -> Setting:
    if name in RENAMED:
        raise ConfigError(f"{source}: the setting {name!r} is now called {RENAMED[name]!r}.")
    known = {setting.name: setting for setting in settings()}
    if within := [other for other in known if other.startswith(f"{name}.")]:
        raise ConfigError(
            f"{source}: {name!r} is a section, not a setting. Set one of its settings, such as {within[0]}."
        )
    if name not in known:
        raise ConfigError(f"{source}: there is no setting {name!r}.{did_you_mean(name, known, cutoff=0.5)}")
    return known[name]


def _coerced(hint: Any, value: Any, name: str) -> Any:
    """`value` as `hint` wants it: lists become tuples, whole numbers floats; everything else must fit already."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _coerced(option, value, name)
            except ConfigError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin is tuple:
        items = [value] if isinstance(value, str | int | float) else value
        if isinstance(items, list | tuple):
            return tuple(_coerced(arguments[0], item, name) for item in items)
    elif (hint is float and isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    ):
        return hint(value)
    raise ConfigError(f"{name} must be {_hint_text(hint)}, got {value!r}.")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _hint_text(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_hint_text(option) for option in arguments)
    if origin is Literal:
        return " or ".join(f'"{option}"' for option in arguments)
    if origin is tuple:
        return f"list of {_hint_text(arguments[0])}"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(hint, str(hint))
