"""Recipes and stored results with other values, other kinds of values, other names, and broken text."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomli_w
from tests.torture.cases import REFUSED, RIGHT, WRONG, Case, Outcome
from tests.torture.job import TinyJob

from potstill.config.load import read_toml, to_mapping, to_toml
from potstill.config.schema import Config
from potstill.errors import PotstillError
from potstill.run.results import read_comparison

ODD: tuple[Any, ...] = (
    *(0, -1, 1, 2**63 - 1, 0.5, -0.0, 1e308, float("inf"), float("nan"), True, False, "", "auto", "none", "../x", "\0"),
    *("x" * 10_000, "é", [], [1], ["a", "a"], [[]], {}, {"a": 1}),
)
"""Values that are put in the place of others."""


def settings_cases(seed: int, home: Path) -> Iterator[Case]:
    """Half are recipes, half a finished run's comparison.json."""
    number = 0
    while True:
        dice = random.Random(f"{seed} settings {number}")
        number += 1
        if dice.random() < 0.5:
            way = dice.choice(("another value", "another name", "other bytes"))
            yield Case(f"recipe, {way}", way, _recipe(way, dice))
        else:
            yield Case("comparison.json, another value", "", _comparison(TinyJob(home), dice))


def _recipe(way: str, dice: random.Random) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        path = folder / "recipe.toml"
        if way == "other bytes":
            data = bytearray(to_toml(Config()).encode())
            for _ in range(dice.randint(1, 5)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            path.write_bytes(data)
        else:
            values = to_mapping(Config())
            owner, name = dice.choice(list(_places(values)))
            if way == "another name":
                owner[dice.choice(["", "x", name + "s", name.upper(), name[:-1], "\u200b" + name])] = owner.pop(name)
            else:
                owner[name] = dice.choice(ODD)
            path.write_text(tomli_w.dumps(values), "utf-8")
        return _read(lambda: to_toml(read_toml(path)))

    return run


def _comparison(job: TinyJob, dice: random.Random) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        values = json.loads((job.undisturbed / "5_comparison/comparison.json").read_text("utf-8"))
        del values["checksum"]  # as somebody writes it who changes the file on purpose
        owner, name = dice.choice(list(_places(values)))
        if dice.random() < 0.2:
            del owner[name]
        else:
            owner[name] = dice.choice([None, *ODD])
        path = folder / "comparison.json"
        path.write_text(json.dumps(values), "utf-8")
        return _read(lambda: read_comparison(path))

    return run


def _read(read: Callable[[], object]) -> Outcome:
    try:
        read()
        return Outcome(RIGHT)
    except PotstillError as error:
        return Outcome(REFUSED, str(error)) if str(error) else Outcome(WRONG, "an error without a word")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in nested values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        if isinstance(value, dict):
            yield value, key
        yield from _places(item)
