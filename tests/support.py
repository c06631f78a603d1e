"""What several tests need: drawn photos that a model can learn, settings of a tiny run, and the command line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from potstill.compute.machine import Machine
from potstill.config.schema import MachineConfig, TeacherConfig, ViewsConfig
from potstill.context import Context
from potstill.data.pixels import PixelStore
from potstill.models.classifier import describe
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, read_toml_text, sha256_of, with_checksum, write_json
from potstill.run.folder import Run
from potstill.soft_labels.plan import SoftLabelsPlan
from potstill.soft_labels.stage import store_soft_labels
from potstill.teacher.plan import TeacherPlan
from potstill.teacher.stage import train_teacher

CLASSES = ("disc", "frame", "stripes")

TINY: dict[str, Any] = {
    "seeds": 2,
    "teacher.model": ["efficientnet_lite0"],
    "teacher.weights": "package",
    "teacher.size": 64,
    "teacher.probe_views": 1,
    "teacher.probe_epochs": 20,
    "teacher.probe_min_steps": 60,
    "teacher.folds": 2,
    "teacher.train": "probe",
    "views.count": 2,
    "student.models": ["mobilenetv1_025@32"],
    "student.weights": "none",
    "student.epochs": 3,
    "student.batch_size": 8,
    "twin.label_smoothing": [0.0],
    "twin.length_shares": [1.0],
    "student.lr_factors": [1.0],
    "student.pilot_share": 0.0,  # nor does it try loss weights
    "comparison.resamples": 200,
    "machine.precision": "float32",
    "machine.jobs": 1,
    "machine.threads": 1,  # a number that timing chooses would round otherwise from run to run
    "machine.device": "cpu",
    "machine.reuse": "off",  # two runs that are compared must not be one
}
"""The smallest run that goes through every stage: some ten seconds on one core."""

SEVERAL: dict[str, Any] = {
    **TINY,
    "images.labels_per_photo": "several",
    "images.without_label": "none",
    "student.task_weight": 1.0,
}
"""The same for photos with several labels."""


def draw_photo(kind: str, number: int, *, width: int = 96, height: int = 80) -> Image.Image:
    """A noisy picture of a disc, an empty frame or stripes, in two random colors. The same for the same arguments."""
    generator = np.random.default_rng([CLASSES.index(kind), number])
    back, front = generator.integers(0, 110, 3), generator.integers(150, 256, 3)
    image = Image.new("RGB", (width, height), tuple(back.tolist()))
    pen = ImageDraw.Draw(image)
    color = tuple(front.tolist())
    size = float(generator.uniform(0.5, 0.8)) * height
    left, top = float(generator.uniform(2, width - size - 2)), float(generator.uniform(2, height - size - 2))
    if kind == "disc":
        pen.ellipse((left, top, left + size, top + size), fill=color)
    elif kind == "frame":
        pen.rectangle((left, top, left + size, top + size), outline=color, width=6)
    else:
        for x in range(int(generator.integers(0, 8)), width, 16):
            pen.line((x, 0, x + int(generator.integers(-4, 5)), height), fill=color, width=7)
    noise = generator.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def make_photos(
    root: Path, counts: Mapping[str, int], *, classes: Sequence[str] = CLASSES, suffix: str = "png"
) -> Path:
    """Write `root/SPLIT/CLASS/N.png`, `counts[SPLIT]` photos per class; split "" makes a flat folder."""
    number = 0
    for split, count in counts.items():
        for name in classes:
            folder = root / split / name if split != "unlabeled" else root / split
            folder.mkdir(parents=True, exist_ok=True)
            for _ in range(count):
                number += 1
                draw_photo(name, number).save(folder / f"{name}-{number}.{suffix}")
    return root


def draw_pair(kinds: Sequence[str], number: int) -> Image.Image:
    """A square picture of up to two kinds, one above the other; gray noise where there is none."""
    image = Image.new("RGB", (96, 96))
    noise = np.random.default_rng([99, number]).integers(90, 160, (2, 48, 96, 3)).astype(np.uint8)
    for place in range(2):
        kind = kinds[place] if place < len(kinds) else ""
        part = draw_photo(kind, number, height=48) if kind else Image.fromarray(noise[place])
        image.paste(part, (0, 48 * place))
    return image


def make_pairs(root: Path, counts: Mapping[str, int], *, none: int = 0) -> Path:
    """Write `root/N.png` and `root/labels.csv` with the columns path, labels and split: photos with one label and with
    two, `counts[SPLIT]` of each kind and pair of `CLASSES`, and `none` of each split without any."""
    root.mkdir(parents=True)
    lists = [[name] for name in CLASSES] + [[a, b] for a in CLASSES for b in CLASSES if a < b]
    lines, number = ["path,labels,split"], 0
    for split, count in counts.items():
        for kinds in [*lists * count, *[[]] * none]:
            number += 1
            draw_pair(kinds, number).save(root / f"{number}.png")
            lines.append(f"{number}.png,{';'.join(kinds)},{split}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return root


def table_of(photos: Path, target: Path, *, header: str = "path,label", **columns: Any) -> Path:
    """Copy photos in class folders into one folder, and write `labels.csv` into it.

    Args:
        columns: functions of a photo's path that give the cells of further columns.
    """
    target.mkdir(parents=True)
    lines = [",".join([header, *columns])]
    for path in sorted(photos.rglob("*.*")):
        shutil.copy2(path, target / path.name)
        lines.append(",".join([path.name, path.parent.name, *(str(cell(path)) for cell in columns.values())]))
    (target / "labels.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return target


def command(arguments: Sequence[str | Path]) -> list[str]:
    """`potstill …` as a list for subprocess."""
    return [sys.executable, "-m", "potstill", *map(str, arguments)]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags: `--student.epochs 3`."""
    words: list[str] = []
    for name, value in settings.items():
        for item in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(item)]
    return words


def environment(**more: str) -> dict[str, str]:
    """For child processes: one thread, and nobody's proxy or hub."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200", **more}


def potstill(*arguments: str | Path, timeout: float = 120, cwd: Path | None = None, **more: str) -> Any:
    """Run the command in a process of its own. Returns the CompletedProcess with text output."""
    return subprocess.run(
        command(arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment(**more),
        check=False,
    )


def run_on(store: PixelStore, folder: Path) -> Run:
    """A new run whose stage 1 is the packed photos."""
    folder.mkdir()
    run = Run(folder)
    run.images.symlink_to(store.folder)
    return run


def processes_of(run: Path) -> list[str]:
    """Command lines of the processes that were started for this run, such as its trainings."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text("utf-8", "replace").replace("\0", " ")
        except OSError:  # it has ended
            continue
        if str(run) in line:
            found.append(line)
    return found


def weight_hashes(run: Path) -> dict[str, str]:
    """sha256 of every trained model below a run folder, by its path there."""
    return {str(p.parent.relative_to(run)): sha256_of(p) for p in sorted(run.rglob("model.safetensors"))}


def unseal(run: Path) -> None:
    """Forget the hashes of a run's files, so that a test can put others in their place."""
    for done in run.rglob("done.json"):
        values = read_json(done)
        values.pop("files", None)
        write_json(done, values)


def edit_settings(run: Path, change: Callable[[str], str]) -> None:
    """Change config.toml as if the run had been made with other settings."""
    path = run / "config.toml"
    lines = read_toml_text(path).splitlines()[:-2]  # without the checksum and the empty line above it
    Run(run).create("", with_checksum(change("\n".join(lines) + "\n")))


def context_of(run: Run, **machine: Any) -> Context:
    """What a stage is given: one core, no output, and these settings of the machine."""
    config = MachineConfig(**{"device": "cpu", "precision": "float32", **machine})
    return Context(run, Machine("cpu", 1, 1, config), Reporter(quiet=True))


def teach(teacher: TeacherConfig, views: ViewsConfig, context: Context, *, metric: str = "accuracy") -> None:
    """Stage 2."""
    size = None if teacher.size == "auto" else teacher.size
    sizes = tuple(describe(name, (), size=size).size for name in teacher.model)
    train_teacher(TeacherPlan(teacher, views, sizes, metric), context)


def label(teacher: TeacherConfig, views: ViewsConfig, num_views: int, context: Context) -> None:
    """Stage 3."""
    store_soft_labels(SoftLabelsPlan(teacher.model, views, num_views), context)
