"""Learning curves as power laws: error = a + b · photos^-c with a, b ≥ 0, by least squares.

Source: Hestness et al. 2017, arXiv:1712.00409; the constant a is the error that no number of photos removes.
"""

from dataclasses import dataclass

import numpy as np

EXPONENTS = np.geomspace(0.05, 2.0, 400)
"""Values of c to choose from. Below them a curve is a straight line over the logarithm, above them flat."""


@dataclass(frozen=True, slots=True)
class PowerLaws:
    """Fits of R curves over the same numbers of photos, one for each resample."""

    limit: np.ndarray
    """(R,) a."""
    scale: np.ndarray
    """(R,) b."""
    exponent: np.ndarray
    """(R,) c."""

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """(R, M) errors at these numbers of photos (M,), in the unit of the fit."""
        return self.limit[:, None] + self.scale[:, None] * photos[None, :] ** -self.exponent[:, None]


def fit(photos: np.ndarray, errors: np.ndarray) -> PowerLaws:
    """The best fit of each curve: for every exponent the best a and b, and of these the smallest squared error.

    Args:
        photos: (K,) numbers of photos, in any unit.
        errors: (R, K).
    """
    fits = [_fit_lines(photos**-exponent, errors) for exponent in EXPONENTS]
    best = np.argmin([squares for _, _, squares in fits], axis=0)
    rows = np.arange(len(errors))
    limit, scale = (np.stack([one[part] for one in fits])[best, rows] for part in (0, 1))
    return PowerLaws(limit, scale, EXPONENTS[best])


def _fit_lines(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y (R, K) ≈ a + b · x (K,) with a, b ≥ 0: (R,) each of a, b and the squared error."""
    centered = x - x.mean()
    slope = y @ centered / (centered @ centered)
    intercept = y.mean(1) - slope * x.mean()
    through_zero = y @ x / (x @ x)
    slope = np.where(intercept < 0, through_zero, slope)
    intercept = np.maximum(intercept, 0)
    intercept, slope = np.where(slope < 0, y.mean(1), intercept), np.maximum(slope, 0)
    squares = np.square(y - intercept[:, None] - slope[:, None] * x).sum(1)
    return intercept, slope, squares
