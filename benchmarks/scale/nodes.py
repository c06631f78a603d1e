"""How much faster two nodes of a Ray cluster are than one, and what Ray itself costs, with a core of this machine each.

    python benchmarks/scale/nodes.py

The soft-label stage and a batch of trainings are timed with one core in this process, then on one Ray node with one
core, then on two. It needs two idle cores and takes about ten minutes; a row for each kind of work is added to
nodes.csv. `--tiny` only shows that it works, and writes nothing.
"""

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# OpenMP's are read when torch is imported. Ray's workers would yield to anything else that runs.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "RAY_worker_niceness": "0"}

import torch
from benchmarks.scale.index_shards import hardware
from ray.cluster_utils import Cluster
from tests.support import make_photos, teach

from potstill.compute.machine import Machine
from potstill.config.schema import ImagesConfig, MachineConfig, TeacherConfig, ViewsConfig
from potstill.context import Context
from potstill.data.soft_labels import SoftLabels
from potstill.engines.engine import Engine
from potstill.engines.local import LocalEngine
from potstill.engines.opening import open_engine
from potstill.images.plan import ImagesPlan
from potstill.images.source import open_photos
from potstill.images.stage import collect_images
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run
from potstill.soft_labels.plan import SoftLabelsPlan
from potstill.soft_labels.stage import store_soft_labels
from potstill.students.recipe import Job, Recipe
from potstill.students.runner import JobRunner
from potstill.students.stage import render_views

RESULTS = Path(__file__).with_name("nodes.csv")
COLUMNS = (
    "work", "one_core_seconds", "one_node_seconds", "two_nodes_seconds", "ray_cost", "speedup",
    "n", "goals", "hardware", "load", "date", "command",
)  # fmt: skip
GOALS = "speedup ≥ 1.8, ray_cost ≤ 5 %"
TEACHER = TeacherConfig(model=("efficientnet_lite0",), weights="package", size=128, train="probe", probe_views=1,
                        probe_epochs=1, probe_min_steps=10, folds=2)  # fmt: skip
STUDENT, SIZE = "mobilenetv1_025", 64


def context(run: Run, engine: Engine, nodes: int) -> Context:
    """With so many cores, each of which does one thing at a time."""
    config = MachineConfig(device="cpu", precision="float32", runtime="torch", label_batch=32)
    return Context(run, Machine("cpu", 1, nodes, config), Reporter(quiet=True), engine)


def prepared(folder: Path, photos: int) -> Run:
    """A run with packed photos and a teacher."""
    data, run = make_photos(folder / "photos", {"train": photos // 3, "test": 4}), Run(folder / "prepared")
    run.create("", "")
    images = ImagesConfig(margin=1.0)
    here = context(run, LocalEngine(), 1)
    collect_images(ImagesPlan(open_photos(data, images, runs=folder), images, 128), here)
    teach(TEACHER, ViewsConfig(), here)
    return run


def labeling_seconds(run: Run, target: Path, views: int, engine: Engine, nodes: int) -> float:
    """Of the soft-label stage, in a new run."""
    new = linked(run, target, ("images", "teacher"))
    started = time.perf_counter()
    store_soft_labels(SoftLabelsPlan(TEACHER.model, ViewsConfig(), views), context(new, engine, nodes))
    return time.perf_counter() - started


def training_seconds(run: Run, target: Path, epochs: int, trainings: int, engine: Engine, nodes: int) -> float:
    """Of so many trainings, in a new run with rendered views."""
    new = linked(run, target, ("images", "teacher", "soft_labels"))
    digest = new.stage("3_soft_labels").digest()
    recipe = Recipe(epochs=epochs, batch_size=64, lr=3e-3, weight_decay=0.02, ema=0.998, dtype="float32",
                    soft_labels=digest, distill_weight=1.0, feature_weight=1.0, task_weight=0.3)  # fmt: skip
    jobs = [
        Job(new.students / "student" / f"seed-{seed}" / "distilled", STUDENT, SIZE, "none", seed, recipe)
        for seed in range(trainings)
    ]
    render_views(SIZE, 8.0, SoftLabels.open(new), context(new, LocalEngine(), 1))
    started = time.perf_counter()
    JobRunner(context(new, engine, nodes)).run(jobs, "trainings", 1)
    return time.perf_counter() - started


def linked(run: Run, target: Path, stages: tuple[str, ...]) -> Run:
    """A new run with finished stages of another one."""
    new = Run(target)
    new.path.mkdir()
    for stage in stages:
        getattr(new, stage).symlink_to(getattr(run, stage))
    return new


@contextmanager
def ray_nodes() -> Iterator[Callable[[], Any]]:
    """A cluster without cores, and what adds a node of one core."""
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(p).resolve()) for p in ("src", "."))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield lambda: cluster.add_node(num_cpus=1)
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=45.0, help="of each kind of work, with one core")
    parser.add_argument("--trainings", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if args.tiny:
        args.photos, args.seconds, args.rounds, args.trainings = 60, 1.0, 1, 2
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    on_ray = MachineConfig(engine="ray", device="cpu")
    with tempfile.TemporaryDirectory() as temporary, ray_nodes() as add_node:
        folder = Path(temporary)
        run = prepared(folder, args.photos)
        number = iter(range(10**6))

        def label(engine: Engine, nodes: int, views: int) -> float:
            return labeling_seconds(run, folder / f"run-{next(number)}", views, engine, nodes)

        def train(engine: Engine, nodes: int, epochs: int) -> float:
            return training_seconds(labeled, folder / f"run-{next(number)}", epochs, args.trainings, engine, nodes)

        # How much work takes the seconds that were asked for: more than the smallest amount by what that takes.
        slope = label(LocalEngine(), 1, 4) - label(LocalEngine(), 1, 2)
        views = max(4, round(2 * args.seconds / max(slope, 0.05)))
        labeled = linked(run, folder / "labeled", ("images", "teacher"))
        store_soft_labels(SoftLabelsPlan(TEACHER.model, ViewsConfig(), 8), context(labeled, LocalEngine(), 1))
        slope = train(LocalEngine(), 1, 4) - train(LocalEngine(), 1, 2)
        epochs = max(4, round(2 * args.seconds / max(slope, 0.05)))
        work = {
            f"soft labels: {args.photos} photos, {views} views, EfficientNet-Lite0 at 128 px": (label, views),
            f"{args.trainings} trainings: MobileNet v1 ×0.25 at {SIZE} px, {epochs} epochs": (train, epochs),
        }
        found: dict[str, list[list[float]]] = {title: [[], [], []] for title in work}
        for nodes in (0, 1, 2):
            if nodes:
                add_node()
            for _ in range(args.rounds):
                with open_engine(on_ray, "cpu", folder) if nodes else nothing() as engine:
                    # Ray starts the workers of a node once, with the first task.
                    started = time.perf_counter()
                    label(engine, max(nodes, 1), 2)
                    print(f"{nodes} nodes: {time.perf_counter() - started:.1f} s to start and a small task", flush=True)
                    for title, (measure, amount) in work.items():
                        found[title][nodes].append(measure(engine, max(nodes, 1), amount))
                        print(f"{nodes} nodes: {found[title][nodes][-1]:.1f} s, {title}", flush=True)
    rows = [row(title, *map(statistics.median, seconds), args, load) for title, seconds in found.items()]
    for values in rows:
        print(dict(zip(COLUMNS, values, strict=True)))
    if not args.tiny:
        write(rows)


@contextmanager
def nothing() -> Iterator[Engine]:
    """This process."""
    yield LocalEngine()


def row(title: str, here: float, one: float, two: float, args: argparse.Namespace, load: float) -> list[Any]:
    """Of the result, from the median seconds."""
    command = "python benchmarks/scale/nodes.py"
    if (args.photos, args.seconds, args.trainings, args.rounds) != (600, 45.0, 4, 2):
        command += f" --photos {args.photos} --seconds {args.seconds:g} --trainings {args.trainings}"
        command += f" --rounds {args.rounds}"
    seconds = [round(value, 1) for value in (here, one, two)]
    cost, date = f"{one / here - 1:+.1%}", datetime.now(UTC).date().isoformat()
    return [title, *seconds, cost, round(one / two, 2), args.rounds, GOALS, hardware(), round(load, 1), date, command]


def write(rows: list[list[Any]]) -> None:
    """Add rows to the results."""
    new = not RESULTS.is_file()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows] if new else rows)


if __name__ == "__main__":
    main()
