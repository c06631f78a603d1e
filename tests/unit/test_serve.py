"""The page to try photos on, below the browser: answers, refusals, and who is answered."""

import asyncio
import json
import logging
import socket
from inspect import signature
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from PIL import Image
from tests.support import draw_photo

import potstill
from potstill.cli.runs import serve as command_serve
from potstill.deploy import serve as serving
from potstill.deploy.predictor import load_predictor
from potstill.deploy.serve import Outputs, Page, Served, classify, listen, load_models, page_files, serve
from potstill.errors import ModelError, PotstillError
from potstill.run.folder import Run


@pytest.fixture(scope="module")
def models(tiny_run: "potstill.Result") -> list[Served]:
    return load_models(Run(tiny_run.path))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    draw_photo("frame", 77).save(tmp_path / "frame.png")
    return tmp_path / "frame.png"


def test_three_models_answer_as_predict_does_with_time_and_size(
    models: list[Served], tiny_run: "potstill.Result", photo: Path
) -> None:
    predictions = classify(models, photo.read_bytes())["predictions"]
    assert [found["arm"] for found in predictions] == ["distilled", "alone", "teacher"]
    for found in predictions:
        wanted = load_predictor(tiny_run.path, arm=found["arm"]).predict(photo)
        assert (found["label"], found["known"]) == (wanted.label, wanted.known)
        assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-6)
        assert found["milliseconds"] > 0
        assert 0.1 < found["megabytes"] < 100


def test_an_unsure_answer_says_so(models: list[Served]) -> None:
    assert serving._column(models[0], Outputs(np.array([0.34, 0.33, 0.33]), 1.0))["known"] is False
    assert serving._column(models[0], Outputs(np.array([1.0, 0, 0]), 1.0))["known"] is True


def test_the_threshold_is_the_one_that_was_set_on_val(models: list[Served], photo: Path) -> None:
    for model in models:
        answer = model.predict(np.asarray(Image.open(photo)))
        known = answer.probabilities.max() >= model.predictors[0].threshold
        assert serving._column(model, answer)["known"] == known


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"just text", "Please take a photo file"),
        (b"", "The file is empty"),
        (b"<!doctype html><title>404</title>", "this is a web page, not a photo"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be used as a photo"),
    ],
)
def test_bad_files_are_refused_in_words(models: list[Served], content: bytes, words: str) -> None:
    assert words in classify(models, content)["refused"]


def test_too_many_pixels_are_refused(models: list[Served], photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_PIXELS", 96 * 80 - 1)
    assert "megapixels" in classify(models, photo.read_bytes())["refused"]
    monkeypatch.setattr(serving, "MAX_PIXELS", 96 * 80)
    assert "predictions" in classify(models, photo.read_bytes())


def test_class_names_are_escaped_in_the_page_and_named_up_to_twelve() -> None:
    kind, page = page_files(["<b>x</b>", "$classes", *map(str, range(20))])["/"]
    assert kind == "text/html"
    assert "&lt;b&gt;x&lt;/b&gt;, $classes, 0, 1" in page
    assert "9 and more. Drop" in page
    assert "<script>" not in page, "scripts come from files, so that the policy can forbid all others"


def test_an_unknown_student_is_refused(tiny_run: "potstill.Result") -> None:
    with pytest.raises(ModelError, match="no trained student 'nobody'"):
        load_models(Run(tiny_run.path), "nobody")


def test_a_port_that_is_taken_is_told_before_models_are_loaded(
    tiny_run: "potstill.Result", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "load_models", None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PotstillError, match=r"cannot be served on 127\.0\.0\.1:\d+: .* Choose another --port"):
            serve(tiny_run.path, port=taken.getsockname()[1])
    for host in ("nowhere.invalid", "a" * 99):
        with pytest.raises(PotstillError, match=f"cannot be served on {host}"):
            serve(tiny_run.path, host=host, port=0)


def test_it_is_for_this_machine_answers_programs_and_ends(tiny_run: "potstill.Result", photo: Path) -> None:
    async def ask(url: str) -> dict[str, object]:
        async with aiohttp.ClientSession() as session, session.post(f"{url}classify", data=photo.read_bytes()) as found:
            text = await found.text()
        await asyncio.sleep(0.05)  # the connection is closed in the loop's next turns
        return dict(json.loads(text))

    with serve(tiny_run.path, port=0) as page:
        assert page.url.startswith("http://127.0.0.1:")
        assert "predictions" in asyncio.run(ask(page.url))
    page.wait()
    with pytest.raises(aiohttp.ClientConnectorError):
        asyncio.run(ask(page.url))
    assert signature(command_serve).parameters["host"].default == "127.0.0.1"


@pytest.mark.parametrize(
    ("request_", "status", "logged"),
    [
        (b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n", b" 400 ", False),
        (b"\x16\x03\x01 TLS\r\n\r\n", b" 400 ", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b" 500 ", True),
    ],
    ids=["header", "TLS", "own fault"],
)
def test_what_is_not_http_is_refused_without_a_traceback(
    request_: bytes, status: bytes, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise RuntimeError("a mistake in the program")

    app = web.Application()
    app.router.add_get("/", fail)
    listening = listen("127.0.0.1", 0)
    with (
        caplog.at_level(logging.INFO),
        Page(app, listening),
        socket.create_connection(listening.getsockname()[:2], timeout=20) as connection,
    ):
        connection.sendall(request_)
        assert status in connection.recv(100)
    assert bool(caplog.records) is logged
