"""No word on the command line is dropped: each is seen in what the command is given, or refused with exit code 2."""

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from cyclopts import CycloptsError
from cyclopts.argument import Argument

from potstill.cli import COMMANDS, app, run
from potstill.cli import deploy as _deploy  # noqa: F401  registers its commands
from potstill.cli import photos as _photos  # noqa: F401
from potstill.cli import runs as _runs  # noqa: F401
from potstill.cli import use as _use  # noqa: F401
from potstill.cli.refusals import refusal, unknown_option
from potstill.cli.settings import SHORT, combined, flag_of
from potstill.config.load import from_mapping, settings
from potstill.errors import ConfigError

NEEDED = {
    "get": ["cat", "--into", "photos"],
    "init": ["cat", "--into", "photos"],
    "check": ["photos"],
    "count": ["photos"],
    "distill": ["photos"],
    "label": ["photos"],
    "update": ["run", "photos"],
    "curve": ["photos", "--per-class", "10"],
    "forecast": ["run"],
    "suggest": ["run"],
    "controls": ["run"],
    "open": ["run"],
    "predict": ["run", "a.jpg"],
    "evaluate": ["run", "photos"],
    "compare": ["run"],
    "serve": ["run"],
    "report": ["run"],
    "export": ["run", "--to", "onnx"],
    "push": ["run", "owner/name"],
}
"""The least that a command must be given; nothing where it is not in here."""

NAMES = [name for members in COMMANDS.values() for name in members]
WITH_SETTINGS = ("distill", "curve")
SECTIONS = sorted({setting.name.rpartition(".")[0] for setting in settings()} - {""})


def given(command: str, *words: str) -> dict[str, Any]:
    """What a command is called with. Raises CycloptsError or ConfigError where the words are refused."""
    words = (command, *NEEDED.get(command, []), *words)
    _, bound, unknown = app.parse_args(list(words), exit_on_error=False, print_error=False)
    assert not unknown
    return dict(bound.arguments)


def outcome(command: str, *words: str) -> dict[str, Any] | str:
    """What the command is called with, or the message of the refusal."""
    try:
        return given(command, *words)
    except CycloptsError as error:
        return refusal(error, [command, *NEEDED.get(command, []), *words])
    except ConfigError as error:
        return str(error)


def options(command: str) -> list[Argument]:
    """Every option of a command, former names of settings apart."""
    return [a for a in app[command].assemble_argument_collection() if a.names and a.show and a.index is None]


def some_options(command: str) -> list[Argument]:
    """Its own options and some of the settings: parsing all of their names in every way would take minutes."""
    every = options(command)
    own = [o for o in every if "." not in o.names[-1]]
    short = [o for o in every if o not in own and "." not in o.names[0]]
    return own if command == "curve" else own + short[::4] + [o for o in every if o not in own + short][::40]


def option_names(command: str) -> list[str]:
    return [name for option in options(command) for name in option.names if name.startswith("--")]


def value_for(option: Argument, number: int = 0) -> str:
    """A value that is allowed, and another one for another number."""
    kinds = [option.hint, *get_args(option.hint)]
    for kind in kinds:
        if get_origin(kind) is Literal and not {str, int, float} & set(kinds):
            return str(get_args(kind)[-1])
    return f"7{number:03}" if int in kinds else f"0.6{number:03}7" if float in kinds else f"zq{number}"


def leaves(value: Any) -> Iterator[str]:
    """Every single value in nested ones, as text."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner)
    else:
        yield str(value)


def is_switch(option: Argument) -> bool:
    return option.hint is bool or option.hint == (bool | None)


def negatives(option: Argument) -> set[str]:
    return {name for name in option.names if "empty-" in name}


@pytest.mark.parametrize("command", NAMES)
@pytest.mark.parametrize("form", ["two words", "one word"])
def test_every_name_of_every_option_takes_effect(command: str, form: str) -> None:
    every = [o for o in options(command) if not set(o.names) & set(NEEDED.get(command, []))]
    names = [[n for n in o.names if n.startswith("--") and "empty-" not in n] for o in every]
    for place in range(max(map(len, names), default=0)):  # first all first names, then all second ones
        words, expected = [], []
        for number, (option, own) in enumerate(zip(every, names, strict=True)):
            name, value = own[min(place, len(own) - 1)], value_for(option, number)
            pair = [name] if is_switch(option) else [name, value] if form == "two words" else [f"{name}={value}"]
            words += pair
            expected.append("True" if is_switch(option) else value)
        found = list(leaves(given(command, *words)))
        rest = list(leaves(given(command)))
        assert sorted(found) == sorted(expected + [leaf for leaf in rest if leaf in found and leaf not in expected])


@pytest.mark.parametrize("command", NAMES)
def test_switches_take_no_value_and_have_no_opposite(command: str) -> None:
    for option in filter(is_switch, options(command)):
        for name in option.names:
            assert isinstance(outcome(command, f"{name}=zq"), str)
            result = outcome(command, name, "zq")
            assert isinstance(result, str) or "zq" in list(leaves(result)), f"{name} zq: {result}"
            said = outcome(command, "--no-" + name.removeprefix("--"))
            assert isinstance(said, str), said
            assert f"Did you mean {name}?" in said


@pytest.mark.parametrize("command", NAMES)
def test_an_option_without_its_value_is_refused(command: str) -> None:
    for option in some_options(command):
        for name in set(option.names) - negatives(option):
            if not is_switch(option):
                assert isinstance(outcome(command, name), str), name
                assert isinstance(outcome(command, name, "--no-such-option"), str), name


@pytest.mark.parametrize("command", NAMES)
def test_an_option_given_twice_counts_twice_or_is_refused(command: str) -> None:
    for option in some_options(command):
        first = option.names[0]
        for name in set(option.names) - negatives(option):
            if is_switch(option):
                assert isinstance(outcome(command, first, name), str)
                continue
            value = value_for(option)
            second = value_for(option, 1)
            result = outcome(command, first, value, name, second)
            if isinstance(result, dict):
                assert {value, second} <= set(leaves(result)), (first, name, result)


@pytest.mark.parametrize("command", NAMES)
def test_a_word_too_many_is_refused_or_seen(command: str) -> None:
    result = outcome(command, "zq")
    assert isinstance(result, str) or "zq" in list(leaves(result))
    for option in some_options(command):
        if not is_switch(option):
            result = outcome(command, option.names[0], value_for(option), "zq")
            assert isinstance(result, str) or "zq" in list(leaves(result)), (option.names, result)


@pytest.mark.parametrize("command", NAMES)
def test_misspelled_options_are_refused(command: str) -> None:
    known = set(option_names(command))
    for name in (option.names[0] for option in some_options(command)):
        bare = name.removeprefix("--")
        for wrong in {name[:-1], f"-{bare}", f"--{bare.upper()}"} - known:
            said = outcome(command, wrong, "zq")
            assert isinstance(said, str), wrong
            assert said.startswith(f"Unknown option: {wrong}"), said


@pytest.mark.parametrize("command", NAMES)
def test_a_name_with_a_letter_too_many_or_too_few_finds_the_one_without(command: str) -> None:
    known = option_names(command)
    for name in (name for name in known if len(name) > 6 and "_" not in name and "empty-" not in name):
        for wrong in {f"{name}x", name[:-1]} - set(known) - {"--seed"}:
            if wrong.removeprefix("--") not in SECTIONS:
                assert name in unknown_option(wrong, known), unknown_option(wrong, known)


@pytest.mark.parametrize("command", WITH_SETTINGS)
@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("form", [["--{}", "zq"], ["--{}=3"], ["--{}", '{{"lr":0.1}}'], ["--{}"]])
def test_a_section_is_no_option(command: str, section: str, form: list[str]) -> None:
    words = [word.format(section) for word in form]
    result = outcome(command, *words)
    if section in ("student", "teacher"):  # short for the models
        if len(words) == 2 or "=" in words[0]:
            value = words[-1].rpartition("=")[2]
            assert isinstance(result, dict)
            key = {"student": "student.models", "teacher": "teacher.model"}[section]
            assert result["settings"] == {key: (value,)}
        return
    assert isinstance(result, str), result
    assert "group of settings: " in result
    members = [setting.name for setting in settings() if setting.name.startswith(f"{section}.")]
    assert all(flag_of(name) in result for name in members)


def test_short_names_are_settings_and_mean_what_they_say() -> None:
    known = {setting.name for setting in settings()}
    assert SHORT.keys() <= known
    for name, shorts in SHORT.items():
        for short in shorts:
            value = (
                "3" if name.startswith("budget") else value_for(next(o for o in options("distill") if short in o.names))
            )
            assert given("distill", short, value)["settings"].keys() == {name}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--student a", "student.models", ("a",)),
        ("--students a,b", "student.models", ("a", "b")),
        ("--student a --students b,c", "student.models", ("a", "b", "c")),
        ("--student.models a,b", "student.models", ("a", "b")),
        ("--teachers a,b", "teacher.model", ("a", "b")),
        ("--class cat --class dog", "images.classes", ("cat", "dog")),
        ("--classes cat,dog", "images.classes", ("cat", "dog")),
        ("--images.classes cat,dog", "images.classes", ("cat", "dog")),
        ("""--classes '"salt, pepper",oil'""", "images.classes", ("salt, pepper", "oil")),
        ("--twin.label-smoothing 0,0.1", "twin.label_smoothing", (0.0, 0.1)),
        ("--max-size 3MB", "budget.max_megabytes", 3.0),
        ("--max-size 500kB", "budget.max_megabytes", 0.5),
        ("--max-latency 5", "budget.max_milliseconds", 5.0),
        ("--budget.max-mmacs 2G", "budget.max_mmacs", 2000.0),
        ("--weights none", "student.weights", "none"),
        ("--size 96", "student.size", 96),
        ("--lr auto", "student.lr", "auto"),
    ],
)
def test_values_of_settings(words: str, name: str, value: object) -> None:
    flags = given("distill", *shlex.split(words))["settings"]
    assert combined(flags, None) == from_mapping({name: value})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--epoch 3", "Did you mean --epochs?"),
        ("--seed 3", "Did you mean --seeds? It sets the number of seeds"),
        ("--batch-size 8", "Did you mean --student.batch-size?"),
        ("--weight-decay 8", "Did you mean --student.weight-decay or --teacher.weight-decay?"),
        ("--student a b", "Separate several values by commas: --student A,B."),
        ("--student=", "empty name"),
        ("--students a,,b", "empty name"),
        ("--seeds 1.5", "1.5 is not a whole number"),
        ("--student.epochs 2.5", "2.5 is not a whole number"),
        ("--seeds 1,2", "--seeds must be a whole number, not '1,2'."),
        ("--epochs many", "--epochs must be a whole number or 'auto', not 'many'."),
        ("--lr fast", "--lr must be a number or 'auto', not 'fast'."),
        ("--teacher.train all", "--teacher.train must be 'auto' or 'probe' or 'finetune', not 'all'."),
        ("--twin.length-shares 1,half", "--twin.length-shares: 'half' is not a number."),
        ("--max-size 3XB", "--max-size '3XB' is not an amount such as 3MB"),
        ("--lr 1 --student.lr 0.1", "given twice"),
        ("--quick 3", "--quick takes no value"),
        ("--classes cat --images.classes=", "empty name"),
        ("again", "one argument too many"),
    ],
)
def test_refusals_say_what_is_wrong(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["distill", "photos", *words.split()]) == 2
    said = capsys.readouterr()
    assert says in " ".join(said.err.split())
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["get"], "--into is missing. An example: potstill get cat dog --into photos"),
        (["init", "cat", "dog"], "--into is missing. An example: potstill init cat dog --into photos"),
        (["init", "cat", "dog", "--into"], "--into has no value. An example: potstill init"),
        (["count"], "DATA is missing. An example: potstill count photos."),
        (["predict", "runs/a"], "PHOTOS is missing. An example: potstill predict runs/RUN photo.jpg"),
        (["export", "runs/a"], "--to is missing. An example: potstill export runs/RUN --to onnx"),
    ],
)
def test_what_is_missing_is_said_with_an_example(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_unknown_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["distil"], "Did you mean 'distill'?"),
        (["zzz"], "The commands are: demo, get, init"),
        ([str(tmp_path)], f"potstill distill {tmp_path}"),
    ):
        assert run(words) == 2
        assert says in " ".join(capsys.readouterr().err.split())


def test_every_parameter_of_a_command_is_an_option_or_an_argument() -> None:
    for name in NAMES:
        parameters = set(inspect.signature(app[name].default_command).parameters) - {"settings", "images"}
        assert parameters == {
            re.sub(r"\W.*", "", a.field_info.name) for a in app[name].assemble_argument_collection() if not a.keys
        } - {"settings", "images"}
