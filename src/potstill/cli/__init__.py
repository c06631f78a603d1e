"""The command line: parse, call the library, print. No logic lives here, and nobody imports it."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console

from potstill.cli.help import EVERYTHING, HelpFormatter, examples
from potstill.errors import PotstillError
from potstill.run.command import typed

COMMANDS: dict[str, tuple[str, ...]] = {
    "Try it": ("demo",),
    "Photos": ("get", "init", "check", "count"),
    "Distill": ("distill", "label", "update", "models", "curve", "forecast", "suggest", "controls"),
    "Results": ("status", "open", "predict", "evaluate", "compare", "serve", "report"),
    "Deploy": ("export", "push"),
    "This machine": ("doctor",),
}
"""Every command, in the order of the work: in `potstill --help` and in the reference."""

EXAMPLES: dict[str, str] = {}
"""The first example of each command that has one, for messages."""

_GROUPS = {title: Group(title, sort_key=place) for place, title in enumerate(COMMANDS)}

app = App(
    name="potstill",
    help="Distill a large image classifier into small ones, and measure what distillation gains.\n\n"
    "Start with `potstill demo`, or with your own photos: `potstill distill PHOTOS`. "
    "`potstill COMMAND --help` explains a command.",
    version_flags=["--version"],
    help_formatter=HelpFormatter(),
    group_commands=Group("Options", sort_key=len(COMMANDS)),
    suppress_keyboard_interrupt=False,  # `run` says what is kept
)

_FIXABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""A full, read-only or failing disk, or missing rights: no bugs of ours."""


def command(*lines: str, name: str = "", note: str = "") -> Callable[[Any], Any]:
    """Register a function as a command.

    Args:
        lines: examples, shown at the end of its help.
        name: the function's name when empty.
        note: the last line of its help.
    """

    def register(function: Any) -> Any:
        own = name or function.__name__
        title, members = next(item for item in COMMANDS.items() if own in item[1])
        EXAMPLES.update({own: lines[0]} if lines else {})
        return app.command(
            function,
            name=own,
            group=_GROUPS[title],
            sort_key=members.index(own),
            default_parameter=Parameter(negative_bool=()),  # a --no-… of every switch would only repeat the default
            help_epilogue=examples(lines, note),
        )

    return register


def run(tokens: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 done but something is wrong, 2 refused, 130 interrupted."""
    from potstill.cli import deploy, photos, runs, use  # noqa: F401  each registers its commands

    words = list(sys.argv[1:] if tokens is None else tokens)
    with typed(words) as same:
        return _run(words, same)


def _run(words: list[str], same: str) -> int:
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    if "--help-all" in words:
        words = ["--help" if word == "--help-all" else word for word in words]
        EVERYTHING.set(True)
    try:
        result = app(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        from potstill.cli.refusals import refusal

        errors.print(f"{refusal(error, words)} See: {_help_of(words)}", markup=False)
        return 2
    except PotstillError as error:
        errors.print(f"{type(error).__name__}: {error}", markup=False)
        return 2
    except BrokenPipeError:  # `| head` has seen enough; what is left in the buffer must not be written at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _FIXABLE:
            raise
        where = f" ({error.filename})" if error.filename else ""
        errors.print(f"{error.strerror}{where}. What was finished is kept. Fix this, then run: {same}", markup=False)
        return 2
    except KeyboardInterrupt:
        errors.print(f"\nStopped. What was finished is kept. To resume: {same}", markup=False)
        return 130
    finally:
        EVERYTHING.set(False)
    return result if isinstance(result, int) else 0


def _help_of(words: Sequence[str]) -> str:
    command = next((word for word in words if not word.startswith("-") and word in app), "")
    return " ".join(["potstill", *([command] if command else []), "--help"])
