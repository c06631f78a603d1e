"""Bias correction: what rounded weights add to the mean of every layer's output is taken off again.

Rounding shifts each channel's mean, layer after layer, and the shifts add up; most of what an int8 file gets wrong is
that. Here the weights are rounded in simulation, on the grid that the format will use, calibration photos go through
once, and every norm's running mean (or the layer's own bias) takes up the difference to the exact student. The weights
themselves stay as they are: the exporter rounds them. Nagel et al. 2019, arXiv:1906.04721, section 4.2, with measured
instead of predicted means.
"""

from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from potstill.export.int8.rounding import Layer, rounded_weights
from potstill.models.classifier import Classifier, load, normalize, save


def correct_biases(
    student: Path, photos: np.ndarray, out: Path, *, steps: int, float_layers: Collection[str] = ()
) -> None:
    """Store the student of folder `student` in the folder `out`, with norms and biases that fit rounded weights.

    Args:
        photos: (N, S, S, 3) uint8 at the student's size.
        steps: of the format's weights, on either side of 0.
        float_layers: names of layers that the format will not round.
    """
    model, exact = load(student), load(student)
    pixels = normalize(torch.from_numpy(photos), model.info)
    with torch.no_grad():
        wanted = _means(exact, pixels)
        with rounded_weights(model, steps, but=float_layers):
            _take_off(model, pixels, wanted)
    save(model, out, bias_correction={"steps": steps, "photos": len(photos)})


def _means(exact: Classifier, pixels: Tensor) -> dict[str, Tensor]:
    """(C,) of what goes into each norm, and of what comes out of each layer with a bias, by name."""
    found: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in exact.net.named_modules():
            if isinstance(module, nn.BatchNorm2d):

                def see(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                    found[name] = _mean(inputs[0])

                hooks.callback(module.register_forward_pre_hook(see).remove)
            elif isinstance(module, Layer) and module.bias is not None:

                def look(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
                    found[name] = _mean(output)

                hooks.callback(module.register_forward_hook(look).remove)
        exact(pixels)
    return found


def _take_off(model: Classifier, pixels: Tensor, wanted: dict[str, Tensor]) -> None:
    """One pass, layer after layer: each is corrected before the next one sees what comes out of it."""
    with ExitStack() as hooks:
        for name, module in model.net.named_modules():
            if name not in wanted:
                continue
            if isinstance(module, nn.BatchNorm2d):

                def shift(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                    assert isinstance(module, nn.BatchNorm2d)
                    assert module.running_mean is not None
                    module.running_mean += _mean(inputs[0]) - wanted[name]

                hooks.callback(module.register_forward_pre_hook(shift).remove)
            else:

                def add(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> Tensor:
                    assert isinstance(module, Layer)
                    assert module.bias is not None
                    missing = wanted[name] - _mean(output)
                    module.bias += missing
                    return output + missing.view(1, -1, *[1] * (output.ndim - 2))

                hooks.callback(module.register_forward_hook(add).remove)
        model(pixels)


def _mean(values: Tensor) -> Tensor:
    """(B, C, …) → (C,)."""
    return values.mean([axis for axis in range(values.ndim) if axis != 1])
