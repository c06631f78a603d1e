"""The pages that users read, and what is in them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Piece:
    """A piece of a page: a line of a block, a whole block, inline code, or the target of a link."""

    page: Path
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.splitlines()[0][:60]}"


def blocks(language: str) -> list[Piece]:
    """The ```language blocks of all pages."""
    return [
        Piece(page, found[2])
        for page in PAGES
        for found in _BLOCK.finditer(page.read_text("utf-8"))
        if found[1] == language
    ]


def console_lines() -> list[Piece]:
    """What is typed after `$ ` in ```console blocks."""
    lines = [(b.page, line) for b in blocks("console") for line in b.text.replace("\\\n", " ").splitlines()]
    return [Piece(page, line[2:]) for page, line in lines if line.startswith("$ ")]


def inline_code() -> list[Piece]:
    """Everything between single backticks, outside of blocks."""
    return [Piece(page, found[1]) for page in PAGES for found in _INLINE.finditer(prose(page))]


def links() -> list[Piece]:
    """Targets of links and pictures."""
    return [Piece(page, found[1]) for page in PAGES for found in _LINK.finditer(prose(page))]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return _BLOCK.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What `#…` can point at: the headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
