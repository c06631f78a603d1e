"""The documentation site: every page is in it, every link leads somewhere, and nothing comes from another host."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.docs.pages import PAGES, ROOT
from tests.docs.tools import load_tool

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/docs_site.py"""
    return load_tool("docs_site")


@pytest.fixture(scope="module")
def site(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    return tool.build(tmp_path_factory.mktemp("docs") / "build")


def listed(tool: ModuleType) -> list[str]:
    """The pages of the navigation."""
    home, *sections = tool.navigation()
    return [
        *home.values(),
        *(page for section in sections for pages in section.values() for p in pages for page in p.values()),
    ]


def test_every_page_is_in_the_navigation_once(tool: ModuleType) -> None:
    pages = [tool.page_of(path).as_posix() for path in [*PAGES, ROOT / "CHANGELOG.md", *NOTEBOOKS]]
    assert sorted(listed(tool)) == sorted(pages)


def test_every_page_is_built_and_can_be_found(tool: ModuleType, site: Path) -> None:
    found = (site / "search.json").read_text("utf-8")
    for page in listed(tool):
        html = Path(page).with_suffix(".html").as_posix()
        assert (site / html).is_file()
        assert f'"{html}' in found


def test_the_site_can_be_read_in_the_dark_and_code_can_be_copied(site: Path) -> None:
    home = (site / "quickstart.html").read_text("utf-8")
    assert 'data-md-color-scheme="slate"' in home
    assert "content.code.copy" in home


def test_headings_have_the_anchors_of_github_and_lists_are_lists(site: Path) -> None:
    assert 'id="kd020--more-photos-would-help-most"' in (site / "findings.html").read_text("utf-8")
    for path in site.rglob("*.html"):
        text = re.sub(r"<pre.*?</pre>", "", path.read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(r"^(- |\| ?-|\|--)", text, re.MULTILINE), path


def test_notebooks_show_their_code_and_output(site: Path) -> None:
    for notebook in NOTEBOOKS:
        html = (site / "examples" / f"{notebook.stem}.html").read_text("utf-8")
        assert "potstill" in html
        assert '<div class="output">' in html
        assert (site / "examples" / notebook.name).is_file(), "to download"


def page(tool: ModuleType, text: str, name: str = "docs/how-to/some.md") -> Any:
    return tool.page_text(text, ROOT / name)


def test_links_are_moved_where_the_pages_lie(tool: ModuleType) -> None:
    text = "[a](../../README.md) [b](../findings.md#x) [c](#here) [d](https://example.org)"
    moved, linked = page(tool, text)
    assert moved == "[a](../overview.md) [b](../findings.md#x) [c](#here) [d](https://example.org)"
    assert linked == [ROOT / "README.md", ROOT / "docs" / "findings.md"]
    assert page(tool, "[n](../examples/quickstart.ipynb)", "docs/README.md")[0] == "[n](examples/quickstart.md)"
    assert page(tool, "[r](recipes/animals.toml)", "README.md")[0] == "[r](recipes/animals.toml)"


def test_blocks_stay_as_they_are_and_lists_get_the_line_that_they_need(tool: ModuleType) -> None:
    block = "```python\nx = a[1](../gone.md)\n- b\n```\n"
    assert page(tool, block)[0] == block
    assert page(tool, "Two things:\n- one\n- two\n")[0] == "Two things:\n\n- one\n- two\n"
    assert page(tool, "- one,\n  more\n- two\n")[0] == "- one,\n  more\n- two\n"


def test_a_link_to_no_file_of_the_project_is_refused(tool: ModuleType) -> None:
    for target in ("gone.md", "../../../elsewhere.md"):
        with pytest.raises(tool.SiteError, match=f"some.md links to {re.escape(target)}, which is no file"):
            page(tool, f"[a]({target})")


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="gone.html">', "index.html links to gone.html, which does not exist"),
        ('<a href="other.html#no">', "index.html links to other.html#no, where there is no such heading"),
        ('<a href="https://nowhere">', "index.html links to https://nowhere, which is not an address"),
        ('<script src="https://example.org/x.js">', "index.html loads https://example.org/x.js from another host"),
        ('<link rel="stylesheet" href="//example.org/x">', "index.html loads //example.org/x from another host"),
        ('<img src="gone.png">', "index.html links to gone.png, which does not exist"),
        ('<a href="other.html#yes"><a href="#"><a href="https://example.org/a?b#c"><a href="mailto:x">', ""),
    ],
)
def test_what_is_wrong_with_a_built_page_is_found(tool: ModuleType, tmp_path: Path, html: str, problem: str) -> None:
    (tmp_path / "index.html").write_text(html)
    (tmp_path / "other.html").write_text('<h2 id="yes">Yes</h2>')
    assert list(tool.problems(tmp_path)) == ([problem] if problem else [])


def test_the_build_fails_where_a_page_is_wrong(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "problems", lambda site: iter(["index.html links to x, which does not exist"]))
    with pytest.raises(tool.SiteError, match="links to x"):
        tool.build(tmp_path / "build")


def test_continuous_integration_builds_the_site() -> None:
    assert "\nmake docs\n" in (ROOT / ".ci" / "run").read_text("utf-8")
