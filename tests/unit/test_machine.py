"""Arithmetic is chosen by timing, and never where it would change the answers."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from potstill import machine
from potstill.machine import Machine, fastest_precision


class _Slow(nn.Module):
    """Counts as slow in float32; in bfloat16 its answers are off by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.factor = factor

    def forward(self, pixels: Tensor) -> Tensor:
        answer = self.layer(pixels.mean((2, 3)))
        if answer.dtype == torch.bfloat16:
            return answer * self.factor
        for _ in range(40):
            torch.ones(200, 200) @ torch.ones(200, 200)
        return answer


@pytest.fixture(autouse=True)
def short() -> None:
    with patch.object(machine, "PROBE_SECONDS", 0.05):
        yield


@pytest.mark.parametrize("training", [False, True])
def test_the_faster_arithmetic_is_taken_when_it_says_the_same(training: bool) -> None:
    precision, speeds = fastest_precision(_Slow(1.0), 8, Machine("cpu", 1, 1), training=training)
    assert speeds["bfloat16"] > speeds["float32"]
    assert precision.dtype == torch.bfloat16


def test_faster_but_different_is_refused() -> None:
    precision, speeds = fastest_precision(_Slow(1.5), 8, Machine("cpu", 1, 1), training=True)
    assert speeds["bfloat16"] > speeds["float32"]
    assert precision.dtype == torch.float32


def test_what_the_user_sets_is_not_questioned() -> None:
    precision, speeds = fastest_precision(_Slow(1.5), 8, Machine("cpu", 1, 1, "bfloat16"), training=True)
    assert precision.dtype == torch.bfloat16
    assert list(speeds) == ["bfloat16"]


def test_probing_leaves_weights_and_statistics_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fastest_precision(model, 16, Machine("cpu", 1, 1), training=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
