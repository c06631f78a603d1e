"""Class maps: which of a run's classes each class of another classifier belongs to, read from a small file."""

import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.data.table_file import read_table
from potstill.errors import DataError, did_you_mean
from potstill.metrics.outputs import LEFT_OUT
from potstill.wording import counted

SUFFIXES = (".csv", ".toml", ".json")

MAX_BYTES = 16 * 2**20

_NAMED = 5
"""Classes that a message names."""


def read_class_map(path: Path, theirs: Sequence[str], count: int, classes: Sequence[str]) -> tuple[int, ...]:
    """The class of the run that each class of the other classifier belongs to.

    Args:
        path: `their class → my class`: a CSV file with a header and two columns, or a TOML or JSON file of names. Their
            classes may be numbers from 0.
        theirs: names of their classes; empty where they are not known.
        count: K, of their classes.
        classes: of the run.
    Returns:
        (K,) places in `classes`; `LEFT_OUT` for a class that the file does not name.
    Raises:
        DataError: the file is missing or damaged, names classes that there are not, gives one of them twice, or leaves
            a class of the run without any.
    """
    places = [LEFT_OUT] * count
    numbers = {name: number for number, name in enumerate(theirs)}
    for where, their, mine in _pairs(path):
        if theirs.count(their) > 1:
            raise DataError(f"{where}: the teacher has several classes {their!r}. Use their numbers, from 0.")
        number = numbers.get(their, int(their) if their.isdecimal() and len(their) < 10 else count)
        if not number < count:
            known = f"its classes are the numbers 0 to {count - 1}" if not theirs else f"it has {_some(theirs)}"
            raise DataError(f"{where}: the teacher has no class {their!r}; {known}.{did_you_mean(their, theirs)}")
        if mine not in classes:
            raise DataError(
                f"{where}: the run has no class {mine!r}.{did_you_mean(mine, classes)} It has {_some(classes)}."
            )
        if places[number] not in (LEFT_OUT, classes.index(mine)):
            raise DataError(
                f"{where}: {their!r} has a class already: {classes[places[number]]!r}. It can have one only."
            )
        places[number] = classes.index(mine)
    if missing := [name for label, name in enumerate(classes) if label not in places]:
        raise DataError(
            f"{path} assigns none of the teacher's classes to {_some(missing)}: the teacher would say nothing about "
            "photos of it. Add a line, or leave the class out of the run (--classes)."
        )
    return tuple(places)


def _some(names: Sequence[str]) -> str:
    more = f" and {counted(len(names) - _NAMED, 'more', 'more')}" if len(names) > _NAMED else ""
    return ", ".join(repr(name) for name in names[:_NAMED]) + more


def _pairs(path: Path) -> list[tuple[str, str, str]]:
    """Where each line stands, their class, and the run's."""
    if not path.is_file():
        raise DataError(f"There is no class map {path}.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"{path} has {size:,} bytes; a class map may have {MAX_BYTES:,}.")
    kind = path.suffix.lower()
    if kind == ".csv":
        table = read_table(path)
        if len(table.columns) != 2:
            raise DataError(f"{path} has {counted(len(table.columns), 'column')}; a class map has two: theirs,mine.")
        return [(f"{path}, row {row.number}", *_cells(row.values, table.columns)) for row in table.rows]
    if kind not in SUFFIXES:
        raise DataError(f"{path} is not a class map that can be read ({', '.join(SUFFIXES)}).")
    try:
        text = path.read_text("utf-8-sig")
        values = tomllib.loads(text) if kind == ".toml" else json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not {kind[1:].upper()}: {error}") from None
    if not isinstance(values, dict) or not values:
        raise DataError(f"{path} must assign classes: {{their class: my class, …}}.")
    for their, mine in values.items():
        if not isinstance(mine, str):
            raise DataError(f"{path}: {their!r} must be assigned the name of a class, got {mine!r}.")
    return [(f"{path}, {their!r}", their, mine) for their, mine in values.items()]


def _cells(values: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, str]:
    their, mine = (str(values.get(column, "")).strip() for column in columns)
    return their, mine


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{name!r} is in it twice")
    return values
