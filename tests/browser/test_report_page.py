"""The report as a reader opens it: from disk, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.browser.conftest import Watched

from potstill.run.folder import Run


@pytest.fixture(scope="module")
def address(tiny: Run) -> str:
    return (tiny.report / "index.html").resolve().as_uri()


def test_it_opens_from_disk_without_an_error_or_a_request(open_page: Callable[..., Watched], address: str) -> None:
    watched = open_page(address)
    assert watched.errors == []
    assert [url for url in watched.requests if not url.startswith("data:")] == [address]


def test_charts_are_drawn_and_photos_load(open_page: Callable[..., Watched], address: str) -> None:
    page = open_page(address).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    charts = page.evaluate("[...document.querySelectorAll('svg')].map((s) => s.getBoundingClientRect().toJSON())")
    assert len(charts) >= 12
    assert all(box["width"] > 100 and box["height"] > 30 for box in charts)
    drawn = page.evaluate("document.querySelectorAll('svg circle, svg path, svg rect, svg polyline').length")
    assert drawn > 50
    sizes = page.evaluate("[...document.images].map((i) => [i.complete, i.naturalWidth])")
    assert len(sizes) >= 12
    assert all(complete and width > 10 for complete, width in sizes)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_without_scrolling_sideways(
    open_page: Callable[..., Watched], address: str, dark: bool
) -> None:
    page = open_page(address, width=390, height=844, dark=dark).page
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)") == dark


def test_text_can_be_read_in_light_and_dark(open_page: Callable[..., Watched], address: str) -> None:
    """Contrast of the page's own color pairs, by the formula of WCAG 2; 4.5 is its level AA for text."""
    contrast = """() => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
            const hex = style.getPropertyValue(name).trim().slice(1);
            const [r, g, b] = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
                .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const pairs = {};
        for (const ink of ["--ink", "--soft", "--link", "--good", "--bad"])
            for (const paper of ["--paper", "--card", "--wash"]) {
                const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
                pairs[ink + " on " + paper] = (a + 0.05) / (b + 0.05);
            }
        return pairs;
    }"""
    for dark in (False, True):
        pairs = open_page(address, dark=dark).page.evaluate(contrast)
        assert {name: round(value, 2) for name, value in pairs.items() if value < 4.5} == {}


def test_every_link_of_the_contents_leads_somewhere_and_the_keyboard_reaches_tables(
    open_page: Callable[..., Watched], address: str
) -> None:
    page = open_page(address).page
    targets = page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map((a) => a.getAttribute('href'))")
    assert len(targets) >= 8
    assert all(page.query_selector(target) is not None for target in targets)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every((s) => s.tabIndex === 0 && s.ariaLabel)")
    assert page.evaluate("[...document.querySelectorAll('svg')].every((s) => s.ariaLabel.length > 20)")
    assert page.evaluate("[...document.images].every((i) => i.alt.length > 5)")


def test_it_prints(open_page: Callable[..., Watched], address: str, tmp_path: Path) -> None:
    page = open_page(address, dark=True).page
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().count(b"/Type /Page\n") >= 2
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.is_hidden("nav")
