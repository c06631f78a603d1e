"""docs/how-to/deploy.md: its predictors run, its table is that of the benchmark, its words are those of the code."""

import contextlib
import csv
import importlib.util
import io
import re
import shutil
from pathlib import Path

import pytest
from tests.export.conftest import STUDENT
from tests.support import draw_photo

from potstill.data.resize import ROUND_UP_FROM
from potstill.deploy.predictor import load_predictor
from potstill.export.formats.registry import FORMATS
from potstill.export.int8.candidates import CALIBRATION_PHOTOS, CANDIDATES
from potstill.export.tolerance import MAX_LOSS, MIN_AGREEMENT
from potstill.run.folder import Run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "deploy.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"<!-- run: (\w+) -->\n```python\n(.*?)```", PAGE, re.S))
HERE = ("onnxruntime", "torch")


def test_every_python_runtime_has_a_predictor() -> None:
    assert list(BLOCKS) == ["start", "onnxruntime", "torch", "openvino", "ai_edge_litert", "executorch"]
    for code in BLOCKS.values():
        compile(code, "deploy.md", "exec")
    assert all(importlib.util.find_spec(name) for name in HERE)


@pytest.mark.parametrize("runtime", HERE)
def test_the_predictor_says_what_predict_says(
    runtime: str, exported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files"
    shutil.copytree(exported.export / STUDENT, folder)
    draw_photo("disc", 77, width=230, height=140).save(folder / "photo.jpg")
    monkeypatch.chdir(folder)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(
            compile(BLOCKS["start"].replace("json.load(open(", "json.loads(read("), "deploy.md", "exec"),
            names := {
                "read": lambda name: Path(name).read_text(
                    "utf-8"
                )  # `open` without closing is a warning, so an error here
            },
        )
        exec(compile(BLOCKS[runtime], "deploy.md", "exec"), names)
    label, probability = out.getvalue().split()
    expected = load_predictor(exported.path, student=STUDENT).predict(folder / "photo.jpg")
    assert label == expected.label
    assert float(probability) == pytest.approx(expected.probability, abs=1e-3)


def test_the_fit_of_the_page_is_the_programs() -> None:
    from PIL import Image

    from potstill.data.resize import fit

    code = BLOCKS["start"]
    assert f"+ {1 - ROUND_UP_FROM:.4f})" in code
    names: dict[str, object] = {}
    exec(code[: code.index("manifest =")] + code[code.index("def fit") :], names)
    photo: Image.Image = draw_photo("frame", 5, width=101, height=76)
    for crop in (1.0, 0.875):
        assert (names["fit"](photo, 48, crop) == fit(photo, 48, crop)).all()  # type: ignore[operator]


def test_every_row_of_the_benchmark_is_shown() -> None:
    with (ROOT / "benchmarks" / "export" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert f"| {row['student']} | {row['format']} | {row['precision']} |" in PAGE


def test_the_words_are_those_of_the_code() -> None:
    for form in FORMATS.values():
        assert f"`{form.suffix}`" in PAGE
        assert not form.extra or form.install in PAGE
    assert f"{100 * MAX_LOSS:.0f} point of accuracy, or agrees on less than {100 * MIN_AGREEMENT:.0f} %" in PAGE
    assert [candidate.aware for candidate in CANDIDATES] == [False] * (len(CANDIDATES) - 1) + [True]
    assert f"\n{len(CANDIDATES)}. **quantization-aware distillation**" in PAGE
    assert PAGE.count(f"{CALIBRATION_PHOTOS} ") >= 2
