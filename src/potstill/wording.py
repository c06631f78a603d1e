"""Words beside numbers, and paths as they are shown."""

from pathlib import Path


def noun(number: float, one: str, many: str = "") -> str:
    """`photo` for one, else `photos`.

    Args:
        one: the word for one. Units, such as MiB, stay as they are.
        many: the word for other numbers, where it is not made with s or es.
    """
    if number == 1 or not one:
        return one
    if many or one[-1].isupper():
        return many or one
    return f"{one}es" if one.endswith(("s", "x", "sh")) else f"{one}s"


def counted(number: int, one: str, many: str = "") -> str:
    """`1 photo`, `1,970 photos`."""
    return f"{number:,} {noun(number, one, many)}"


def from_here(path: Path | str) -> Path:
    """Relative to the working directory if it is below it."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
