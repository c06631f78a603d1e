"""Names that are markup, in a run that came from somebody else, never run as script in a page that Potstill writes."""

import functools
import http.server
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import markdown
import pytest
from tests.browser.conftest import Watched
from tests.reports import edit
from tests.support import CLASSES, unseal

from potstill.deploy.serve import serve
from potstill.export.card import write_card
from potstill.export.results import ExportedStudent, ExportResults
from potstill.export.web import PAGE, describe
from potstill.metrics import Interval
from potstill.report.stage import write_report
from potstill.run.files import sha256_of, write_json
from potstill.run.folder import Run

MARKUP = dict(
    zip(
        CLASSES,
        (
            "<img src=x onerror=window.ran=1>",
            "'\"><svg onload=window.ran=1><script>window.ran=1</script>",
            "${window.ran=1}{{window.ran=1}}[x](javascript:window.ran=1)`|</style><script>window.ran=1</script>",
        ),
        strict=True,
    )
)


def marked(value: Any) -> Any:
    """With the class names and file names replaced."""
    if isinstance(value, dict):
        return {MARKUP.get(key, key): marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item) for item in value]
    return MARKUP.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def run(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose class names, file names, authors and reasons are markup."""
    run = Run(Path(shutil.copytree(tiny.path, tmp_path_factory.mktemp("markup") / "<img src=x onerror=window.ran=1>")))
    for path in (run.comparison / "comparison.json", *run.path.rglob("model.json")):

        def replace(values: dict[str, Any]) -> None:
            found = marked(dict(values))
            values.clear()
            values.update(found)

        edit(path, replace)
    table = run.images / "images.csv"
    lines = [line.split(",") for line in table.read_text("utf-8").splitlines()]
    quoted = ['"' + MARKUP[kind].replace('"', '""') + '"' for kind in CLASSES]
    where = lines[0].index("class")
    for line in lines[1:]:
        if line[where] in CLASSES:
            line[where] = quoted[CLASSES.index(line[where])]
        line[1] = quoted[0]
    table.write_text("\n".join(map(",".join, lines)) + "\n", "utf-8")
    (run.images / "rejected.csv").write_text(
        f"path,split,class,code,reason,sha256\n{quoted[0]},train,{quoted[1]},corrupt,{quoted[1]},0\n", "utf-8"
    )
    (run.images / "ATTRIBUTION.csv").write_text(
        f"path,author,title,link,license,license_url,source\n{quoted[0]},{quoted[1]},{quoted[0]},"
        f"javascript:window.ran=1,{quoted[0]},javascript:window.ran=1,{quoted[1]}\n",
        "utf-8",
    )
    (run.images / "ATTRIBUTION.txt").write_text(MARKUP["frame"], "utf-8")
    unseal(run.path)
    return run


def card_of(run: Run) -> str:
    """The model card as a hub shows it, or worse: with all its HTML."""
    comparison = next(iter(run.students.glob("*/seed-0/distilled")))
    student = comparison.parent.parent.name
    facts = ExportedStudent(
        model=student,
        seed=0,
        arm="distilled",
        weights_sha256=sha256_of(comparison / "model.safetensors"),
        size=32,
        crop=1.0,
        classes=tuple(MARKUP.values()),
        temperature=1.0,
        threshold=0.5,
        confidence=0.95,
        test_photos=24,
        accuracy=Interval(0.9, 0.8, 0.95),
        milliseconds=1.0,
        max_loss=0.0,
        min_agreement=1.0,
        min_rounded_agreement=1.0,
    )
    run.export.mkdir(exist_ok=True)
    (run.export / student).mkdir(exist_ok=True)
    ExportResults(run="x", fingerprint="0", environment={}, students={student: facts}).write(run)
    assert write_card(run, student)
    web = run.export / student / "web"
    shutil.copytree(PAGE, web)
    write_json(web / "model.json", describe(run, student, facts))
    text = (run.export / student / "README.md").read_text("utf-8").split("---\n", 2)[2]
    return markdown.markdown(text, extensions=["tables"])


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


def is_quiet(watched: Watched) -> bool:
    """Whether nothing ran, and nothing was tried that the policy had to stop."""
    blocked = [line for line in watched.errors if "Content Security Policy" in line or "x'" in line]
    return watched.page.evaluate("window.ran") is None and not blocked


def test_markup_in_names_never_runs(run: Run, open_page: Callable[..., Watched], photo: Path, tmp_path: Path) -> None:
    for shared in (None, "all"):
        watched = open_page(write_report(run, shared=shared).resolve().as_uri())  # type: ignore[arg-type]
        assert MARKUP["disc"] in watched.page.inner_text("body")
        assert is_quiet(watched), watched.errors

    (tmp_path / "card.html").write_text(f"<!doctype html><meta charset=utf-8>{card_of(run)}", "utf-8")
    watched = open_page((tmp_path / "card.html").as_uri())
    assert "onerror=window.ran" in watched.page.inner_text("body")
    assert is_quiet(watched), watched.errors
    assert watched.page.evaluate("document.querySelectorAll('svg, script, img, a[href^=javascript]').length") == 0

    with serve(run.path, port=0) as served:
        watched = open_page(served.url)
        watched.page.set_input_files("#file", photo)
        watched.page.wait_for_selector("#answers .answer")
        assert MARKUP["disc"] in watched.page.inner_text("body")
        assert is_quiet(watched), watched.errors

    folder = next(run.export.glob("*/web"))
    handler = functools.partial(_Quiet, directory=str(folder))
    (folder / "ort.js").write_text("export const env = { wasm: {} }; export const InferenceSession = {};")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        watched = open_page(f"http://127.0.0.1:{host.server_address[1]}/")
        watched.page.wait_for_selector("#about:not(:empty)", state="attached")
        assert MARKUP["disc"] in watched.page.inner_text("#lead")
        assert MARKUP["frame"] in watched.page.inner_text("#attribution")
        assert is_quiet(watched), watched.errors
        host.shutdown()


def test_the_policies_stop_what_would_get_through(run: Run, open_page: Callable[..., Watched]) -> None:
    """As if a page forgot to escape: the policy is the second wall."""
    inject = """async () => {
        try { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran=1'>"); } catch {}
        const script = document.createElement("script");
        try { script.textContent = "window.ran=1"; } catch {}
        document.body.append(script);
        try { await fetch("https://example.org/"); window.ran = 1; } catch {}
        await new Promise((resolve) => setTimeout(resolve, 100));
        return window.ran;
    }"""
    with serve(run.path, port=0) as served:
        for url in (served.url, write_report(run).resolve().as_uri()):
            assert open_page(url).page.evaluate(inject) is None
