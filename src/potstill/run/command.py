"""The command that works on a run, for those who read about it later."""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

_TYPED = ContextVar("_TYPED", default="")


@contextlib.contextmanager
def typed(words: Sequence[str]) -> Iterator[str]:
    """The block is a command of these words, without `potstill`. Yields it as one would type it."""
    token = _TYPED.set(shlex.join(["potstill", *words]))
    try:
        yield _TYPED.get()
    finally:
        _TYPED.reset(token)


def typed_command() -> str:
    """What was typed; "" in a notebook or a program of the user's."""
    return _TYPED.get()
