"""Words beside numbers."""


def noun(number: float, one: str, many: str = "") -> str:
    """`photo` for one, else `photos`.

    Args:
        one: the word for one.
        many: the word for other numbers, where it is not made with s or es.
    """
    if number == 1:
        return one
    return many or (f"{one}es" if one.endswith(("s", "x", "ch", "sh")) else f"{one}s" if one else "")


def counted(number: int, one: str, many: str = "") -> str:
    """`1 photo`, `1,970 photos`."""
    return f"{number:,} {noun(number, one, many)}"
