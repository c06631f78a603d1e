"""The layers that stay float: few, small, and those that matter."""

from pathlib import Path

import numpy as np
import torch
from tests.export.conftest import STUDENT

from potstill.export.int8.candidates import calibration_photos
from potstill.export.int8.rounding import RoundedInput, layers_of, rounded_weights
from potstill.export.int8.sensitivity import LAYER_SHARE, PHOTOS, WEIGHT_SHARE, sensitive_layers
from potstill.models.classifier import load, normalize
from potstill.run.folder import Run


def _moved(student: Path, photos: np.ndarray, but: tuple[str, ...]) -> float:
    """Mean total variation of the probabilities when all layers are rounded but these."""
    model = load(student).eval()
    pixels = normalize(torch.from_numpy(photos), model.info)
    inputs = {name: RoundedInput() for name in layers_of(model, but=but)}
    for name, layer in layers_of(model, but=but).items():
        layer.register_forward_pre_hook(inputs[name])
    with torch.inference_mode():
        exact = model(pixels).softmax(-1)
        for rounding in inputs.values():
            rounding.seeing = False
        with rounded_weights(model, 64, but=but):
            return float((model(pixels).softmax(-1) - exact).abs().sum(-1).mean() / 2)


def test_they_are_few_and_small_and_make_most_of_the_error(taught_run: Run) -> None:
    student = taught_run.students / STUDENT / "seed-0/distilled"
    info = load(student).info
    photos = calibration_photos(taught_run, info, plain=True, most=PHOTOS)
    names = sensitive_layers(student, photos, steps=64)
    layers = layers_of(load(student))
    weights = {name: layer.weight.numel() for name, layer in layers.items()}
    assert 0 < len(names) <= np.ceil(LAYER_SHARE * len(layers))
    assert sum(weights[name] for name in names) <= WEIGHT_SHARE * sum(weights.values())
    assert "conv_stem" in names, "see test_int8_tries_its_candidates"
    others = tuple(sorted(set(layers) - set(names), key=lambda name: weights[name]))[: len(names)]
    all_rounded = _moved(student, photos, ())
    assert _moved(student, photos, names) < 0.7 * all_rounded
    assert _moved(student, photos, names) < _moved(student, photos, others)


def test_probing_changes_nothing(taught_run: Run) -> None:
    student = taught_run.students / STUDENT / "seed-0/distilled"
    photos = calibration_photos(taught_run, load(student).info, plain=True, most=4)
    before = (student / "model.safetensors").read_bytes()
    assert sensitive_layers(student, photos, steps=64) == sensitive_layers(student, photos, steps=64)
    assert (student / "model.safetensors").read_bytes() == before
