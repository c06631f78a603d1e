"""The command line: parse, call the library, print. No logic lives here, and nobody imports it."""

import errno
import shlex
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console

from potstill.errors import PotstillError

app = App(
    name="potstill",
    help="Distill a large image classifier into small ones, and measure what distillation gains.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # `run` says what is kept
)

_FIXABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""A full, read-only or failing disk, or missing rights: no bugs of ours."""


def run(tokens: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 done but something is wrong, 2 refused, 130 interrupted."""
    from potstill.cli import deploy, photos, runs  # noqa: F401  each registers its commands

    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    words = list(sys.argv[1:] if tokens is None else tokens)
    same = shlex.join(["potstill", *words])
    try:
        result = app(
            words,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        errors.print(f"{error} See: {_help_of(words)}", markup=False)
        return 2
    except PotstillError as error:
        errors.print(f"{type(error).__name__}: {error}", markup=False)
        return 2
    except OSError as error:
        if error.errno not in _FIXABLE:
            raise
        where = f" ({error.filename})" if error.filename else ""
        errors.print(f"{error.strerror}{where}. What was finished is kept. Fix this, then run: {same}", markup=False)
        return 2
    except KeyboardInterrupt:
        errors.print(f"\nStopped. What was finished is kept. To resume: {same}", markup=False)
        return 130
    return result if isinstance(result, int) else 0


def _help_of(words: Sequence[str]) -> str:
    command = next((word for word in words if not word.startswith("-") and word in app), "")
    return " ".join(["potstill", *([command] if command else []), "--help"])
