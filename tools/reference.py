"""Writes docs/reference/settings.md, commands.md and python.md from the settings, commands and names themselves.

python tools/reference.py            # rewrite the pages
python tools/reference.py --check    # exit 1 where they differ
"""

import dataclasses
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cyclopts.argument import Argument
from docstring_parser import parse
from python_reference import python_page

from potstill.cli import COMMANDS, app, deploy, photos, runs, use  # noqa: F401  each registers its commands
from potstill.cli.settings import SHORT, flag_of
from potstill.config.load import Setting, settings
from potstill.config.schema import Config

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
MADE = "<!-- Generated from the source by `python tools/reference.py`; do not edit. -->"


def settings_page() -> str:
    """Every setting with its type, default and text, one table per section."""
    lines = [
        "# Settings",
        "",
        MADE,
        "",
        "Each setting is a flag of `potstill distill` (`--student.lr 1e-3`), a line of a recipe, and a key for Python:",
        "",
        "```toml",
        "# recipe.toml",
        "seeds = 3",
        "",
        "[student]",
        'models = ["mobilenetv3_small_100"]',
        "lr = 1e-3",
        "```",
        "",
        "```python",
        'potstill.distill("data", settings={"student.lr": 1e-3})',
        "```",
        "",
        "Flags win over the recipe (`--recipe recipe.toml`), the recipe over the defaults. A run's own settings are in "
        "its `config.toml`, which is a recipe, too.",
    ]
    sections = {field.name: field.default_factory for field in dataclasses.fields(Config)}
    for section, members in _by_section().items():
        kind: Any = sections.get(section)
        title, text = (section, _one_line(inspect.getdoc(kind))) if section else ("The run", "")
        lines += ["", f"## {title}", *(["", text] if text else [])]
        lines += ["", "| setting | type | default | description |", "|---|---|---|---|"]
        lines += [
            f"| `{s.name}` | {_cell(s.type)} | `{json.dumps(s.default, ensure_ascii=False)}` | {_cell(s.text)} |"
            for s in members
        ]
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Every command with its arguments."""
    names = [name for members in COMMANDS.values() for name in members]
    lines = ["# Commands", "", MADE, "", "| command | description |", "|---|---|"]
    lines += [f"| [`potstill {n}`](#potstill-{n}) | {_cell(_docs(n).short_description or '')} |" for n in names]
    lines += [
        "",
        "`potstill COMMAND --help` prints the same. Exit codes: 0, success; 1, completed with problems, which are "
        "printed; 2, an error, with its cause and what to do; 130, interrupted with Ctrl-C (finished work is kept).",
    ]
    for name in names:
        lines += list(_command(name))
    return "\n".join(lines) + "\n"


def _command(name: str) -> Iterator[str]:
    docs = _docs(name)
    texts = {parameter.arg_name: _one_line(parameter.description) for parameter in docs.params}
    every = [a for a in app[name].assemble_argument_collection() if a.show]
    takes_settings = "settings" in inspect.signature(app[name].default_command).parameters
    dotted = {setting.name for setting in settings()} if takes_settings else set()
    own = [a for a in every if a.name.removeprefix("--").replace("-", "_") not in dotted]
    positional = [a for a in own if a.index is not None]
    needed = [a for a in own if a.index is None and a.required]
    words = [*(_shown(a) for a in positional), *(f"{a.name} {_value(a)}" for a in needed)]
    yield from ("", f"## potstill {name}", "", "```text")
    yield " ".join(["potstill", name, *words, *(["[OPTIONS]"] if len(own) > len(words) else [])])
    yield from ("```", "", _one_line(docs.short_description))
    if docs.long_description:
        yield from ("", _one_line(docs.long_description))
    if own:
        yield from ("", "| argument | default | description |", "|---|---|---|")
    for a in own:
        variable = f" Or the environment variable {a.parameter.env_var[0]}." if a.parameter.env_var else ""
        yield f"| `{_shown(a)}` | {_default(a)} | {_cell(_text(a, texts) + variable)} |"
    if len(own) < len(every):
        short = ", ".join(f"`{' '.join(flags)}` ({name})" for name, flags in SHORT.items())
        yield from (
            "",
            f"And every [setting](settings.md) as a flag, such as `{every[-1].name}`. Short names: {short}.",
        )


def _docs(name: str) -> Any:
    return parse(inspect.getdoc(app[name].default_command) or "")


def _text(argument: Argument, texts: dict[str, str]) -> str:
    """From the docstring of the command, or from the parameter itself."""
    return texts.get(argument.field_info.name) or _one_line(argument.parameter.help)


def _shown(argument: Argument) -> str:
    if argument.index is not None:
        several = argument.field_info.kind is argument.field_info.VAR_POSITIONAL or "list" in str(argument.hint)
        return argument.field_info.name.upper() + ("…" if several else "")
    name = next((flag_of(setting) for setting in SHORT if argument.name == f"--{setting}"), argument.name)
    return name if argument.hint is bool else f"{name} {_value(argument)}"


def _value(argument: Argument) -> str:
    """What stands for a flag's value."""
    kinds = (argument.hint, *get_args(argument.hint))
    if choices := [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]:
        return " or ".join(choices)
    text = str(argument.hint)
    word = "PATH" if "Path" in text else "N" if "int" in text or "float" in text else "TEXT"
    return word + ("…" if "list[" in text or "tuple[" in text else "")


def _default(argument: Argument) -> str:
    value = argument.field_info.default
    if argument.parameter.show_default and isinstance(argument.parameter.show_default, str):
        value = argument.parameter.show_default  # of a setting
    if value is inspect.Parameter.empty or value is None or value is False or value in ("", ()):
        return "required" if argument.required else ""
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


def _by_section() -> dict[str, list[Setting]]:
    sections: dict[str, list[Setting]] = {}
    for setting in settings():
        sections.setdefault(setting.name.rpartition(".")[0], []).append(setting)
    return sections


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|").replace("*", "\\*")


PAGES = {"settings.md": settings_page, "commands.md": commands_page, "python.md": lambda: python_page(MADE)}


def main() -> int:
    """Write the pages, or compare them. Returns the exit code."""
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    if stale:
        print(("Not up to date: " if "--check" in sys.argv else "Written: ") + ", ".join(stale))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
