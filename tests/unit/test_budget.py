"""Students for a budget: what fits is taken, what cannot fit is said."""

import functools
from collections.abc import Iterator

import pytest

from potstill.config.load import from_mapping
from potstill.errors import ConfigError
from potstill.models.classifier import build, describe
from potstill.models.costs import macs_of, parameters_of
from potstill.students import budget


@pytest.fixture(autouse=True, scope="module")
def _costs_counted_once() -> Iterator[None]:
    """Several tests ask for the costs of the same models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "_with_costs", functools.cache(budget._with_costs))
        yield


def test_candidates_fit_and_are_different_models() -> None:
    config = from_mapping({"budget.max_mmacs": 20.0, "budget.max_megabytes": 5.0, "student.weights": "none"})
    names = budget.candidates(config, classes=3)
    models = [name.split("@")[0] for name in names]
    assert 1 <= len(names) <= config.budget.candidates
    assert len(set(models)) == len(models)
    for name in names:
        model, size = name.split("@")
        built = build(describe(model, ["a", "b", "c"], size=int(size)))
        assert macs_of(built) / 1e6 <= 20.5  # the ladder scales with the area, which leaves the head out
        assert 4 * parameters_of(built) / 1e6 <= 5.0


def test_a_limit_of_time_holds_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "milliseconds_of", lambda model: model.info.size / 10)
    settings = {"budget.max_milliseconds": 10.0, "budget.max_mmacs": 100.0, "student.weights": "none"}
    names = budget.candidates(from_mapping(settings), classes=3)
    assert {name.split("@")[1] for name in names} == {"96"}


def test_as_many_candidates_as_set_and_the_costliest_first() -> None:
    settings = {"budget.max_mmacs": 100.0, "student.weights": "none"}
    three, one = (
        budget.candidates(from_mapping({**settings, "budget.candidates": count}), classes=3) for count in (3, 1)
    )
    assert len(three) == 3
    assert one == three[:1]


def test_nothing_fits_names_the_smallest() -> None:
    config = from_mapping({"budget.max_megabytes": 0.1, "student.weights": "none"})
    with pytest.raises(ConfigError, match=r"mobilenetv1_025@96, has 0\.\d+ MB"):
        budget.candidates(config, classes=3)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("3MB", "budget.max_megabytes", 3.0),
        ("500 kB", "budget.max_megabytes", 0.5),
        ("50M", "budget.max_mmacs", 50.0),
        ("1.5g", "budget.max_mmacs", 1500.0),
        ("5ms", "budget.max_milliseconds", 5.0),
    ],
)
def test_amounts_are_read_as_people_write_them(text: str, name: str, value: float) -> None:
    assert budget.parse_amount(text, budget.UNITS[name], name) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "MB", "three MB", "-1MB", "3", "3.0.1MB"])
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not an amount"):
        budget.parse_amount(text, budget.UNITS["budget.max_megabytes"], "--max-size")
