"""Values on the command line, where cyclopts would guess."""

from collections.abc import Sequence
from typing import Any, get_args

from cyclopts import Parameter, convert


def whole(hint: Any, tokens: Sequence[Any]) -> Any:
    """A whole number, or one of the words that `hint` allows. cyclopts itself would round 1.5 to 2."""
    if any("." in token.value for token in tokens):
        raise ValueError(f"{tokens[0].value} is not a whole number.")
    return convert(hint, tokens)


def is_whole(hint: Any) -> bool:
    """Whether a whole number is meant: int, or int and a word."""
    return hint is int or int in get_args(hint)


WHOLE = Parameter(converter=whole)
"""For the annotation of a command's parameter."""
