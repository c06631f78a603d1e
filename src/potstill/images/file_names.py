"""Classes by file names, for folders full of cat.1.jpg and dog_017.jpg."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

OPTION = "--images.classes-from"
"""The flag that decides how the classes are found."""


def class_of(path: Path) -> str:
    """The name up to the first digit, without what separates it: `great_dane_12.jpg` → great_dane; or the first word,
    where there is no digit: `cat-sleeping.jpg` → cat. Empty where the name begins with a digit."""
    stem = path.name.partition(".")[0] if not path.name.startswith(".") else ""
    before, digit = re.match(r"(\D*)(\d?)", stem).groups()  # type: ignore[union-attr]
    if digit or not before:
        return before.strip(" _-()[]#~+")
    return re.split(r"[\s_\-()\[\]#~+]+", before.strip(" _-()[]#~+"))[0]


def by_name(paths: Iterable[Path]) -> dict[str, tuple[Path, ...]]:
    """The photos of each class by the names of the files. Spellings that differ in case only are one class, under the
    most frequent of them; files without a word have no class and are left out."""
    found: dict[str, list[Path]] = {}
    spellings: dict[str, Counter[str]] = {}
    for path in paths:
        if name := class_of(path):
            found.setdefault(name.casefold(), []).append(path)
            spellings.setdefault(name.casefold(), Counter())[name] += 1
    best = {key: min(names, key=lambda name: (-names[name], name)) for key, names in spellings.items()}
    return {best[key]: tuple(photos) for key, photos in found.items()}


def offer(photos: Sequence[Path]) -> str:
    """A line that offers the classes that the names of the files show; empty where they show none."""
    words = {name: len(paths) for name, paths in by_name(photos).items()}
    known = sum(words.values())
    if len(words) < 2 or known < 2 * len(words) or known < 0.9 * len(photos):
        return ""
    shown = ", ".join(f"{name} ({count:,})" for name, count in sorted(words.items())[:6])
    more = ", …" if len(words) > 6 else ""
    return (
        f"\n  The names of the files begin with {len(words)} different words: {shown}{more}. If these are the "
        f"classes: add {OPTION} names."
    )
