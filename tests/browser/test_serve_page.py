"""The page to try photos on, as visitors use it: `potstill serve` in a process of its own."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.browser.conftest import GIVE_PHOTO, Watched
from tests.support import command, environment

from potstill.deploy.predictor import load_predictor
from potstill.deploy.visitors import MAX_BYTES
from potstill.run.folder import Run


@pytest.fixture(scope="module")
def address(tiny: Run) -> Iterator[str]:
    """A running page, on a free port of loopback."""
    process = subprocess.Popen(
        command(["serve", tiny.path, "--port", "0"]), env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        try:
            found = re.match(r"http://127\.0\.0\.1:\d+/", output.readline())
            assert found, "the page did not start, or not on loopback"
            yield found[0]
        finally:
            process.terminate()


def test_a_photo_gets_three_answers_and_a_text_file_a_refusal(
    address: str, tiny: Run, open_page: Callable[..., Watched], photo: Path, not_a_photo: Path
) -> None:
    watched = open_page(address)
    page = watched.page
    page.set_input_files("#file", photo)
    page.wait_for_selector("#answers .answer")
    for arm in ("distilled", "alone", "teacher"):
        wanted = load_predictor(tiny.path, arm=arm).predict(photo)
        column = page.query_selector(f"[data-arm={arm}]")
        assert column.get_attribute("data-label") == wanted.label
        assert float(column.get_attribute("data-probability")) == pytest.approx(wanted.probability, abs=1e-3)
        assert "ms" in column.inner_text()
        assert "MB" in column.inner_text()
    shown = "document.getElementById('picture')"
    assert page.evaluate(f"{shown}.decode().then(() => {shown}.naturalWidth)") == 301
    page.click("#clear")
    page.wait_for_selector("#answers .answer", state="detached")
    page.set_input_files("#file", not_a_photo)
    page.wait_for_selector("#status.refused")
    assert "cannot be used as a photo" in page.inner_text("#status")
    assert watched.errors == []
    assert {url.split("/")[2] for url in watched.requests if url.startswith(("http", "ws"))} == {address.split("/")[2]}


def test_a_photo_can_be_dropped_and_pasted(address: str, open_page: Callable[..., Watched], photo: Path) -> None:
    page = open_page(address).page
    answers = []
    for kind in ("drop", "paste"):
        page.evaluate(GIVE_PHOTO, [list(photo.read_bytes()), kind])
        page.wait_for_selector("#answers .answer")
        answers.append(page.get_attribute("[data-arm=distilled]", "data-probability"))
        page.click("#clear")
        page.wait_for_selector("#answers .answer", state="detached")
    assert answers[0] == answers[1]


def test_the_camera_takes_a_photo(address: str, open_page: Callable[..., Watched]) -> None:
    watched = open_page(address, permissions=["camera"])
    watched.page.click("#camera")
    watched.page.click("#shoot")  # it is there once the camera is on
    watched.page.wait_for_selector("#answers .answer")
    assert watched.page.is_hidden("#video")
    assert watched.errors == []


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(address: str, open_page: Callable[..., Watched], photo: Path, dark: bool) -> None:
    page = open_page(address, width=390, height=844, dark=dark).page
    page.set_input_files("#file", photo)
    page.wait_for_selector("#answers .answer")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)") == dark


def test_a_file_above_the_limit_is_refused_in_words(
    address: str, open_page: Callable[..., Watched], tmp_path: Path
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff\xd8\xff" + bytes(MAX_BYTES))
    page = open_page(address).page
    page.set_input_files("#file", large)
    page.wait_for_selector("#status.refused")
    assert "20 MB" in page.inner_text("#status") or "too large" in page.inner_text("#status")
