"""The fit of learning curves."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from potstill.tools.power_law import EXPONENTS, fit

SHARES = np.array([0.125, 0.25, 0.5, 1.0])


@given(
    limit=st.floats(0, 0.2),
    scale=st.floats(0.005, 0.3),
    exponent=st.floats(float(EXPONENTS[0]), 1.5),
    smallest=st.integers(10, 2_000),
)
def test_a_power_law_is_recovered_and_continued(limit: float, scale: float, exponent: float, smallest: int) -> None:
    photos = smallest * np.array([1, 2, 4, 8])
    errors = limit + scale * (photos / photos[-1]) ** -exponent
    assume(errors[0] <= 1)
    found = fit(photos / photos[-1], errors[None])
    twice = float(found(np.array([2.0]))[0, 0])
    assert twice == pytest.approx(limit + scale * 2**-exponent, abs=2e-3)
    assert found(SHARES)[0] == pytest.approx(errors, abs=2e-3)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_no_fit_rises_or_goes_below_zero(errors: list[float]) -> None:
    found = fit(SHARES, np.array([errors]))
    assert found.limit[0] >= 0
    assert found.scale[0] >= 0
    assert np.all(np.diff(found(np.array([0.1, 1.0, 2.0, 100.0]))[0]) <= 1e-12)


def test_a_rising_curve_is_fitted_as_flat() -> None:
    assert np.ptp(fit(SHARES, np.array([[0.1, 0.12, 0.15, 0.2]]))(SHARES)) == pytest.approx(0)


def test_curves_are_fitted_each_on_its_own() -> None:
    errors = np.array([[0.4, 0.3, 0.2, 0.15], [0.2, 0.2, 0.2, 0.2]])
    together, alone = fit(SHARES, errors), [fit(SHARES, one[None]) for one in errors]
    for row, one in enumerate(alone):
        assert together(SHARES)[row] == pytest.approx(one(SHARES)[0])
