"""Both pages to try photos on, of a model that gives a photo several labels."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.browser.conftest import Watched, static_host
from tests.support import CLASSES

import potstill
from potstill.deploy.predictor import LabelsPrediction, load_predictor
from potstill.deploy.serve import serve
from potstill.export.stage import export
from potstill.export.web import export_web
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run
from potstill.run.integrity import require_whole


@pytest.fixture(scope="module")
def exported(labels_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the run with an exported page, whose ONNX file is scored again."""
    run = Run(Path(shutil.copytree(labels_run.path, tmp_path_factory.mktemp("label-pages") / "run")))
    export_web(run, reporter=Reporter(quiet=True))
    return run


@pytest.fixture
def web(exported: Run, open_page: Callable[..., Watched]) -> Iterator[Watched]:
    """The page that runs the student in the browser, with its model loaded."""
    with static_host(next(exported.export.glob("*/web"))) as url:
        watched = open_page(url, width=390, height=844)
        watched.page.wait_for_selector("body[data-ready=yes]")
        yield watched


def test_a_page_of_an_earlier_version_is_replaced(exported: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(exported.path, tmp_path / "run")))
    page = next(run.export.glob("*/web")) / "app.js"
    page.write_text("// of an earlier version")
    export(run, ["onnx"], ["float32"], reporter=Reporter(quiet=True))
    export_web(run, reporter=Reporter(quiet=True))
    assert "earlier version" not in page.read_text("utf-8")
    require_whole(run.path)


def decisions(text: str) -> list[str]:
    """Of the classes in the order in which they are shown."""
    return [line.split()[0] for line in text.splitlines() if "(threshold" in line]


def test_the_served_page_shows_every_class_with_its_threshold(
    exported: Run, pairs: Path, open_page: Callable[..., Watched], not_a_photo: Path
) -> None:
    with serve(exported.path, port=0) as served:
        watched = open_page(served.url, width=390, height=844)
        page = watched.page
        page.set_input_files("#file", pairs / "5.png")
        page.wait_for_selector("#answers .answer")
        for arm in ("distilled", "alone", "teacher"):
            wanted = load_predictor(exported.path, arm=arm).predict(pairs / "5.png")
            assert isinstance(wanted, LabelsPrediction)
            column = page.query_selector(f"[data-arm={arm}]")
            assert column.get_attribute("data-label") == "|".join(wanted.labels)
            text = column.inner_text()
            assert decisions(text) == ["yes"] * len(wanted.labels) + ["no"] * (3 - len(wanted.labels))
            assert all(name in text for name in CLASSES)
        assert len(page.query_selector_all("#answers meter[aria-label*=threshold]")) == 9
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_input_files("#file", not_a_photo)
        page.wait_for_selector("#status.refused")
        assert watched.errors == []


def test_the_browser_gives_the_labels_that_predict_gives(web: Watched, exported: Run, pairs: Path) -> None:
    for name in ("5.png", "1.png", "43.png"):
        web.page.evaluate("delete document.getElementById('answer').dataset.probabilities")
        web.page.set_input_files("#file", pairs / name)
        web.page.wait_for_selector("#answer[data-probabilities]")
        found = json.loads(web.page.get_attribute("#answer", "data-probabilities"))
        wanted = load_predictor(exported.path).predict(pairs / name)
        assert isinstance(wanted, LabelsPrediction)
        assert found == pytest.approx(list(wanted.probabilities.values()), abs=1e-3)
        assert web.page.get_attribute("#answer", "data-label") == "|".join(wanted.labels)
        assert web.page.inner_text("#status") == (", ".join(wanted.labels) or "None of the classes")
        assert decisions(web.page.inner_text("#bars")).count("yes") == len(wanted.labels)
    assert len(web.page.query_selector_all("[role=meter][aria-label*=threshold]")) == 3
    assert "mAP" in web.page.inner_text("#about")
    assert web.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert web.errors == []
