"""`torch.compile` is tried in long trainings only, taken where it pays, and never where it changes the losses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from potstill.compute import compile as compiling
from potstill.compute.compile import LONG_SECONDS, decide_compile
from potstill.compute.machine import Machine
from potstill.compute.precision import Precision
from potstill.compute.timing import Workload
from potstill.config.schema import MachineConfig
from potstill.run.files import read_json
from potstill.run.folder import Run, Stage
from potstill.students.job import train_job
from potstill.students.recipe import Job, Recipe

FLOAT32 = Precision(torch.device("cpu"))
PHOTOS = int(LONG_SECONDS * 1000)
"""That a model of 1000 photos per second trains on in the shortest time that counts as long."""


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _Other(nn.Module):
    """What a compiler might make of a model: `factor` times its answers."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, pixels: Tensor) -> Tensor:
        return self.factor * self.model(pixels)


def compiled_as(monkeypatch: pytest.MonkeyPatch, *, factor: float, speed: float) -> None:
    """Compiling gives `factor` times the answers, at `speed` times the speed."""
    monkeypatch.setattr(compiling.torch, "compile", lambda model: _Other(model, factor))
    monkeypatch.setattr(
        compiling,
        "photos_per_second",
        lambda form, *_, **__: (1000.0 * (speed if isinstance(form, _Other) else 1.0), 0.0),
    )


def decided(asked: Any = "auto", *, photos: int = 100 * PHOTOS) -> tuple[bool, dict[str, Any]]:
    work = Workload(size=16, batch=4, photos=photos, trainings=2)
    return decide_compile(model(), work, FLOAT32, Machine("cpu", 1, 1, MachineConfig(compile=asked)), 1000.0)


def test_short_trainings_do_not_try(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_as(monkeypatch, factor=1.0, speed=5.0)
    assert decided(photos=PHOTOS - 1) == (False, {})
    assert decided(photos=PHOTOS + 1)[0]


@pytest.mark.parametrize(("factor", "speed", "taken"), [(1.0, 1.2, True), (1.0, 1.05, False), (1.5, 2.0, False)])
def test_it_is_taken_where_it_is_faster_and_the_same(
    monkeypatch: pytest.MonkeyPatch, factor: float, speed: float, taken: bool
) -> None:
    compiled_as(monkeypatch, factor=factor, speed=speed)
    compiled, trial = decided()
    assert compiled is taken
    assert trial["same_losses"] is (factor == 1.0)
    assert trial["photos_per_second"] == 1000 * speed


def test_what_the_user_sets_is_not_questioned(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_as(monkeypatch, factor=1.0, speed=5.0)
    assert decided("off") == (False, {})
    assert decided("on", photos=1) == (True, {})


def test_no_compiler_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: nn.Module) -> nn.Module:
        raise RuntimeError("InvalidCxxCompiler")

    monkeypatch.setattr(compiling.torch, "compile", fail)
    assert decided() == (False, {})


@pytest.mark.slow
def test_the_real_compiler_gives_the_same_losses_and_leaves_the_model_alone() -> None:
    plain = model()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    work = Workload(size=16, batch=4, photos=100 * PHOTOS, trainings=2)
    _, trial = decide_compile(plain, work, FLOAT32, Machine("cpu", 1, 1), 1000.0)
    assert trial["same_losses"]
    assert trial["seconds"] > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.slow
@pytest.mark.long
def test_a_compiled_training_ends_like_a_plain_one(run_copy: Run, tmp_path: Path) -> None:
    soft = run_copy.stage("3_soft_labels").digest()
    plain = Recipe(epochs=1, batch_size=8, lr=5e-4, weight_decay=0.02, ema=0.9, dtype="float32", soft_labels=soft)
    plain = replace(plain, distill_weight=1.0, feature_weight=1.0)
    logits = {}
    for recipe in (plain, replace(plain, compile=True)):
        folder = tmp_path / f"compiled-{recipe.compile}" / "distilled"
        job = Job(folder, "mobilenetv1_025", 32, "none", 0, recipe)
        assert Stage(folder, "distilled").begin(job.inputs())
        train_job(job, run_copy, "cpu", lambda step: None)
        assert read_json(folder / "model.json")["trained"]["recipe"]["compile"] is recipe.compile
        logits[recipe.compile] = np.load(folder / "val_predictions.npz")["logits"]
    assert np.abs(logits[True] - logits[False]).max() < 0.1 * np.abs(logits[False]).max()
    assert job.inputs() == replace(job, recipe=plain).inputs(), "a finished training serves both"
