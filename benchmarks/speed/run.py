"""How near the run comes to the machine's own speed: ratios, both sides measured in turn in this one process.

    python benchmarks/speed/run.py --photos FOLDER [--parts packing]

prints the table and writes results.csv. FOLDER has JPEG files in class folders; it is only read.
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from synthetic import synthetic_run
from torch import nn

from potstill.compute.backends import inference_model, measure_inference, title_of
from potstill.compute.device import decide, environment
from potstill.compute.inference import BATCH, outputs, store_features
from potstill.compute.precision import Precision
from potstill.compute.quick_resize import quick_bicubic
from potstill.config.schema import ImagesConfig, MachineConfig, ViewsConfig
from potstill.context import Context
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer, draw_views
from potstill.images.folder import read_folder
from potstill.images.pack import PROCESSES_FROM
from potstill.images.plan import ImagesPlan
from potstill.images.stage import collect_images
from potstill.models.classifier import build, describe
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run
from potstill.students.batches import batches
from potstill.students.loss import loss_of
from potstill.students.recipe import Job, Recipe
from potstill.training.loop import Schedule, Task, fit

TWIN = Recipe(epochs=1, batch_size=64, lr=1e-3, weight_decay=0.02, ema=0.998, dtype="float32", soft_labels="")
STUDENT = replace(TWIN, temperature=2.0, distill_weight=1.0, feature_weight=1.0, task_weight=0.3)
REPEATS = 7
PARTS = ("training", "training-224", "packing", "labeling", "start", "memory")
QUIET = Reporter(quiet=True)


@dataclass
class Row:
    """One line of results.csv. `ratio` is ours / reference, the median over the repeats, between min and max."""

    what: str
    ours: float
    reference: float
    ratio: float
    min: float
    max: float
    n: int
    unit: str
    goal: str
    hardware: str = ""
    versions: str = ""


def in_turn(what: str, unit: str, goal: str, ours: Callable[[], float], reference: Callable[[], float]) -> Row:
    """Measure both sides REPEATS times, one after the other, after one go of each to warm up."""
    ours(), reference()
    pairs = [(ours(), reference()) for _ in range(REPEATS)]
    ratios = [a / b for a, b in pairs]
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    return Row(what, a, b, statistics.median(ratios), min(ratios), max(ratios), REPEATS, unit, goal)


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def training_rows(run: Run, name: str, size: int, steps: int, loop_goal: str = "≤ 1.05") -> list[Row]:
    """One step and the whole loop of a student, against the same student alone on one batch that stays in memory."""
    torch.set_num_threads(1)
    precision = Precision(torch.device("cpu"))
    store, soft = PixelStore(run.images), SoftLabels.open(run)

    def side(recipe: Recipe) -> tuple[nn.ModuleDict, Callable, Callable]:
        model = build(describe(name, run.classes(), size=size))
        model.to(memory_format=torch.channels_last)
        trained = nn.ModuleDict({"model": model})
        if recipe.feature_weight:
            trained["projector"] = nn.Linear(model.num_features, soft.features.shape[-1])
        job = Job(run.path, name, size, "none", 0, recipe)
        batch = batches(job, run, store, soft)
        return trained, batch, lambda data: loss_of(data, recipe, trained)

    def loop(recipe: Recipe, *, resident: bool) -> Callable[[], float]:
        trained, batch, loss = side(recipe)
        kept = batch(0)
        read = (lambda step: kept) if resident else batch
        schedule = Schedule(steps=steps, lr=1e-4, weight_decay=0.02, ema=0.998)
        folder = tempfile.TemporaryDirectory()

        def work() -> float:
            target = Path(folder.name) / "checkpoint.safetensors"
            target.unlink(missing_ok=True)
            return (
                seconds_of(
                    lambda: fit(Task(trained=trained, batch=read, loss=loss), schedule, precision, checkpoint=target)
                )
                / steps
            )

        return work

    plain = loop(TWIN, resident=True)
    what = f"{name} at {size} px, 1 thread"
    return [
        in_turn(f"distillation step / plain step: {what}", "s per step", "≤ 1.03", loop(STUDENT, resident=True), plain),
        in_turn(f"whole loop / plain step: {what}", "s per step", loop_goal, loop(STUDENT, resident=False), plain),
    ]


def packing_row(photos: Path, side: int) -> Row:
    """Decoding, checking, hashing and packing, against decoding alone with all cores and the same scaled decoding."""
    files = read_folder(photos).files
    cores = decide(MachineConfig()).cores
    short = round(ImagesConfig().margin * side)

    def pack() -> float:
        with tempfile.TemporaryDirectory() as folder:
            plan = ImagesPlan(read_folder(photos), ImagesConfig(test_share=0.1), side)
            context = Context(Run(Path(folder)), decide(MachineConfig()), QUIET)
            took = seconds_of(lambda: collect_images(plan, context, resize=quick_bicubic))
        return len(files) / took

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.draft("RGB", (short, short))
            image.load()

    def bare() -> float:
        with ThreadPoolExecutor(cores) as pool:
            return len(files) / seconds_of(lambda: list(pool.map(lambda file: decode(file.path), files)))

    with Image.open(files[0].path) as image:
        shown = f"{len(files):,} photos like {image.width} × {image.height}"
    return in_turn(f"packing / bare JPEG decoding, {shown}, {cores} cores", "photos per s", "≥ 0.8", pack, bare)


def enlarged(photos: Path, target: Path, *, factor: int = 4, most: int = 60) -> Path:
    """A folder of the first photos of each class, enlarged to the size of photos from a telephone."""
    for folder in sorted(path for path in photos.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:most]:
            with Image.open(path) as image:
                large = image.convert("RGB").resize((image.width * factor, image.height * factor))
            large.save(target / folder.name / path.name, "JPEG", quality=90)
    return target


def multiplied(photos: Path, target: Path, *, count: int = PROCESSES_FROM) -> Path:
    """A folder of so many photos, no two alike: random parts of the photos, at their size."""
    files, draw = read_folder(photos).files, np.random.default_rng(0)
    for number in range(count):
        file = files[number % len(files)]
        folder = target / file.path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(file.path) as image:
            share, left, top = draw.uniform(0.5, 0.9), draw.uniform(), draw.uniform()
            width, height = share * image.width, share * image.height
            x, y = left * (image.width - width), top * (image.height - height)
            part = image.convert("RGB").resize(image.size, box=(x, y, x + width, y + height))
        part.save(folder / f"{number}.jpg", "JPEG", quality=90)
    return target


def labeling_rows(photos: Path, name: str, size: int) -> list[Row]:
    """Rendering, labeling and storing views, against the teacher's answers to one batch that stays in memory; and
    what the form that answers is worth, against the model as it was trained."""
    machine = decide(MachineConfig())
    torch.set_num_threads(machine.cores)
    model = build(describe(name, ["a", "b"], size=size)).eval()
    model.to(memory_format=torch.channels_last)
    exact = Precision(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        precision = measure_inference(model, Path(folder), machine, num_views=1_000_000).precision(machine.device)
        backbone = inference_model(model, precision, Path(folder), threads=machine.cores)
        plan = ImagesPlan(read_folder(photos), ImagesConfig(test_share=0.1), size)
        store = collect_images(plan, Context(Run(Path(folder) / "run"), machine, QUIET))
        rows = store.rows("train")[:64]
        views = draw_views(store, rows, 4, ViewsConfig())
        renderer = Renderer(store, rows, views, size, threads=machine.cores)
        batch = renderer(np.arange(BATCH), np.zeros(BATCH, int))

        def label() -> float:
            writer = RowWriter(Path(folder) / "features.npy", (*views.shape, model.num_features), np.float16)
            took = seconds_of(lambda: store_features(backbone, renderer, writer, precision, lambda done: None))
            writer.close()
            return views.size / took

        def bare(asked: nn.Module, precision: Precision, times: int) -> Callable[[], float]:
            return lambda: times * BATCH / seconds_of(lambda: [outputs(asked, batch, precision) for _ in range(times)])

        times = views.size // BATCH
        what = f"{name} at {size} px, {machine.cores} threads"
        quick = bare(backbone, precision, times)
        return [
            in_turn(
                f"teacher labeling / bare inference: {what}, {title_of(precision)}",
                "views per s",
                "≥ 0.95",
                label,
                quick,
            ),
            in_turn(
                f"{title_of(precision)}, norms folded / float32 as trained, inference: {what}",
                "views per s",
                "",
                bare(backbone, precision, 3),
                bare(model, exact, 3),
            ),
        ]


def start_rows() -> list[Row]:
    """Seconds until something is there, beside those of an empty Python."""

    def run(*arguments: str) -> Callable[[], float]:
        return lambda: seconds_of(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))

    empty = run("-c", "pass")
    return [
        in_turn("import potstill / empty Python", "s", "≤ 0.3 s", run("-c", "import potstill"), empty),
        in_turn("potstill --help / empty Python", "s", "≤ 0.3 s", run("-m", "potstill", "--help"), empty),
    ]


def memory_row(folder: Path, few: int, many: int) -> Row:
    """Peak memory of a process that trains 20 steps, with few photos and with many."""

    def peak(photos: int) -> float:
        run = synthetic_run(folder / f"{photos}", photos, side=74, width=64)
        command = [sys.executable, __file__, "--train", str(run.path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout)

    small, large = peak(few), peak(many)
    ratio = large / small
    return Row(f"peak memory, {many:,} / {few:,} photos", large, small, ratio, ratio, ratio, 1, "MB", "flat")


def train_and_tell(folder: Path) -> None:
    """20 steps on a synthetic run; prints this process's peak memory in MB."""
    torch.set_num_threads(1)
    run = Run(folder)
    recipe = replace(STUDENT, soft_labels="")
    job = Job(folder / "job", "mobilenetv1_025", 64, "none", 0, recipe)
    batch = batches(job, run, PixelStore(run.images), SoftLabels.open(run))
    model = build(describe(job.model, run.classes(), size=64))
    trained = nn.ModuleDict({"model": model, "projector": nn.Linear(model.num_features, 64)})
    precision = Precision(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        fit(
            Task(trained=trained, batch=batch, loss=lambda data: loss_of(data, recipe, trained)),
            Schedule(steps=20, lr=1e-4, weight_decay=0.02, ema=0.998),
            precision,
            checkpoint=Path(temporary) / "checkpoint.safetensors",
        )
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def main() -> None:
    """Measure all rows, print them, write results.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files in class folders")
    parser.add_argument("--teacher", default="efficientnet_lite2@224")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train_and_tell(arguments.train)
        return
    rows: list[Row] = []
    photos, parts = arguments.photos, arguments.parts
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder)
        if "training" in parts:
            run = synthetic_run(temporary / "run", 2000)
            for name in ("mobilenetv1_025", "mobilenetv3_small_100"):
                rows += training_rows(run, name, 128, steps=12)
        if "training-224" in parts:
            run = synthetic_run(temporary / "larger", 1000, side=258)
            rows += training_rows(run, "mobilenetv3_small_100", 224, 6, "≤ 1.03")
        if "packing" in parts and photos:
            for part in (photos, multiplied(photos, temporary / "many"), enlarged(photos, temporary / "large")):
                rows.append(packing_row(part, 128))
        if "labeling" in parts and photos:
            name, _, size = arguments.teacher.partition("@")
            rows += labeling_rows(photos, name, int(size))
        if "start" in parts:
            rows += start_rows()
        if "memory" in parts:
            rows.append(memory_row(temporary, 1000, 200_000))
    add_rows(arguments.out, rows)


def add_rows(out: Path, rows: list[Row]) -> None:
    """Print the rows and put them in the file, in the place of earlier ones of the same name."""
    facts = environment(decide(MachineConfig()))
    versions = " ".join(f"{name} {number}" for name, number in facts["versions"].items())
    hardware = f"{facts['processor']}, {facts['machine']['cores']} cores, {facts['cpu_capability']}"
    kept: dict[str, dict[str, Any]] = {}
    if out.is_file():
        with out.open(encoding="utf-8") as file:
            kept = {row["what"]: row for row in csv.DictReader(file)}
    for row in rows:
        row.hardware, row.versions = hardware, " ".join(filter(None, (row.versions, versions)))
        numbers = {key: float(f"{getattr(row, key):.4g}") for key in ("ours", "reference", "ratio", "min", "max")}
        kept[row.what] = {**asdict(row), **numbers}
        print(f"{row.ratio:7.3f} ({row.min:.3f} to {row.max:.3f}, n = {row.n}; {row.goal})  {row.what}")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept.values())


if __name__ == "__main__":
    main()
