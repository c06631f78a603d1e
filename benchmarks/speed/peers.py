"""Training one student from one teacher here and in other tools: the same photos, models, size and batch, in turn.

    python benchmarks/speed/peers.py --photos FOLDER/train --scripts PEERS --python PYTHON

DenseNet-121 teaches MobileNet v1 (×1) at 128 px, batch 32, from JPEG files; no weights are needed. PEERS holds
peer_timm.py, peer_torchdistill.py and peer_keras.py, each of which trains as its tool's documentation has it and prints
one line of JSON; PYTHON has those tools installed. A peer trains one student with all threads, and its teacher looks at
every photo in every step. Potstill trains as many at once as there are cores (a student always has a twin), one thread
each; its teacher looks once, before, and what that costs is measured too: packing the photos and labeling `--views`
views of each.

Adds rows to results.csv: photos trained on per second, and whole jobs of some lengths.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

STEPS, WARMUP, BATCH, SIZE = 18, 3, 32, 128
STUDENT = "mobilenetv1_100"
LENGTHS = (30, 100)
"""Epochs of the whole jobs."""
PEERS = {
    "timm": "peer_timm.py",
    "torchdistill": "peer_torchdistill.py",
    "keras on jax": "peer_keras.py",
    "keras on torch": "peer_keras.py",
}
ENGINES = {"keras on jax": "jax", "keras on torch": "torch"}


def before_students(photos: Path, run: Any, machine: Any, teacher: Any, config: Any, views: int) -> dict[str, float]:
    """Seconds of stages 1 to 3, in order, and of rendering `views` of every photo at the student's size; `config` is
    that of views."""
    from potstill.compute.quick_resize import quick_bicubic
    from potstill.config.schema import ImagesConfig
    from potstill.context import Context
    from potstill.data.soft_labels import SoftLabels
    from potstill.images.folder import read_folder
    from potstill.images.plan import ImagesPlan
    from potstill.images.stage import collect_images
    from potstill.monitoring.progress import Reporter
    from potstill.soft_labels.plan import SoftLabelsPlan
    from potstill.soft_labels.stage import store_soft_labels
    from potstill.students.stage import render_views
    from potstill.teacher.plan import TeacherPlan
    from potstill.teacher.stage import train_teacher

    context = Context(run, machine, Reporter(quiet=True))
    clock = [time.perf_counter()]
    collect_images(
        ImagesPlan(read_folder(photos), ImagesConfig(test_share=0.1), teacher.size), context, resize=quick_bicubic
    )
    clock.append(time.perf_counter())
    train_teacher(TeacherPlan(teacher, config, (teacher.size,) * len(teacher.model)), context)
    clock.append(time.perf_counter())
    store_soft_labels(SoftLabelsPlan(teacher.model, config, views), context)
    clock.append(time.perf_counter())
    render_views(SIZE, 8.0, SoftLabels.open(run), context)
    clock.append(time.perf_counter())
    taken = [b - a for a, b in itertools.pairwise(clock)]
    return dict(zip(("packing", "teacher", "labels", "rendering"), taken, strict=True))


def ours(photos: Path, views: int) -> dict[str, Any]:
    """Stages 1 to 3 with their times, then two trainings side by side, one thread each, as a run trains them."""
    from potstill.compute.device import decide
    from potstill.compute.selection import fastest_precision
    from potstill.config.schema import MachineConfig, TeacherConfig, ViewsConfig
    from potstill.data.soft_labels import SoftLabels
    from potstill.models.classifier import build, describe
    from potstill.run.folder import Run

    machine = decide(MachineConfig())
    teacher = TeacherConfig(model=("densenet121",), weights="none", size=SIZE, folds=0, min_gain=0, probe_views=0)
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(Path(temporary) / "run")
        before = before_students(photos, run, machine, teacher, ViewsConfig(), views)
        student = build(describe(STUDENT, run.classes(), size=SIZE))
        precision, _ = fastest_precision(student, SIZE, machine, training=True)
        dtype = precision.name
        command = [sys.executable, __file__, "--train", str(run.path), "--dtype", dtype]
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=alone) for _ in range(machine.jobs)]
        rates = [float(process.communicate()[0]) for process in running]
        return {
            "tool": "potstill",
            "images_per_second": sum(rates),
            "before_seconds": sum(before.values()),
            "before": before,
            "photos": len(SoftLabels.open(run).photos),
            "dtype": dtype,
        }


def train(folder: Path, dtype: str) -> float:
    """Photos per second of one training on the stored soft labels, in this process, on one thread."""
    import torch

    from potstill.compute.precision import Precision
    from potstill.data.pixels import PixelStore
    from potstill.data.soft_labels import SoftLabels
    from potstill.models.classifier import build, describe
    from potstill.run.folder import Run
    from potstill.students.batches import batches
    from potstill.students.loss import loss_of
    from potstill.students.recipe import Job, Recipe
    from potstill.training.loop import Callbacks, Schedule, Task, fit

    torch.set_num_threads(1)
    run = Run(folder)
    store, soft = PixelStore(run.images), SoftLabels.open(run)
    recipe = Recipe(
        epochs=1,
        batch_size=BATCH,
        lr=1e-3,
        weight_decay=0.02,
        ema=0.998,
        dtype=dtype,
        soft_labels="",
        distill_weight=1.0,
        feature_weight=1.0,
        task_weight=0.3,
    )
    model = build(describe(STUDENT, run.classes(), size=SIZE))
    model.to(memory_format=torch.channels_last)
    projector = torch.nn.Linear(model.num_features, soft.features.shape[-1])
    trained = torch.nn.ModuleDict({"model": model, "projector": projector})
    precision = Precision(torch.device("cpu"), getattr(torch, dtype))
    batch = batches(Job(run.path, STUDENT, SIZE, "none", 0, recipe), run, store, soft)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        fit(
            Task(trained=trained, batch=batch, loss=lambda data: loss_of(data, recipe, trained)),
            Schedule(steps=STEPS, lr=1e-3, weight_decay=0.02, ema=0.998),
            precision,
            checkpoint=Path(temporary) / "checkpoint.safetensors",
            callbacks=Callbacks(after_step=lambda step, loss: times.append(time.perf_counter())),
        )
    return (STEPS - WARMUP) * BATCH / (times[-1] - times[WARMUP - 1])


def said(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """The JSON line that a script prints last."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Alternate all tools, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files in class folders")
    parser.add_argument("--scripts", type=Path, help="the folder of the peers' scripts")
    parser.add_argument("--python", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(train(arguments.train, arguments.dtype))
        return
    if arguments.ours:
        print(json.dumps(ours(arguments.photos, arguments.views)))
        return
    here = [sys.executable, __file__, "--ours", "--photos", str(arguments.photos), "--views", str(arguments.views)]
    steps = ["--steps", str(STEPS), "--warmup", str(WARMUP), "--batch-size", str(BATCH), "--image-size", str(SIZE)]
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in ("potstill", *arguments.peers)}
    for _ in range(arguments.rounds):
        answers["potstill"].append(said(here, {}))
        for name in arguments.peers:
            command = [arguments.python, str(arguments.scripts / PEERS[name]), "--data", str(arguments.photos), *steps]
            command += ["--threads", str(arguments.threads), "--workers", "-1" if "keras" in name else "2"]
            answers[name].append(said(command, {"KERAS_BACKEND": ENGINES.get(name, "")}))
        print({name: round(all_of[-1]["images_per_second"], 1) for name, all_of in answers.items()}, flush=True)
    write(answers, arguments.views, arguments.out)


def write(answers: dict[str, list[dict[str, Any]]], views: int, out: Path) -> None:
    """One row per peer for the training alone, and one per peer and length for the whole job."""
    from run import Row, add_rows

    rows = []
    mine = answers.pop("potstill")
    photos = mine[0]["photos"]
    for name, theirs in answers.items():
        versions = " ".join(f"{tool} {number}" for tool, number in theirs[0]["versions"].items())
        pairs = [(a["images_per_second"], b["images_per_second"]) for a, b in zip(mine, theirs, strict=True)]
        rows.append(row_of(Row, f"student training / {name}", "photos per s", "≥ 3", pairs, versions))
        for epochs in LENGTHS:
            whole = [
                (a["before_seconds"] + epochs * photos / rate, epochs * photos / other)
                for a, (rate, other) in zip(mine, pairs, strict=True)
            ]
            what = f"whole job, {photos:,} photos, {views} views, {epochs} epochs / {name}"
            rows.append(row_of(Row, what, "s", "≤ 1/3", whole, versions))
    add_rows(out, rows)


def row_of(kind: Any, what: str, unit: str, goal: str, pairs: list[tuple[float, float]], versions: str) -> Any:
    ratios = [a / b for a, b in pairs]
    sides = [statistics.median(side) for side in zip(*pairs, strict=True)]
    middle = statistics.median(ratios)
    return kind(what, *sides, middle, min(ratios), max(ratios), len(pairs), unit, goal, versions=versions)


if __name__ == "__main__":
    main()
