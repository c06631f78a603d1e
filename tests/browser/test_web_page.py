"""The static page: the browser gives the probabilities that `potstill predict` gives."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.browser.conftest import GIVE_PHOTO, Watched, static_host
from tests.photo_files import exif_block, jpeg_with, profile_of
from tests.support import draw_photo

from potstill.deploy.predictor import load_predictor
from potstill.deploy.serve import classify, load_models
from potstill.export.load import load_exported
from potstill.export.web import export_web
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run


@pytest.fixture(scope="module")
def web_run(tiny: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the tiny run with an exported page."""
    import shutil

    run = Run(Path(shutil.copytree(tiny.path, tmp_path_factory.mktemp("web") / "run")))
    export_web(run, reporter=Reporter(quiet=True))
    return run


@pytest.fixture(scope="module")
def folder(web_run: Run) -> Path:
    return next(web_run.export.glob("*/web"))


@pytest.fixture
def web(folder: Path, open_page: Callable[..., Watched]) -> Iterator[Watched]:
    """The page, with its model loaded."""
    with static_host(folder) as url:
        watched = open_page(url)
        watched.page.wait_for_selector("body[data-ready=yes]")
        yield watched


def probabilities(page: Any) -> list[float]:
    """What the page answers to the photo that was just given."""
    page.wait_for_selector("#answer[data-probabilities]")
    return list(json.loads(page.get_attribute("#answer", "data-probabilities")))


def test_it_answers_as_predict_does_and_asks_no_other_host(web: Watched, web_run: Run, photo: Path) -> None:
    web.page.set_input_files("#file", photo)
    found = probabilities(web.page)
    wanted = load_predictor(web_run.path).predict(photo)
    assert found == pytest.approx(list(wanted.probabilities.values()), abs=1e-3)
    assert np.ptp(found) > 1e-3, "equal probabilities would prove nothing"
    assert web.page.get_attribute("#answer", "data-label") == wanted.label
    assert wanted.label in web.page.inner_text("#status")
    assert web.errors == []
    assert {url.split("/")[2] for url in web.requests if url.startswith("http")} == {web.page.url.split("/")[2]}


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"),
    [
        ("sideways.jpg", "exif", 1e-2),  # JPEG decoders may differ by a gray level
        ("alpha.png", "alpha", 2e-3),  # blending with white is rounded differently
        ("gray.png", "gray", 1e-3),
        ("large.png", "large", 1e-3),
    ],
)
def test_every_kind_of_photo_agrees(
    web: Watched, web_run: Run, tmp_path: Path, name: str, kind: str, tolerance: float
) -> None:
    image = draw_photo("stripes", 5, width=260, height=180)
    options: dict[str, Any] = {}
    if kind == "exif":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    elif kind == "alpha":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    elif kind == "gray":
        image = image.convert("L")
    elif kind == "large":
        image = image.resize((1501, 1200))
    image.save(tmp_path / name, **options)
    web.page.set_input_files("#file", tmp_path / name)
    wanted = load_predictor(web_run.path).predict(tmp_path / name)
    assert probabilities(web.page) == pytest.approx(list(wanted.probabilities.values()), abs=tolerance)


@pytest.mark.parametrize("kind", ["wide gamut", "turned by an odd tag", "12 bits"])
def test_predict_serve_the_exported_file_and_the_browser_see_the_same(
    web: Watched, web_run: Run, tmp_path: Path, kind: str
) -> None:
    photo, path = draw_photo("stripes", 5, width=260, height=180), tmp_path / "photo"
    if kind == "wide gamut":
        photo.save(path, "PNG", icc_profile=profile_of("wide"))
    elif kind == "12 bits":
        Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 16).save(path, "PNG")
    else:
        photo.save(path, "JPEG", quality=95)
        path.write_bytes(jpeg_with(path.read_bytes(), exif=exif_block(6, kind=4)))
    wanted = load_predictor(web_run.path).predict(path)
    served = classify(load_models(web_run), path.read_bytes())["predictions"][0]
    assert (served["label"], served["probability"]) == (wanted.label, pytest.approx(wanted.probability, abs=1e-5))
    exported = load_exported(next(web_run.export.glob("*/student.onnx"))).predict(path)
    assert exported.probabilities == pytest.approx(wanted.probabilities, abs=1e-4)
    with Image.open(path) as image:
        assert load_predictor(web_run.path).predict(image) == wanted
    web.page.set_input_files("#file", path)
    assert probabilities(web.page) == pytest.approx(list(wanted.probabilities.values()), abs=1e-2)


def test_a_text_file_is_refused_in_words_and_the_next_photo_works(web: Watched, photo: Path, not_a_photo: Path) -> None:
    web.page.set_input_files("#file", not_a_photo)
    web.page.wait_for_selector("#status.refused")
    assert "cannot be used as a photo" in web.page.inner_text("#status")
    web.page.set_input_files("#file", photo)
    assert len(probabilities(web.page)) == 3
    assert web.errors == []


def test_a_photo_can_be_dropped_and_pasted(web: Watched, photo: Path) -> None:
    answers = []
    for kind in ("drop", "paste"):
        web.page.evaluate("delete document.getElementById('answer').dataset.probabilities")
        web.page.evaluate(GIVE_PHOTO, [list(photo.read_bytes()), kind])
        answers.append(probabilities(web.page))
    assert answers[0] == answers[1]


def test_the_camera_answers_live_and_takes_a_photo(folder: Path, open_page: Callable[..., Watched]) -> None:
    with static_host(folder) as url:
        watched = open_page(url, permissions=["camera"])
        page = watched.page
        page.wait_for_selector("body[data-ready=yes]")
        page.click("#camera")
        assert len(probabilities(page)) == 3
        assert page.get_attribute("#status", "aria-live") == "off", "a screen reader would speak without end"
        page.click("#shoot")
        page.wait_for_selector("#picture:visible")
        assert page.is_hidden("#video")
        assert page.evaluate("document.activeElement.id") == "camera", "the keyboard must not lose its place"
        assert watched.errors == []


def test_it_is_worked_by_keyboard_and_has_names_for_screen_readers(web: Watched, photo: Path) -> None:
    web.page.keyboard.press("Tab")
    assert web.page.evaluate("document.activeElement.className") == "skip"
    web.page.keyboard.press("Tab")
    assert web.page.evaluate("document.activeElement.id") == "choose"
    asked = "(file) => file.addEventListener('click', (e) => { e.preventDefault(); window.asked = true; })"
    web.page.eval_on_selector("#file", asked)
    web.page.keyboard.press("Enter")
    web.page.wait_for_function("window.asked")
    web.page.set_input_files("#file", photo)
    probabilities(web.page)
    meters = web.page.query_selector_all("[role=meter]")
    assert len(meters) == 3
    assert all("%" in meter.get_attribute("aria-label") for meter in meters)
    assert "Your photo" in web.page.get_attribute("#picture", "aria-label")


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(folder: Path, open_page: Callable[..., Watched], photo: Path, dark: bool) -> None:
    with static_host(folder) as url:
        page = open_page(url, width=390, height=844, dark=dark).page
        page.wait_for_selector("body[data-ready=yes]")
        page.set_input_files("#file", photo)
        probabilities(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(20, 24, 28)") == dark


def test_opened_as_a_file_it_says_what_to_do(folder: Path, open_page: Callable[..., Watched]) -> None:
    page = open_page((folder / "index.html").as_uri()).page
    assert "http.server" in page.inner_text("#status")
