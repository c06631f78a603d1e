"""The resize rule without torch is the one inside the files."""

import numpy as np
import pytest
import torch
from PIL import Image

from potstill.deploy import Deployable
from potstill.models import build, describe
from potstill.resize import fit


@pytest.mark.parametrize("shape", [(64, 64), (65, 98), (98, 65), (256, 171), (33, 32), (17, 400), (20, 24)])
def test_fit_is_what_the_deployable_does(shape: tuple[int, int]) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    deployable = Deployable(build(describe("mobilenetv1_025", ["a", "b"], size=32)))
    inside = deployable.prepare(torch.from_numpy(photo))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(fit(Image.fromarray(photo), 32), inside)


def test_halves_are_rounded_down_everywhere() -> None:
    """Resizing to a half makes values of exactly .5; the order of a sum must not decide them."""
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[::2] = 101
    assert set(np.unique(fit(Image.fromarray(photo), 32)[1:-1])) <= {37, 38, 50, 63}
    photo[:] = 200
    assert np.all(fit(Image.fromarray(photo), 32) == 200)
