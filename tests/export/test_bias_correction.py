"""What rounded weights add to the means of layers is taken off, and nothing else is changed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.export.int8.correction import correct_biases
from potstill.export.int8.rounding import layers_of, rounded_weights
from potstill.models.classifier import build, describe, load, normalize, save

STEPS = 7
"""4-bit weights: an error that nobody can overlook."""


@pytest.mark.parametrize("name", ["mobilenetv1_025", "mobilenetv3_small_050"])  # the second has biased layers, too
def test_the_rounded_student_answers_like_the_exact_one_on_average(tmp_path: Path, name: str) -> None:
    model = build(describe(name, ["a", "b", "c"], size=32), seed=1)
    photos = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), np.uint8)
    pixels = normalize(torch.from_numpy(photos), model.info)
    with torch.no_grad():
        for _ in range(30):  # norms that know these pixels, as after a training
            model.train()(pixels)
    save(model, tmp_path / "exact")
    correct_biases(tmp_path / "exact", photos, tmp_path / "corrected", steps=STEPS)
    exact, corrected, plain = load(tmp_path / "exact"), load(tmp_path / "corrected"), load(tmp_path / "exact")
    for one, other in zip(layers_of(exact).values(), layers_of(corrected).values(), strict=True):
        assert torch.equal(one.weight, other.weight), "only norms and biases change"
    with torch.no_grad(), rounded_weights(plain, STEPS), rounded_weights(corrected, STEPS):
        wanted, rounded, better = (m(pixels).mean(0) for m in (exact, plain, corrected))
    torch.testing.assert_close(better, wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(rounded, wanted, atol=1e-4, rtol=1e-3)
