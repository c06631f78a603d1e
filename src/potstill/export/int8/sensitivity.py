"""Which layers suffer most from rounding, and cost least in float.

Each layer is rounded alone, weights and input, in simulation; how far the probabilities move is its sensitivity. Often
a few early layers with few channels make most of the error, and hold hardly any of the weights.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from potstill.export.int8.rounding import RoundedInput, RoundedWeight, layers_of
from potstill.models.classifier import load, normalize, probabilities

PHOTOS = 32
"""Fewer than for calibration: every layer takes a pass of its own."""
LAYER_SHARE = 0.25
"""Most layers that may stay float."""
WEIGHT_SHARE = 0.03
"""Most weights that they may hold together: the file grows by a tenth at most."""


def sensitive_layers(student: Path, photos: np.ndarray, *, steps: int) -> tuple[str, ...]:
    """Names of the layers of the student in this folder that are best left in float, the most sensitive first.

    Args:
        photos: (N, S, S, 3) uint8 at the student's size.
        steps: of the format's weights, on either side of 0.
    """
    model = load(student).eval()
    layers = layers_of(model)
    pixels = normalize(torch.from_numpy(photos), model.info)
    inputs = {name: RoundedInput() for name in layers}

    @torch.inference_mode()
    def predicted() -> Tensor:
        return probabilities(model(pixels), several_labels=model.info.several_labels)

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(inputs[name]).remove)
        exact = predicted()
    moved = {}
    for name, layer in layers.items():
        inputs[name].seeing = False
        hook = layer.register_forward_pre_hook(inputs[name])
        parametrize.register_parametrization(layer, "weight", RoundedWeight(steps))
        moved[name] = float((predicted() - exact).abs().sum())
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        hook.remove()
    room = WEIGHT_SHARE * sum(layer.weight.numel() for layer in layers.values())
    kept: list[str] = []
    for name in sorted(layers, key=lambda name: -moved[name]):
        size = layers[name].weight.numel()
        if size <= room and len(kept) < LAYER_SHARE * len(layers):
            kept.append(name)
            room -= size
    return tuple(kept)
