"""The documentation site in a real browser: served by any host, without a request to another one."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.browser.conftest import Watched
from tests.docs.tools import load_tool


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The built site on loopback."""
    site: Path = load_tool("docs_site").build(tmp_path_factory.mktemp("docs") / "build")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


PAGES = ("index.html", "how-to/deploy.html", "reference/settings.html", "examples/quickstart.html", "overview.html")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_without_an_error_and_asks_no_other_host(
    open_page: Callable[..., Watched], address: str, page: str
) -> None:
    watched = open_page(address + page)
    watched.page.wait_for_load_state("networkidle")
    assert watched.errors == []
    assert [url for url in watched.requests if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", PAGES)
def test_it_fits_a_phone_and_follows_the_mode_of_the_system(
    open_page: Callable[..., Watched], address: str, page: str, dark: bool
) -> None:
    opened = open_page(address + page, width=390, height=844, dark=dark).page
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.evaluate("document.body.getAttribute('data-md-color-scheme')") == ("slate" if dark else "default")


def test_the_search_finds_a_section(open_page: Callable[..., Watched], address: str) -> None:
    page = open_page(address).page
    page.get_by_role("button", name="Search").first.click()
    page.get_by_role("textbox").or_(page.get_by_role("combobox")).first.fill("calibrated")
    page.get_by_text("KD007").first.wait_for()


def test_code_can_be_copied(open_page: Callable[..., Watched], address: str) -> None:
    page = open_page(address + "quickstart.html", permissions=["clipboard-read", "clipboard-write"]).page
    page.locator("button[data-md-type=copy], .md-clipboard, .md-code__button").first.click(force=True)
    page.wait_for_timeout(200)
    assert "make demo" in page.evaluate("navigator.clipboard.readText()")
