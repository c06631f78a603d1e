"""docs/how-to/extend.md: every block runs, and does what its section says."""

import contextlib
import copy
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.docs.pages import ROOT
from tests.support import TINY, draw_photo

from potstill.compute.backends import check_runtime, inference_model
from potstill.compute.precision import Precision
from potstill.config.schema import MachineConfig, ViewsConfig
from potstill.data.ops import OPS
from potstill.data.pixels import PixelStore
from potstill.data.views import draw_views, render
from potstill.errors import ConfigError
from potstill.models.classifier import build, describe
from potstill.run.files import read_json
from potstill.run.folder import Run, Stage
from potstill.students.job import train_job
from potstill.students.recipe import Job, Recipe
from potstill.training.losses import check_method

PAGE = (ROOT / "docs" / "how-to" / "extend.md").read_text("utf-8")
BLOCKS: dict[str, str] = {
    heading: block
    for heading, section in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    for block in re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
}
TESTED = {"A distillation loss", "A view operation", "An inference backend"}
"""Sections with a test of their own here; the blocks of all others assert their effect themselves."""

REGISTRIES = [
    "potstill.compute.backends.BACKENDS",
    "potstill.training.losses.METHODS",
    "potstill.data.ops.OPS",
    "potstill.get.sources.registry.SOURCES",
    "potstill.export.formats.registry.FORMATS",
    "potstill.monitoring.trackers.registry._TRACKERS",
]


@pytest.fixture(autouse=True)
def _registries_as_before(in_folder: Path) -> Iterator[None]:
    """What a block registers is gone after its test. Blocks run in an empty folder."""
    kept = []
    for name in REGISTRIES:
        module, _, attribute = name.rpartition(".")
        with contextlib.suppress(ImportError, AttributeError):
            registry = getattr(importlib.import_module(module), attribute)
            kept.append((registry, copy.copy(registry)))
    yield
    for registry, before in kept:
        registry.clear()
        registry.extend(before) if isinstance(registry, list) else registry.update(before)


def names_after(heading: str, **scope: Any) -> dict[str, Any]:
    """The names of a section's block, executed."""
    names: dict[str, Any] = {"__name__": "extension", **scope}
    exec(compile(BLOCKS[heading], f"extend.md: {heading}", "exec"), names)
    return names


def test_every_section_has_a_block() -> None:
    assert list(BLOCKS) == re.findall(r"^## (.+)$", PAGE, re.M)
    assert set(BLOCKS) >= TESTED


@pytest.mark.parametrize("heading", sorted(set(BLOCKS) - TESTED))
def test_the_block_runs(heading: str, run_copy: Run, photos: Path) -> None:
    assert "\nassert " in BLOCKS[heading]
    names_after(heading, run=run_copy, photos=photos, TINY=TINY)


def trained(method: str, run: Run, folder: Path) -> dict[str, np.ndarray]:
    """The val predictions of a student that learns by this loss alone."""
    steps = {"epochs": 1, "batch_size": 8, "lr": 1e-3, "weight_decay": 0.0, "ema": 0.0, "dtype": "float32"}
    recipe = Recipe(**steps, soft_labels="", method=method, distill_weight=1.0, task_weight=0.0)
    folder /= method
    job = Job(folder, "mobilenetv1_025", 32, "none", 0, recipe)
    Stage(folder, method).begin(job.inputs())
    train_job(job, run, "cpu", lambda step: None)
    assert read_json(folder / "model.json")["trained"]["recipe"]["method"] == method
    return dict(np.load(folder / "val_predictions.npz"))


def test_a_student_learns_by_the_new_loss(run_copy: Run, tmp_path: Path) -> None:
    loss = names_after("A distillation loss")["cosine_loss"]
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert loss(2 * logits + 5, logits) == pytest.approx(0, abs=1e-6)
    assert loss(-logits, logits) == pytest.approx(2)
    with pytest.raises(ConfigError, match='"cosine" needs at least 3 classes, there are 2: the cosine of 2'):
        check_method("cosine", 2)
    ours, others = (trained(method, run_copy, tmp_path / "jobs")["logits"] for method in ("cosine", "kl"))
    assert np.isfinite(ours).all()
    assert not np.array_equal(ours, others)


def test_views_have_the_new_operation(store: PixelStore) -> None:
    before = len(OPS)
    vignette = names_after("A view operation")["vignette"]
    photo = draw_photo("disc", 3)
    changed, plain = (np.asarray(vignette(photo, strength)).astype(int) for strength in (1.0, 0.0))
    assert (plain == np.asarray(photo)).all()
    assert changed[0, 0].sum() == pytest.approx(0.4 * plain[0, 0].sum(), abs=3)
    assert (np.abs(changed - plain)[40, 48] <= 1).all(), "the center stays"
    rows = store.rows("train")
    views = draw_views(store, rows, 20, ViewsConfig(ops=1.0, mix=0.0))
    row, number = np.argwhere((views["ops"] == before + 1).any(-1))[0]
    view = views[row, number]
    without = view.copy()
    without["ops"][view["ops"] == before + 1] = 0
    with_it, less = (render(store, int(rows[row]), v, 32).astype(int) for v in (view, without))
    assert with_it[0].sum() < less[0].sum(), "darker at the rim"


@torch.inference_mode()
def test_a_model_runs_in_the_new_backend(tmp_path: Path) -> None:
    backend = names_after("An inference backend")["ChannelsLast"]
    check_runtime(MachineConfig(runtime="channels_last"), "cpu")
    with pytest.raises(ConfigError, match="runs on cpu"):
        check_runtime(MachineConfig(runtime="channels_last"), "cuda")
    model = build(describe("mobilenetv1_025", ["a", "b"], size=32), seed=0).eval()
    precision = Precision(torch.device("cpu"), runtime="channels_last")
    converted = inference_model(model, precision, tmp_path, threads=1)
    assert isinstance(converted, backend)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert converted(pixels).numpy() == pytest.approx(model(pixels).numpy(), abs=1e-4)
