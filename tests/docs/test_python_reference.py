"""docs/reference/python.md has every public name, and everything public in it is explained. Freshness: test_pages."""

import inspect
import re
from functools import cached_property

import pytest
from tests.docs.pages import ROOT

import potstill
from potstill.config.load import field_docs
from potstill.report.notebook import Figure

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
CLASSES = [potstill.Result, potstill.Predictor, potstill.Prediction, potstill.LabelsPrediction, Figure]


def test_every_public_name_has_a_section() -> None:
    assert set(re.findall(r"^## potstill\.(\w+)$", PAGE, re.M)) == set(potstill.__all__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_everything_public_in_a_class_is_on_the_page(kind: type) -> None:
    section = re.split(r"^## ", PAGE, flags=re.M)
    text = next(part for part in section if part.splitlines()[0].removeprefix("potstill.") == kind.__name__)
    for name, value in vars(kind).items():
        if name.startswith("_") or isinstance(value, classmethod):
            continue
        if inspect.isfunction(value):
            assert f"### {kind.__name__}.{name}\n" in text, name
        elif isinstance(value, property | cached_property):
            assert f"| `{name}` |" in text, f"{name} has no docstring"
    for name in field_docs(kind):
        assert f"| `{name}` |" in text, name


def test_errors_and_signatures_are_there() -> None:
    assert "| `ConfigError` |" in PAGE
    assert "    students: Sequence[str] | None = None,\n" in PAGE
    assert "Raises `DataError`: " in PAGE
