"""A model that several processes train together is the one that a single process trains, up to rounding, and stays so
where processes are killed."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.behavior.rank_worker import FAILURE
from tests.support import TINY, processes_of

import potstill
from potstill.compute.device import decide
from potstill.config.schema import MachineConfig
from potstill.engines.engine import Engine
from potstill.engines.local import LocalEngine
from potstill.errors import ConfigError, DataError, PotstillError
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, sha256_of, write_json
from potstill.run.folder import Stage
from potstill.students.recipe import Job, Recipe
from potstill.training.ranks import Part, Ranks

RECIPE = Recipe(
    epochs=3,
    batch_size=7,  # parts of unequal size
    lr=5e-4,
    weight_decay=0.02,
    ema=0.99,
    dtype="float32",
    soft_labels="",
    method="dist",
    temperature=2.0,
    distill_weight=1.0,
    feature_weight=1.0,
    task_weight=0.3,
    last_epochs=2,
)

Train = Callable[..., Path]


def train_tiny(engine: Engine, run: Path, folder: Path, processes: int, **failure: object) -> None:
    """Train a student of a run into a folder."""
    job = Job(folder, "mobilenetv1_025", 32, "none", 0, RECIPE)
    assert Stage(folder, folder.name).begin(job.inputs())
    write_json(folder / "job.json", job.to_json())
    write_json(folder / FAILURE, {"rank": -1, "step": 0, "how": "", **failure})
    write_json(folder / "worker.json", {"run": str(run), "folder": str(folder), "threads": 1, "device": "cpu"})
    engine.start("tests.behavior.rank_worker", folder / "worker.json", threads=1, processes=processes).check()


@pytest.fixture(scope="module")
def train(tiny_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Train:
    """`train(name, processes)` trains a student of the tiny run. Returns its folder."""
    root = tmp_path_factory.mktemp("students")

    def train(name: str, processes: int, **failure: object) -> Path:
        train_tiny(LocalEngine(), tiny_run.path, root / name, processes, **failure)
        return root / name

    return train


@pytest.fixture(scope="module")
def alone(train: Train) -> Path:
    return train("alone", 1)


@pytest.fixture(scope="module")
def together(train: Train) -> Path:
    return train("together", 2)


def difference(first: Path, second: Path) -> float:
    """The largest of two models' weights, as a share of the largest weight of its tensor."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert ours.keys() == theirs.keys()
    return max(float((ours[n] - theirs[n]).abs().max() / ours[n].abs().max().clamp(min=1e-3)) for n in ours)


def losses(folder: Path) -> np.ndarray:
    """(lines, terms) of metrics.jsonl."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == len({line["step"] for line in lines}) > 5
    return np.array([[value for value in line.values() if value is not None] for line in lines])


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(alone: Path, together: Path) -> None:
    assert difference(alone, together) < 1e-6
    assert losses(together) == pytest.approx(losses(alone), rel=1e-6)
    ours, theirs = (np.load(folder / "val_predictions.npz")["logits"] for folder in (alone, together))
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert sorted(path.name for path in together.glob("rank-*/*")) == ["worker.json"] * 2, (
        "the first alone writes files"
    )


@pytest.mark.slow
def test_killed_and_begun_again_it_ends_with_the_same_weights(train: Train, together: Path) -> None:
    started = time.monotonic()
    with pytest.raises(PotstillError, match="Process 2 of 2 was killed by signal 9"):
        train("killed", 2, rank=1, step=9, how="killed")
    assert time.monotonic() - started < 300, "the other does not wait for it"
    assert processes_of(together.parent) == []
    folder = train("killed", 2)
    assert sha256_of(folder / "model.safetensors") == sha256_of(together / "model.safetensors")


@pytest.mark.slow
@pytest.mark.long
def test_it_goes_on_with_another_number_of_processes(train: Train, alone: Path) -> None:
    with pytest.raises(PotstillError, match="Process 1 of 3 was killed"):
        train("fewer", 3, rank=0, step=9, how="killed")
    assert difference(train("fewer", 1), alone) < 1e-6


@pytest.mark.slow
@pytest.mark.long
def test_the_error_is_that_of_the_process_that_failed(train: Train) -> None:
    with pytest.raises(DataError, match="It says why"):
        train("refuses", 2, rank=1, step=2, how="refuses")


@pytest.mark.slow
@pytest.mark.long
def test_a_run_with_two_processes_per_training(photos: Path, tiny_run: "potstill.Result") -> None:
    settings = {**TINY, "machine.processes_per_training": 2, "machine.reuse": "on", "seeds": 1}
    result = potstill.distill(
        photos, settings=settings, run=tiny_run.path.with_name("ranks"), reporter=Reporter(quiet=True)
    )
    assert read_json(result.path / "environment.json")["machine"]["processes"] == 2
    assert not list(result.path.rglob("rank-*")), "nothing is left of them"
    assert len(result.comparison.students) == 1


def test_parts_are_all_of_the_batch_in_its_order() -> None:
    for photos in (2, 7, 64):
        for count in range(1, min(photos, 5) + 1):
            parts = [np.arange(photos)[Part(Ranks(rank, count), photos).rows] for rank in range(count)]
            assert np.concatenate(parts).tolist() == list(range(photos))
            assert min(map(len, parts)) > 0


def test_more_processes_than_photos_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 photos only, too few for 3 processes"):
        Part(Ranks(0, 3), 2)
    settings = {**TINY, "machine.processes_per_training": 9}
    with pytest.raises(
        ConfigError, match=r"processes_per_training = 9, but there are only \d photos in a training step"
    ):
        potstill.distill(photos, settings=settings, run=tmp_path / "run", reporter=Reporter(quiet=True))
    assert not (tmp_path / "run" / "1_images").exists(), "before long work"


def test_what_several_processes_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"cannot be combined with machine.compile"):
        decide(MachineConfig(device="cpu", processes_per_training=2, compile="on"))
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device: zeros(*size))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="processes_per_training = 3, but the number of GPUs here is 2"):
        decide(MachineConfig(device="cuda", processes_per_training=3))
    with pytest.raises(ConfigError, match="is a single device"):
        decide(MachineConfig(device="cuda:1", processes_per_training=2))
    assert decide(MachineConfig(device="cuda", processes_per_training=2)).processes == 2
