"""The source uses the words of docs/reference/glossary.md, and not those that its last table replaces.

`python -m tests.docs.test_glossary` lists every place.
"""

import ast
import re
from collections.abc import Iterator

import pytest
from tests.docs.pages import ROOT

from potstill.config.load import settings

SOURCE = ROOT / "src" / "potstill"
GLOSSARY = (ROOT / "docs" / "reference" / "glossary.md").read_text("utf-8")
PAGES = {".jinja", ".html", ".js"}
HELP = ("cli/", "config/schema.py")
"""Where docstrings are help texts."""

ALLOWED = {
    "get/names.py: form": "of a word, as in WordNet",
    "get/names.py: forms": "of a word, as in WordNet",
    "get/tars.py: tell": "the method of a file",
    "report/answers.py: answer": "to a question of the report's first screen",
    "report/answers.py: answers": "to the questions of the report's first screen",
    "images/split_names.py: unlabelled": "a name that people give to folders",
}
"""Where a word means another thing, as "module: word", and what it means there."""


def rows(heading: str) -> list[list[str]]:
    """The cells of the table after a heading."""
    table = GLOSSARY.partition(heading)[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def replaced(kind: str) -> dict[str, str]:
    """What is not used in names, settings or text, and what is used instead."""
    return {
        word: use
        for unused, use, places in rows("## Words that are not used")
        if kind in places.split(", ")
        for word in re.findall(r"`([^`]+)`", unused)
    }


def words_of(identifier: str) -> set[str]:
    """`_Voice`, `num_views`, `PixelStore` → their lowercase words, and the whole."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)
    return {part.lower() for part in parts} | {identifier}


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Names that the module itself gives: functions, classes, parameters, variables, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def texts(tree: ast.AST, *, docstrings: bool) -> Iterator[str]:
    """String constants. Those that are statements are docstrings."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and (docstrings or id(node) not in documentation)
        ):
            yield node.value


def unused_words(text: str, suffix: str = ".py", *, is_help: bool = False) -> list[str]:
    """`word: where it stands` for every word of the left column in a file of this kind."""
    found, readable = [], [text]
    if suffix == ".py":
        tree, names = ast.parse(text), replaced("names")
        found = [f"{word}: {name}" for name in identifiers(tree) for word in words_of(name) & names.keys()]
        readable = list(texts(tree, docstrings=is_help))
    for string in readable:
        flat = " ".join(string.split())
        for word in replaced("text"):
            if hit := re.search(rf"(?<![\w./-]){re.escape(word)}(?![\w/-]|\.\w)", flat, re.IGNORECASE):
                found.append(f"{word}: {flat[max(0, hit.start() - 40) : hit.end() + 40]!r}")
    return sorted(set(found))


def places_in(name: str) -> list[str]:
    """The words of the left column in a file of `FILES`, but for those that are `ALLOWED`."""
    text = FILES[name].read_text("utf-8")
    found = unused_words(text, FILES[name].suffix, is_help=name.startswith(HELP))
    return [place for place in found if f"{name}: {place.partition(':')[0]}" not in ALLOWED]


FILES = {
    path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*")) if path.suffix in {".py", *PAGES}
}


@pytest.mark.parametrize("name", FILES)
def test_the_source_uses_the_words_of_the_glossary(name: str) -> None:
    assert not places_in(name), "see the last table of docs/reference/glossary.md"


def test_settings_have_the_names_of_the_glossary() -> None:
    unused = replaced("settings")
    found = {setting.name for setting in settings() if setting.name.rpartition(".")[2] in unused}
    assert not found


def test_every_word_is_explained_once_and_in_order() -> None:
    words = [word.strip("`").lower().replace("_", " ") for word, _ in rows("# Glossary")]
    assert words == sorted(set(words))
    assert len(words) > 40


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def _ask_voice(looks): ...", ["looks: looks", "voice: _ask_voice"]),
        ("class _Voice: ...", ["voice: _Voice"]),
        ("self.said = 1", ["said: said"]),
        ('print(f"{x} right on {y}")', ["right on: 'right on'"]),
        ('raise Error("Mend it, then:\\n")', ["mend: 'Mend it, then:'"]),
        ("platform = overlooks = 'formats, amended'", []),
        ('def f():\n    """Right on, in a docstring that no user reads."""', []),
    ],
)
def test_a_word_that_is_not_used_is_found(code: str, expected: list[str]) -> None:
    assert unused_words(code) == expected


def test_help_texts_and_pages_are_read_too() -> None:
    assert unused_words('"""Right on."""', is_help=True) == ["right on: 'Right on.'"]
    assert unused_words("<p>Right on</p>", ".html") == ["right on: '<p>Right on</p>'"]


if __name__ == "__main__":
    for name in FILES:
        for place in places_in(name):
            print(f"{name}: {place}")
