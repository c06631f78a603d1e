"""What a notebook shows of a run and of a prediction: the numbers, the plot, and no markup that a name smuggles in."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tests.reports import edit, grow, slim_copy

import potstill
from potstill.deploy.predictor import BARS, Prediction
from potstill.errors import ConfigError
from potstill.pipeline import Result
from potstill.report import notebook
from potstill.run.folder import Run

MARKUP = '<img src=x onerror="alert(1)">'


@pytest.fixture
def slim(tiny_run: "potstill.Result", tmp_path: Path) -> Run:
    return slim_copy(tiny_run.path, tmp_path / "run")


def html(run: Run) -> str:
    return Result(run)._repr_html_()


def test_a_result_shows_its_verdict_its_table_and_a_plot(slim: Run) -> None:
    grow(slim, classes=["a", "b", "c"], students=2, photos=200)
    result = Result(slim)
    shown = html(slim)
    for student in result.comparison.students:
        assert f"<strong>{student.verdict}</strong>" in shown
    rows = re.findall(r"<tr>(.*?)</tr>", shown)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert cells[0][:2] == ["model", "accuracy"]
    assert len(cells) == 1 + 1 + 2 * 2
    for student in result.comparison.students:
        row = next(row for row in cells if row[0] == f"{student.name} distilled")
        assert row[1] == f"{student.distilled.accuracy.value:.1%}"
    assert shown.count("<svg") == 1
    assert "A: student-0; B: student-1" in shown
    assert "Do not rely" not in shown


def test_a_run_that_judges_nothing_says_so(slim: Run) -> None:
    assert html(slim).startswith("<p><strong>Do not rely on these numbers.</strong>")
    assert "(KD010)" in html(slim)


def test_the_plot_is_a_figure_of_its_own_that_can_be_saved(slim: Run, tmp_path: Path) -> None:
    figure = Result(slim).plot()
    root = ElementTree.fromstring(figure._repr_svg_())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    marks = [element.get("class") for element in root.iter() if (element.get("class") or "").startswith("mark")]
    assert sorted(filter(None, marks)) == ["mark alone", "mark distilled", "mark teacher"]
    assert figure.save(tmp_path / "plot.svg").read_text("utf-8") == figure.svg
    assert "milliseconds" not in figure.svg
    assert "ms a photo" in Result(slim).plot("milliseconds").svg
    assert len(repr(figure)) < 100


@pytest.mark.parametrize("rule", re.findall(r"^(.+?) \{|\} (.+?) \{", notebook._STYLE, re.MULTILINE), ids=str)
def test_its_style_touches_nothing_else_in_the_notebook(rule: tuple[str, str]) -> None:
    assert all(part.strip().startswith(".potstill") for part in "".join(rule).split(","))


def test_its_colors_are_those_of_the_report() -> None:
    style = (Path(notebook.__file__).parent / "style.css").read_text("utf-8")
    light = style[: style.index("@media")]
    assert set(re.findall(r"#[0-9a-f]{6}", notebook._STYLE)) <= set(re.findall(r"#[0-9a-f]{6}", light))


def test_an_unknown_cost_and_another_kind_of_file_are_refused(slim: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no cost 'byte'; take bytes, macs, milliseconds\. Did you mean 'bytes'\?"):
        Result(slim).plot("byte")
    with pytest.raises(ConfigError, match=r"as SVG, not as \.png"):
        Result(slim).plot().save(tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def test_markup_in_a_run_is_shown_as_text(slim: Run) -> None:
    def smuggle(comparison: dict) -> None:  # type: ignore[type-arg]
        comparison["teacher"]["models"] = [MARKUP]
        comparison["environment"]["processor"] = MARKUP
        comparison["students"][0]["verdict"] = MARKUP

    edit(slim.comparison / "comparison.json", smuggle)
    shown = html(slim)
    assert "<img" not in shown
    assert shown.count("&lt;img src=x") == 3


def test_a_prediction_shows_its_label_and_a_bar_for_each_class() -> None:
    shown = Prediction.of(np.array([0.25, 0.75]), ["cat", "dog"], threshold=0.5)._repr_html_()
    assert "<strong>dog</strong>" in shown
    assert re.findall(r"width: ([\d.]+)%", shown) == ["75.0", "25.0"]
    assert "Unsure" not in shown
    assert "more classes" not in shown


def test_an_unsure_prediction_and_many_classes() -> None:
    classes = [f"class {number}" for number in range(BARS + 3)]
    values = np.linspace(0.01, 0.2, len(classes))
    shown = Prediction.of(values, classes, threshold=0.9)._repr_html_()
    assert "Unsure" in shown
    assert shown.count("<tr>") == BARS
    assert "and 3 more classes" in shown
    assert f"<td>{100 * values[-1]:.1f} %" in shown


def test_markup_in_class_names_is_shown_as_text() -> None:
    shown = Prediction.of(np.array([1.0, 0.0]), [MARKUP, "b & c"], threshold=0.5)._repr_html_()
    assert "<img" not in shown
    assert shown.count("&lt;img") == 2
    assert "b &amp; c" in shown
