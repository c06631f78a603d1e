"""The page to try photos on, below the browser: answers, refusals, limits, and several people at once."""

import re
import socket
import sys
from inspect import signature
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image
from tests.support import draw_photo

import potstill
from potstill.cli.runs import serve as command_serve
from potstill.deploy import serve as serving
from potstill.deploy.predictor import load_predictor
from potstill.deploy.serve import Outputs, Served, load_models, prediction_page, serve
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
    page = prediction_page(models, str(photo))
    assert re.findall(r'data-arm="(\w+)"', page) == ["distilled", "alone", "teacher"]
    for model in models:
        wanted = load_predictor(tiny_run.path, arm=model.arm).predict(photo)
        assert f'data-label="{wanted.label}" data-probability="{wanted.probability:.6f}"' in page
        assert f"{model.megabytes:.2f} MB" in page
    assert len(re.findall(r"\d\.\d ms", page)) == 3


def test_an_unsure_answer_says_that_it_may_be_none_of_the_classes(models: list[Served]) -> None:
    answer = Outputs(np.array([0.4, 0.3, 0.3]), False, 1.0)
    assert "perhaps not one of these classes" in serving._column(models[0], answer)
    assert "perhaps not" not in serving._column(models[0], Outputs(np.array([1.0, 0, 0]), True, 1.0))


def test_the_threshold_is_the_one_that_was_set_on_val(models: list[Served], photo: Path) -> None:
    for model in models:
        answer = model.predict(np.asarray(Image.open(photo)))
        assert answer.known == (answer.probabilities.max() >= model.predictors[0].threshold)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jpg", b"just text", "Please take a photo file"),
        ("b.jpg", b"", "The file is empty"),
        ("c.jpg", b"<!doctype html><title>404</title>", "this is a web page, not a photo"),
        ("d.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be used as a photo"),
    ],
)
def test_bad_files_are_refused_in_words(
    models: list[Served], tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    page = prediction_page(models, str(tmp_path / name))
    assert 'role="alert"' in page
    assert words in page
    assert str(tmp_path) not in page, "nobody needs to know where files are kept"


def test_too_many_pixels_are_refused(models: list[Served], photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_PIXELS", 96 * 80 - 1)
    assert "megapixels" in prediction_page(models, str(photo))
    monkeypatch.setattr(serving, "MAX_PIXELS", 96 * 80)
    assert "data-arm" in prediction_page(models, str(photo))
    assert prediction_page(models, None) == ""


def test_class_names_are_escaped(models: list[Served], monkeypatch: pytest.MonkeyPatch) -> None:
    odd = Served("distilled", models[0].predictors)
    monkeypatch.setattr(type(odd.predictors[0]), "classes", ("<b>x</b>", "y", "z"))
    page = serving._column(odd, Outputs(np.array([0.8, 0.1, 0.1]), True, 1.0))
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page


def test_an_unknown_student_is_refused(tiny_run: "potstill.Result") -> None:
    with pytest.raises(ModelError, match="no trained student 'nobody'"):
        load_models(Run(tiny_run.path), "nobody")


def test_without_gradio_the_line_that_installs_it_is_told(
    tiny_run: "potstill.Result", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(PotstillError, match=r"pip install 'potstill\[serve\]'"):
        serve(tiny_run.path, port=0, block=False)


def test_a_port_that_is_taken_is_told_before_models_are_loaded(
    tiny_run: "potstill.Result", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_gradio", object)
    monkeypatch.setattr(serving, "build_page", None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PotstillError, match=r"cannot be served on 127\.0\.0\.1:\d+: .* Choose another --port"):
            serve(tiny_run.path, port=taken.getsockname()[1], block=False)
    with pytest.raises(PotstillError, match="cannot be served on nowhere"):
        serve(tiny_run.path, host="nowhere.invalid", port=0, block=False)


def test_the_page_is_for_this_machine_and_forgets_photos(
    tiny_run: "potstill.Result", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless told otherwise it listens on loopback, is not shared through anyone's server, and sends no statistics."""
    gradio = MagicMock()
    page = gradio.Blocks.return_value.__enter__.return_value
    page.launch.return_value = (None, "http://127.0.0.1:7860/", None)
    monkeypatch.setattr("potstill.deploy.serve._gradio", lambda: gradio)
    serve(tiny_run.path, port=0, block=False)
    made, launched = gradio.Blocks.call_args.kwargs, page.launch.call_args.kwargs
    assert launched["server_name"] == "127.0.0.1"
    assert launched["share"] is False
    assert launched["max_file_size"] == "20mb"
    assert made["delete_cache"] == (600, 600), "the page says ten minutes"
    assert made["analytics_enabled"] is False
    assert signature(command_serve).parameters["host"].default == "127.0.0.1"
