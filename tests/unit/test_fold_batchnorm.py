"""The form in which a teacher answers: faster, and still the same model."""

import numpy as np
import pytest
import torch
from torch import nn

from potstill.compute.fold_batchnorm import MIN_MARGIN, agreement, fold
from potstill.compute.inference import outputs
from potstill.compute.precision import Precision
from potstill.models.classifier import Classifier, build, describe

FLOAT32 = Precision(torch.device("cpu"))
BFLOAT16 = Precision(torch.device("cpu"), torch.bfloat16)


def _lived_in(name: str, head_width: int = 0) -> Classifier:
    """A model whose norms have seen something: with their starting statistics folding would change nothing."""
    model = build(describe(name, ["a", "b", "c"], size=64, head_width=head_width), seed=1)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0)):
                assert tensor is not None
                tensor.uniform_(low, high, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.3, 0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "norms_left"),
    [
        ("efficientnet_lite0", 0),
        ("mobilenetv1_025", 0),
        ("mobilenetv3_small_050", 0),
        ("resnet18", 0),
        ("densenet121", 62),  # its norms stand before the convolutions, but for those inside a layer
    ],
)
def test_the_folded_model_answers_the_same(name: str, norms_left: int, pixels: np.ndarray) -> None:
    model = _lived_in(name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    form = fold(model, FLOAT32)
    for exact, folded in zip(outputs(model, pixels, FLOAT32), outputs(form, pixels, FLOAT32), strict=True):
        assert np.abs(exact - folded).max() < 2e-3 * np.abs(exact).max()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in form.modules()) <= norms_left
    after = model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the model itself is left alone"


class _OddNorm(nn.BatchNorm2d):
    """Does something to what the convolution gives before scaling it, so the two cannot be one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.abs())


def test_a_model_that_cannot_be_folded_stays_as_it_is(pixels: np.ndarray) -> None:
    model = _lived_in("resnet18")
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).__class__ = _OddNorm
    form = fold(model, FLOAT32)
    assert any(isinstance(m, nn.BatchNorm2d) for m in form.modules())
    assert np.array_equal(outputs(model, pixels, FLOAT32)[0], outputs(form, pixels, FLOAT32)[0])


@pytest.mark.parametrize("head_width", [0, 16])
def test_in_bfloat16_the_backbone_is_rounded_and_the_head_is_not(head_width: int, pixels: np.ndarray) -> None:
    model = _lived_in("efficientnet_lite0", head_width)
    form = fold(model, BFLOAT16)
    kinds = {m.weight.dtype for m in form.modules() if isinstance(m, nn.Conv2d)}
    assert kinds == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in form.head.parameters())
    features, logits = outputs(form, pixels, BFLOAT16)
    exact, _ = outputs(model, pixels, FLOAT32)
    assert features.dtype == logits.dtype == np.float32
    assert 0 < np.abs(features - exact).max() < 0.1 * np.abs(exact).max()
    with torch.inference_mode():
        assert np.allclose(logits, model.head(torch.from_numpy(features)).numpy(), atol=1e-6)


def test_agreement_counts_photos_on_which_float32_is_decided() -> None:
    undecided = np.log([0.5 + MIN_MARGIN / 4, 0.5 - MIN_MARGIN / 4])
    exact = np.array([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], undecided])
    turned = exact.copy()
    turned[3] = turned[3, ::-1]
    assert agreement(exact, turned) == 1.0
    turned[0] = turned[0, ::-1]
    assert agreement(exact, turned) == pytest.approx(2 / 3)
    assert agreement(exact[3:], turned[3:]) == 1.0
