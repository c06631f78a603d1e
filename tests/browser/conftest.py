"""A real headless Chromium: Debian's, driven by Playwright. Nothing is skipped where it is missing: the test fails."""

import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support import draw_photo

from potstill.run.folder import Run

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


GIVE_PHOTO = """([bytes, kind]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "disc.png", { type: "image/png" }));
    const options = { bubbles: true, cancelable: true };
    document.getElementById("drop").dispatchEvent(kind === "drop"
        ? new DragEvent("drop", { ...options, dataTransfer: transfer })
        : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
}"""
"""Drops or pastes the bytes of a photo, as `page.evaluate(GIVE_PHOTO, [bytes, "drop"])`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    if shutil.which(CHROMIUM) is None:
        pytest.fail(f"{CHROMIUM} is missing. Install it: apt-get update && apt-get install -y chromium", pytrace=False)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and everything that it asked for or complained about."""

    page: Any
    errors: list[str] = field(default_factory=list)
    """Error and warning lines of the console, and uncaught exceptions."""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Watched]]:
    """`open_page(url, width=1100, dark=False)`: a fresh page in a profile of its own, watched from the start."""
    contexts = []

    def opened(url: str, *, width: int = 1100, height: int = 900, dark: bool = False, **options: Any) -> Watched:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **options
        )
        contexts.append(context)
        watched = Watched(context.new_page())
        page = watched.page
        page.set_default_timeout(30_000)
        page.on("console", lambda m: watched.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("request", lambda request: watched.requests.append(request.url))
        page.goto(url)
        return watched

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def tiny(tiny_run: Any) -> Run:
    """The tiny run as a run folder. Read only."""
    return Run(tiny_run.path)


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG photo that is not square, and in no split."""
    path = tmp_path_factory.mktemp("photo") / "disc.png"
    draw_photo("disc", 999, width=301, height=223).save(path)
    return path


@pytest.fixture(scope="session")
def not_a_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file with a photo's name."""
    path = tmp_path_factory.mktemp("text") / "holiday.jpg"
    path.write_text("Dear diary, this is not a photo.\n")
    return path


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def static_host(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback as any static host would."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
