"""The resize rule without torch is the one inside the files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from potstill.data.resize import crop_side, fit
from potstill.deploy.deployable import Deployable
from potstill.models.classifier import build, describe


@pytest.mark.parametrize("crop", [1.0, 0.875, 0.5])
@pytest.mark.parametrize("shape", [(64, 64), (65, 98), (98, 65), (256, 171), (33, 32), (17, 400), (20, 24), (1, 1)])
def test_fit_is_what_the_deployable_does(shape: tuple[int, int], crop: float) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    info = replace(describe("mobilenetv1_025", ["a", "b"], size=32), crop_pct=crop)
    inside = Deployable(build(info)).prepare(torch.from_numpy(photo))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(fit(Image.fromarray(photo), 32, crop), inside)


def test_a_crop_shows_the_middle_and_nothing_else() -> None:
    photo = np.zeros((100, 160, 3), np.uint8)
    photo[25:75, 55:105] = 200
    assert (fit(Image.fromarray(photo), 20, 0.5) == 200).all()
    assert (fit(Image.fromarray(photo), 20) > 100).mean() == 0.25
    assert [crop_side(side, 1.0) for side in (1, 7, 500)] == [1, 7, 500]
    assert [crop_side(side, 0.875) for side in (1, 8, 500)] == [1, 7, 438]


def test_halves_are_rounded_down_everywhere() -> None:
    """Resizing to a half makes values of exactly .5; the order of a sum must not decide them."""
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[::2] = 101
    assert set(np.unique(fit(Image.fromarray(photo), 32)[1:-1])) <= {37, 38, 50, 63}
    photo[:] = 200
    assert np.all(fit(Image.fromarray(photo), 32) == 200)
