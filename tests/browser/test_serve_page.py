"""The page to try photos on, as visitors use it: `potstill serve` in a process of its own."""

import concurrent.futures
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.browser.conftest import Watched
from tests.support import command, draw_photo, environment

from potstill.deploy.predictor import load_predictor
from potstill.deploy.serve import MAX_MEGABYTES
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
    page.wait_for_selector("#photo input[type=file]", state="attached")
    page.set_input_files("#photo input[type=file]", photo)
    page.wait_for_selector("#answers .answer")
    for arm in ("distilled", "alone", "teacher"):
        wanted = load_predictor(tiny.path, arm=arm).predict(photo)
        column = page.query_selector(f"[data-arm={arm}]")
        assert column.get_attribute("data-label") == wanted.label
        assert float(column.get_attribute("data-probability")) == pytest.approx(wanted.probability, abs=1e-3)
        assert "ms" in column.inner_text()
        assert "MB" in column.inner_text()
    page.click("#photo button[aria-label*=lear], #photo button[aria-label*=emove]")
    page.wait_for_selector("#answers .answer", state="detached")
    page.set_input_files("#photo input[type=file]", not_a_photo)
    page.wait_for_selector("#answers .refused")
    assert "cannot be used as a photo" in page.inner_text("#answers .refused")
    hosts = {url.split("/")[2] for url in watched.requests if url.startswith(("http", "ws"))}
    assert hosts == {address.split("/")[2]}, "the page asks other hosts"


def test_it_fits_a_phone(address: str, open_page: Callable[..., Watched]) -> None:
    page = open_page(address, width=390, height=844).page
    page.wait_for_selector("#photo input[type=file]", state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def upload(address: str, name: str, content: bytes) -> httpx.Response:
    return httpx.post(f"{address}gradio_api/upload", files={"files": (name, content)}, timeout=60)


def ask(address: str, path: Path) -> str:
    """What the page answers to a photo, asked as a program asks it."""
    stored = upload(address, path.name, path.read_bytes()).raise_for_status().json()[0]
    data = {"data": [{"path": stored, "meta": {"_type": "gradio.FileData"}}]}
    event = httpx.post(f"{address}gradio_api/call/classify", json=data, timeout=60).raise_for_status().json()
    answer = httpx.get(f"{address}gradio_api/call/classify/{event['event_id']}", timeout=60).raise_for_status().text
    return str(json.loads(answer.split("event: complete\ndata: ")[1].split("\n")[0])[0])


def test_eight_people_at_once_get_their_own_answers(address: str, tiny: Run, tmp_path: Path) -> None:
    photos = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(photos):
        draw_photo(("disc", "frame", "stripes")[number % 3], 500 + number).save(path)
    with concurrent.futures.ThreadPoolExecutor(len(photos)) as pool:
        answers = list(pool.map(lambda path: ask(address, path), photos))
    predictor = load_predictor(tiny.path)
    for path, answer in zip(photos, answers, strict=True):
        wanted = predictor.predict(path)
        found = re.search(r'data-arm="distilled" data-label="(\w+)" data-probability="([\d.]+)"', answer)
        assert found is not None, answer
        assert (found[1], float(found[2])) == (wanted.label, pytest.approx(wanted.probability, abs=1e-5))


def test_a_file_above_the_limit_is_not_taken(address: str) -> None:
    assert upload(address, "small.jpg", b"x" * 1_000).is_success
    refused = upload(address, "large.jpg", b"x" * (MAX_MEGABYTES * 2**20 + 1_000_000))
    assert not refused.is_success
