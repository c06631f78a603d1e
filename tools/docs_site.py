"""Builds the documentation site, build/site/, from the Markdown pages and notebooks. `make docs` runs it.

python tools/docs_site.py

The pages are written for GitHub. Here they are copied to build/pages/, with README.md pages as index.md, pages from
outside of docs/ beside them, notebooks as Markdown, and links that fit; Zensical then makes the site. The navigation is
the list of pages in docs/README.md. At the end every link of the site is followed. Nothing is fetched from a network;
links to other sites are only read.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import tomli_w

ROOT = Path(__file__).resolve().parent.parent
MAP = ROOT / "docs" / "README.md"

_BLOCK = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_LIST = re.compile(r"^((?![-|#\s]|\d+\. ).*\n)(?=- |\d+\. )", re.MULTILINE)
_ENTRY = re.compile(r"^- \[([^\]]+)\]\(([^()\s#]+)\)")

_ELSEWHERE = ("http://", "https://", "mailto:")


class SiteError(Exception):
    """A page or link that does not fit."""


def page_of(source: Path) -> Path:
    """Where a file of the project lies in the site's pages: docs/how-to/x.md → how-to/x.md, README.md → overview.md."""
    path = source.relative_to(ROOT)
    if path == Path("README.md"):
        return Path("overview.md")
    if path.parts[0] == "docs":
        path = path.relative_to("docs")
        return path.with_name("index.md") if path.name == "README.md" else path
    return path.with_suffix(".md") if path.suffix == ".ipynb" else path


def navigation() -> list[dict[str, Any]]:
    """The list of pages in docs/README.md: a section for each heading, a page for each first link of an item."""
    sections: dict[str, list[dict[str, str]]] = {}
    entries: list[dict[str, str]] = []
    for line in MAP.read_text("utf-8").splitlines():
        if line.startswith("## "):
            entries = sections.setdefault(line.removeprefix("## "), [])
        elif found := _ENTRY.match(line):
            entries.append({found[1]: page_of((MAP.parent / found[2]).resolve()).as_posix()})
    return [{"Home": "index.md"}, *({title: pages} for title, pages in sections.items() if pages)]


def copy_pages(pages: Path) -> None:
    """All of docs/ in its place below `pages`, with links that fit there, and whatever is linked to."""
    todo = [path for path in (ROOT / "docs").rglob("*") if path.is_file()]
    done: set[Path] = set()
    while todo:
        source = todo.pop()
        if source in done:
            continue
        done.add(source)
        target = pages / page_of(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix not in (".md", ".ipynb"):
            shutil.copyfile(source, target)
            continue
        is_notebook = source.suffix == ".ipynb"
        text, linked = page_text(notebook_page(source) if is_notebook else source.read_text("utf-8"), source)
        if is_notebook:
            shutil.copyfile(source, target.with_name(source.name))
            title, _, rest = text.partition("\n")
            text = (
                f"{title}\n\n*This page is [a notebook]({source.name}); its output is from `make notebooks`.*\n{rest}"
            )
        target.write_text(text, "utf-8")
        todo += linked


def page_text(text: str, source: Path) -> tuple[str, list[Path]]:
    """A page's text for the site, and the files that it links to."""
    linked: list[Path] = []

    def moved(found: re.Match[str]) -> str:
        if found[1].startswith(_ELSEWHERE) or found[1].startswith("#"):
            return found[1]
        path, mark, anchor = found[1].partition("#")
        target = (source.parent / path).resolve()
        if not target.is_relative_to(ROOT) or not target.is_file():
            raise SiteError(f"{source.relative_to(ROOT)} links to {path}, which is no file of the project.")
        linked.append(target)
        return os.path.relpath(page_of(target), page_of(source).parent) + mark + anchor

    return _outside_blocks(text, lambda part: _LINK.sub(moved, _LIST.sub(r"\1\n", _COMMENT.sub("\n", part)))), linked


def _outside_blocks(text: str, change: Callable[[str], str]) -> str:
    return "".join(part if part.startswith("```") else change(part) for part in _BLOCK.split(text))


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its texts, its code, and what the code showed."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        parts += [_output(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    for kind in ("text/html", "image/svg+xml"):
        if kind in data:
            html = re.sub(r"\n\s*", "\n", "".join(data[kind]).strip())
            return f'<div class="output">\n{html}\n</div>'
    text = "".join(output.get("text") or data.get("text/plain") or [])
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


class _Links(HTMLParser):
    """What a page of the site points at and loads, and what in it can be pointed at."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next") and "href" in values:
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])


def problems(site: Path) -> Iterator[str]:
    """Links that lead nowhere, malformed addresses of other sites, and anything loaded from another host."""
    pages: dict[Path, _Links] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = _Links()
        pages[path].feed(path.read_text("utf-8"))
    for path, page in pages.items():
        name = path.relative_to(site)
        if path.name == "404.html":  # its links start at the root of a host
            continue
        yield from (f"{name} loads {url} from another host" for url in page.loads if urlsplit(url).netloc)
        for url in {*page.links, *page.loads}:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https") or parts.netloc:
                if not re.fullmatch(r"[\w.-]+\.\w{2,}", parts.netloc):
                    yield f"{name} links to {url}, which is not an address"
            elif parts.scheme not in ("mailto", "data", "javascript"):
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                if not target.exists():
                    yield f"{name} links to {url}, which does not exist"
                elif target in pages and unquote(parts.fragment) not in pages[target].anchors | {"__search"}:
                    yield f"{name} links to {url}, where there is no such heading"


def build(folder: Path) -> Path:
    """Make the site below `folder`. Returns the site's folder. Raises SiteError."""
    for name in ("pages", "site"):
        shutil.rmtree(folder / name, ignore_errors=True)
    copy_pages(folder / "pages")
    shutil.copyfile(ROOT / "tools" / "docs_site.css", folder / "pages" / "site.css")
    config = tomllib.loads((ROOT / "tools" / "docs_site.toml").read_text("utf-8"))
    config["project"]["nav"] = navigation()
    (folder / "zensical.toml").write_text(tomli_w.dumps(config), "utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--config-file", str(folder / "zensical.toml")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SiteError(done.stdout + done.stderr)
    if found := list(problems(folder / "site")):
        raise SiteError("\n".join(found))
    return folder / "site"


if __name__ == "__main__":
    try:
        print(build(ROOT / "build") / "index.html")
    except SiteError as error:
        sys.exit(str(error))
