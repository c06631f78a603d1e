"""Makes the pictures of docs/pictures/ from a run: its report, its serve page and its page for the browser.

python tools/screenshots.py runs/demo            # needs potstill[dev], Debian's chromium, and npm
python tools/screenshots.py site                 # the documentation site after `make docs`, into build/pictures/

Only for runs whose photos may be shown; their attribution belongs beside the pictures.
"""

import base64
import contextlib
import functools
import html
import http.server
import io
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from potstill.cli.runs import print_result
from potstill.data.pixels import PixelStore
from potstill.export.web import export_web
from potstill.pipeline import Result
from potstill.report.stage import write_report
from potstill.run.folder import Run

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
LIMIT = 300_000
"""Bytes of a picture."""

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def main(run_folder: Path) -> None:
    """Make all pictures."""
    run = Run.open(run_folder)
    report = write_report(run).resolve().as_uri()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        photo = test_photo(run, Path(folder) / "photo.png")
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for name, width, height, dark in (
            ("report", 1100, 1350, False),
            ("report-dark", 1100, 1350, True),
            ("report-phone", 390, 844, False),
        ):
            page = opened(browser, report, width, height, dark=dark)
            keep(page, name)
        keep(side_by_side(browser, terminal(run), opened(browser, report, 1100, 1000).screenshot()), "demo")
        page = opened(browser, report, 1100, 900)
        title = "document.querySelector('.cards').previousElementSibling.previousElementSibling"
        page.evaluate(f"{title}.scrollIntoView({{ behavior: 'instant' }})")
        keep(page, "report-photos")
        with serving(run) as url:
            page = opened(browser, url, 1100, 700)
            page.wait_for_selector("#photo input[type=file]", state="attached")
            page.set_input_files("#photo input[type=file]", photo)
            page.wait_for_selector("#answers .answer")
            page.wait_for_timeout(1_000)  # the photo fades in
            keep(page, "serve")
        with static_host(export_web(run)) as url:
            for name, width, height in (("web", 1000, 700), ("web-phone", 390, 844)):
                page = opened(browser, url, width, height)
                page.wait_for_selector("body[data-ready=yes]")
                page.set_input_files("#file", photo)
                page.wait_for_selector("#answer[data-probabilities]")
                keep(page, name)
        browser.close()


def site_pictures() -> None:
    """Pages of the documentation site, in the light, in the dark and on a phone."""
    build = PICTURES.parent.parent / "build"
    pages = ("index.html", "how-to/few-labels.html", "reference/settings.html", "examples/quickstart.html")
    with static_host(build / "site") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for path in pages:
            for kind, width, height, dark in (
                ("light", 1280, 900, False),
                ("dark", 1280, 900, True),
                ("phone", 390, 844, False),
            ):
                page = opened(browser, url + path, width, height, dark=dark)
                page.wait_for_load_state("networkidle")
                keep(page, f"{Path(path).stem}-{kind}", build / "pictures")
                page.close()
        browser.close()


def opened(browser: Any, url: str, width: int, height: int, *, dark: bool = False) -> Any:
    """A fresh page at this address."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page.goto(url)
    return page


SIDE_BY_SIDE = """<body style="margin:0;display:flex;gap:20px;padding:20px;background:#d8dee4;align-items:flex-start">
<pre style="margin:0;width:1110px;padding:18px;border-radius:8px;background:#16191d;color:#e6e6e6;white-space:pre-wrap;
font:14.5px/1.5 'DejaVu Sans Mono',monospace">{text}</pre>
<img style="width:790px;border-radius:8px" src="data:image/png;base64,{picture}"></body>"""


def terminal(run: Run) -> str:
    """What `potstill demo` prints in the end."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print_result(Result(run))
    return f"$ potstill demo\n…\n{printed.getvalue()}"


def side_by_side(browser: Any, text: str, picture: bytes) -> Any:
    """A terminal beside a picture."""
    page = browser.new_page(viewport={"width": 2020, "height": 780})
    encoded = base64.b64encode(picture).decode()
    page.set_content(SIDE_BY_SIDE.format(text=html.escape(text), picture=encoded))
    return page


def test_photo(run: Run, path: Path) -> Path:
    """The first test photo as a PNG file."""
    store = PixelStore(run.images)
    store.photo(int(store.rows("test")[0])).save(path)
    return path


def keep(page: Any, name: str, folder: Path = PICTURES) -> None:
    """Write what the page shows, with as many colors as the limit allows."""
    data = page.screenshot()
    image = Image.open(io.BytesIO(data)).convert("RGB")
    for colors in (256, 128, 64):
        if len(data) <= LIMIT:
            break
        buffer = io.BytesIO()
        image.quantize(colors, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
    assert len(data) <= LIMIT, f"{name}.png has {len(data):,} bytes"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(data)
    print(f"{folder.parent.name}/{folder.name}/{name}.png  {len(data):,} bytes")


@contextlib.contextmanager
def serving(run: Run) -> Iterator[str]:
    """`potstill serve` in a process of its own."""
    command = [sys.executable, "-m", "potstill", "serve", str(run.path), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout as output:
        try:
            yield output.readline().split()[0]
        finally:
            process.terminate()


@contextlib.contextmanager
def static_host(folder: Path) -> Iterator[str]:
    """A folder on loopback."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/screenshots.py RUN, or: python tools/screenshots.py site")
    site_pictures() if sys.argv[1] == "site" else main(Path(sys.argv[1]))
