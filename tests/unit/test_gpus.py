"""How work is spread over GPUs. There is none here: what is decided, and the paths that work on a GPU takes."""

import threading
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from potstill.compute import backends, inference
from potstill.compute.inference import one_ahead, store_features
from potstill.compute.machine import Machine
from potstill.compute.precision import Precision
from potstill.config.schema import MachineConfig, ViewsConfig
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer, draw_views
from potstill.errors import ConfigError, PotstillError
from potstill.models.classifier import build, describe
from potstill.pipeline import _with_room
from potstill.run.folder import Run, Stage
from potstill.students import job as student_job
from potstill.students.job import train_job
from potstill.students.recipe import Job, Recipe


@dataclass(frozen=True)
class _Nodes:
    """An engine whose nodes have so many GPUs, or cores, each."""

    units: tuple[int, ...]

    @property
    def largest_node(self) -> int:
        return max(self.units)

    def room(self, processes: int) -> int:
        return sum(units // processes for units in self.units) or sum(self.units) // processes


def spread(units: tuple[int, ...], *, device: str = "cuda", batch_size: int = 64, **settings: Any) -> Machine:
    config = MachineConfig(device=device, **settings)
    processes = settings.get("processes_per_training", 1)
    jobs = settings.get("jobs", 1)
    plan: Any = SimpleNamespace(
        students=SimpleNamespace(students=[SimpleNamespace(shared=SimpleNamespace(batch_size=batch_size))])
    )
    engine: Any = _Nodes(units)
    return _with_room(Machine(device, 16, jobs, config, processes=processes), engine, plan)


@pytest.mark.parametrize(
    ("units", "settings", "jobs", "processes"),
    [
        ((8,), {}, 8, 1),  # a GPU for each training
        ((8,), {"jobs": 16}, 16, 1),  # two trainings share a GPU
        ((8,), {"jobs": 2}, 2, 4),  # each training gets half of them
        ((8,), {"jobs": 1}, 1, 8),
        ((8,), {"jobs": 1, "batch_size": 4}, 1, 4),  # no process without a photo
        ((8,), {"jobs": 1, "compile": "on"}, 1, 1),
        ((4, 4), {"jobs": 1}, 1, 4),  # a training runs on one node
        ((4, 4), {"jobs": 1, "processes_per_training": 8}, 1, 8),  # unless it is told to
        ((4, 4, 1), {"processes_per_training": 3}, 2, 3),  # where none has room, not as soon as all have more
        ((3, 3), {"jobs": 2}, 2, 3),
        ((8,), {"processes_per_training": 2}, 4, 2),
        ((8,), {"processes_per_training": 4, "jobs": 3}, 3, 4),
        ((2, 2), {"device": "cpu", "jobs": 1}, 1, 1),  # on cores only when told to
        ((2, 2), {"device": "cpu", "processes_per_training": 2}, 2, 2),
    ],
)
def test_gpus_are_divided_among_trainings(
    units: tuple[int, ...], settings: dict[str, Any], jobs: int, processes: int
) -> None:
    machine = spread(units, **settings)
    assert (machine.jobs, machine.processes, machine.tasks) == (jobs, processes, jobs * processes)
    assert machine.label_speedup == min(sum(units), jobs * processes) / (16 if machine.device == "cpu" else 1)
    assert machine.spare_threads(jobs) == max(1, 16 // (jobs * processes))


def test_nodes_must_have_room_for_a_whole_training() -> None:
    with pytest.raises(ConfigError, match="processes_per_training = 5, but all nodes together have only 4 GPUs"):
        spread((2, 2), processes_per_training=5)
    with pytest.raises(ConfigError, match="have only 1 core"):
        spread((1,), device="cpu", processes_per_training=2)


def test_the_next_batch_is_read_while_one_is_worked_on() -> None:
    begun = [threading.Event() for _ in range(4)]

    def read(number: int) -> int:
        begun[number].set()
        return 10 * number

    seen = []
    for value in one_ahead(read, range(4)):
        seen.append(value)
        assert begun[min(len(seen), 3)].wait(10)
        assert not any(event.is_set() for event in begun[len(seen) + 1 :]), "one, and no more"
    assert seen == [0, 10, 20, 30]
    assert list(one_ahead(read, [])) == []


def test_labeling_beside_a_gpu_writes_the_same_bytes(
    store: PixelStore, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, model = store.rows("train"), build(describe("mobilenetv1_025", ("a", "b"), size=32)).eval()
    views, precision = draw_views(store, rows, 3, ViewsConfig()), replace(Precision.on("cpu"), batch=12)
    stored = {}
    for beside in (False, True):
        monkeypatch.setattr(inference, "leaves_cores_free", lambda device, beside=beside: beside)
        path, done = tmp_path / f"{beside}.npy", list[int]()
        writer = RowWriter(path, (len(rows), 3, model.num_features), np.float16)
        if beside:  # interrupted after a batch and a half
            writer.write(np.load(tmp_path / "False.npy")[:6])
        store_features(model, Renderer(store, rows, views, 32, threads=2), writer, precision, done.append)
        writer.close()
        stored[beside] = path.read_bytes()
        assert done == [*range(8 if beside else 4, len(rows), 4), len(rows)]
    assert stored[True] == stored[False]


def test_large_batches_are_tried_on_gpus_as_far_as_the_memory_goes(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(form: Any, size: int, precision: Any, training: bool, batch: int = 16) -> tuple[float, float]:
        if batch > 128:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return float(batch), 0.0

    monkeypatch.setattr(backends, "photos_per_second", timed)
    monkeypatch.setattr(backends, "leaves_cores_free", lambda device: True)
    machine = Machine("cpu", 1, 1, MachineConfig(precision="float32", runtime="torch"))
    model = build(describe("mobilenetv1_025", ("a", "b"), size=32))
    measured = backends.measure_inference(model, tmp_path, machine, num_views=10**9)
    assert measured.batch == 128
    assert list(measured.batch_photos_per_second) == ["32", "64", "128"]


def test_too_little_memory_is_said_with_the_way_out(
    run_copy: Run, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore of it.")

    monkeypatch.setattr(student_job, "loss_terms", full)
    recipe = Recipe(epochs=1, batch_size=8, lr=1e-3, weight_decay=0, ema=0, dtype="float32", soft_labels="")
    job = Job(tmp_path / "alone", "mobilenetv1_025", 32, "none", 0, recipe)
    Stage(job.folder, "alone").begin(job.inputs())
    with pytest.raises(PotstillError, match=r"memory of the GPU is too small: .*2 GiB.\n.*--machine.jobs"):
        train_job(job, run_copy, "cpu", lambda step: None)
