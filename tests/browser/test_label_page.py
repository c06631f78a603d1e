"""The page of `potstill suggest --label`, as one uses it: with keys."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.browser.conftest import Watched

from potstill.run.folder import Run
from potstill.suggest.pool import RunPhotos
from potstill.suggest.serve import open_session, serve_labeling
from potstill.suggest.suggestions import make_suggestions


@pytest.fixture
def data(pool_copy: Run) -> Path:
    return RunPhotos.of(pool_copy).folder.root


@pytest.fixture
def address(pool_copy: Run) -> Iterator[str]:
    run_photos = RunPhotos.of(pool_copy)
    session = open_session(pool_copy, run_photos, make_suggestions(pool_copy, run_photos, 4))
    page, url = serve_labeling(pool_copy, session)
    with page:
        yield url


def png(folder: Path) -> int:
    return len(list(folder.glob("*.png")))


def test_photos_are_labeled_with_keys_and_buttons(
    address: str, data: Path, open_page: Callable[..., Watched], tmp_path: Path
) -> None:
    before = {name: png(data / "train" / name) for name in ("disc", "frame", "stripes")}
    pool = png(data / "unlabeled")
    watched = open_page(address)
    page = watched.page

    def wait_for(text: str) -> None:
        page.wait_for_function("text => document.getElementById('progress').textContent === text", arg=text)

    wait_for("0 of 4 labeled, 4 left")
    shown = "document.getElementById('picture')"
    assert page.evaluate(f"{shown}.decode().then(() => {shown}.naturalWidth)") > 50
    page.keyboard.press("2")
    wait_for("1 of 4 labeled, 3 left")
    page.keyboard.press("Control+1")  # the browser's own shortcut
    page.keyboard.press("q")  # no key of a class
    page.keyboard.press("s")
    wait_for("1 of 4 labeled, 1 skipped, 2 left")
    page.click("#classes button:nth-child(1)")
    wait_for("2 of 4 labeled, 1 skipped, 1 left")
    assert png(data / "train/frame") == before["frame"] + 1
    assert png(data / "train/disc") == before["disc"] + 1
    assert png(data / "unlabeled") == pool - 2
    page.screenshot(path=tmp_path / "label.png")
    page.keyboard.press("3")
    wait_for("3 of 4 labeled, 1 skipped, 0 left")
    assert page.is_hidden("#picture")
    for text in ("2 of 4 labeled, 1 skipped, 1 left", "1 of 4 labeled, 1 skipped, 2 left", "1 of 4 labeled, 3 left"):
        page.keyboard.press("Backspace")
        wait_for(text)
    page.keyboard.press("u")
    wait_for("0 of 4 labeled, 4 left")
    assert {name: png(data / "train" / name) for name in before} == before
    assert png(data / "unlabeled") == pool
    assert page.is_disabled("#undo")
    assert watched.errors == []
    assert {url.split("/")[2] for url in watched.requests if url.startswith(("http", "ws"))} == {address.split("/")[2]}


def test_a_photo_that_is_gone_is_refused_in_words(address: str, data: Path, open_page: Callable[..., Watched]) -> None:
    page = open_page(address).page
    page.wait_for_selector("#classes button")
    (data / page.inner_text("#file")).unlink()
    page.keyboard.press("1")
    page.wait_for_selector("#refused:not([hidden])")
    assert "no longer there" in page.inner_text("#refused")


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(address: str, open_page: Callable[..., Watched], dark: bool) -> None:
    page = open_page(address, width=390, height=844, dark=dark).page
    page.wait_for_selector("#classes button")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)") == dark


def test_a_page_of_another_site_cannot_move_a_photo(
    address: str, data: Path, open_page: Callable[..., Watched]
) -> None:
    """Even one that knows the address."""
    pool = png(data / "unlabeled")
    page = open_page("data:text/html,<p>elsewhere").page
    sent = """async (url) => {
        const body = JSON.stringify({ photo: 0, label: "disc" });
        const found = [];
        for (const [mode, kind] of [["cors", "application/json"], ["cors", "text/plain"], ["no-cors", "text/plain"]]) {
            const options = { method: "POST", mode, headers: { "Content-Type": kind }, body };
            found.push(await fetch(url + "label", options).then((response) => response.type, () => "blocked"));
        }
        return found;
    }"""
    assert set(page.evaluate(sent, address)) <= {"blocked", "opaque"}
    assert png(data / "unlabeled") == pool
