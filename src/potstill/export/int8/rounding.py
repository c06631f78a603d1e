"""int8 in simulation: weights and inputs of layers are rounded as a format's tool will round them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from potstill.models.classifier import Classifier

Layer = nn.Conv2d | nn.Linear


class RoundedWeight(nn.Module):
    """−steps…steps per output channel, symmetrically: the same before and after a norm is folded in."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, weight: Tensor) -> Tensor:
        top = weight.detach().abs().flatten(1).amax(1).clamp(min=1e-8)
        zero = torch.zeros(len(top), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, top / self.steps, zero, 0, -self.steps, self.steps)


def layers_of(model: Classifier, *, but: Collection[str] = ()) -> dict[str, Layer]:
    """Everything whose weights are rounded, by name within the network, without the layers that stay in float."""
    named = model.net.named_modules()
    return {name: module for name, module in named if isinstance(module, Layer) and name not in but}


@contextmanager
def rounded_weights(model: Classifier, steps: int, *, but: Collection[str] = ()) -> Iterator[None]:
    """The model computes with rounded weights while the block runs; what it learns meanwhile goes to the exact ones."""
    layers = layers_of(model, but=but).values()
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", RoundedWeight(steps))
    try:
        yield
    finally:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


class RoundedInput:
    """Rounds the first input of a layer to 8 bits, once the range of its values has been seen."""

    def __init__(self) -> None:
        self.low, self.high, self.seeing = 0.0, 0.0, True

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values, *rest = inputs
        if self.seeing:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            return inputs
        scale = max(self.high - self.low, 1e-8) / 255
        zero = round(-self.low / scale)
        return (torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255), *rest)
