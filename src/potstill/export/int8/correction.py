"""Bias correction: rounding the weights shifts the mean of every layer's output; the shift is subtracted again.

The shifts add up from layer to layer and cause most of an int8 file's errors. Here the weights are rounded in
simulation, on the grid that the format will use, calibration photos go through once, and every norm's running mean (or
the layer's own bias) is corrected by the difference from the exact student. The weights themselves stay as they are:
the exporter rounds them. Nagel et al. 2019, arXiv:1906.04721, section 4.2, with measured instead of predicted means.
"""

import dataclasses
from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
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
        targets = _channel_means(exact, pixels)
        with rounded_weights(model, steps, but=float_layers):
            _correct(model, pixels, targets)
    facts = {"steps": steps, "photos": len(photos)}
    save(model, out, dataclasses.replace(model.info.trained, bias_correction=facts))


def _channel_means(model: Classifier, pixels: Tensor) -> dict[str, Tensor]:
    """(C,) of what goes into each norm, and of what comes out of each layer with a bias, by name."""
    means: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in model.net.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                hook = module.register_forward_pre_hook(partial(_record_input, means, name))
                hooks.callback(hook.remove)
            elif isinstance(module, Layer) and module.bias is not None:
                hooks.callback(module.register_forward_hook(partial(_record_output, means, name)).remove)
        model(pixels)
    return means


def _correct(model: Classifier, pixels: Tensor, targets: dict[str, Tensor]) -> None:
    """One pass, layer after layer: each is corrected before the next one sees what comes out of it."""
    with ExitStack() as hooks:
        for name, module in model.net.named_modules():
            if name not in targets:
                continue
            if isinstance(module, nn.BatchNorm2d):
                hook = module.register_forward_pre_hook(partial(_correct_norm, targets[name]))
            else:
                hook = module.register_forward_hook(partial(_correct_bias, targets[name]))
            hooks.callback(hook.remove)
        model(pixels)


def _record_input(means: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    means[name] = _mean(inputs[0])


def _record_output(means: dict[str, Tensor], name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
    means[name] = _mean(output)


def _correct_norm(target: Tensor, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Move the running mean by the shift of the norm's input."""
    assert isinstance(module, nn.BatchNorm2d)
    assert module.running_mean is not None
    module.running_mean += _mean(inputs[0]) - target


def _correct_bias(target: Tensor, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    """Take the shift of the layer's output off its bias. Returns the corrected output."""
    assert isinstance(module, Layer)
    assert module.bias is not None
    missing = target - _mean(output)
    module.bias += missing
    return output + missing.view(1, -1, *[1] * (output.ndim - 2))


def _mean(values: Tensor) -> Tensor:
    """(B, C, …) → (C,)."""
    return values.mean([axis for axis in range(values.ndim) if axis != 1])
