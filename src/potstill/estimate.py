"""What a run will take, from names, sizes and a few seconds of timing: shown before a long run starts."""

from dataclasses import dataclass
from pathlib import Path

from potstill.compute.device import decide
from potstill.compute.fold_batchnorm import fused
from potstill.compute.precision import Precision
from potstill.compute.selection import fastest_precision
from potstill.config.schema import Config
from potstill.images.folder import read_folder
from potstill.images.pack import estimated_bytes
from potstill.models.classifier import build, describe
from potstill.monitoring.progress import duration
from potstill.students.stage import epochs_for, parse_students, views_for

START_SECONDS = 6.0
"""Before a model trains or labels: importing, building, timing."""

DECODED_PER_SECOND = 150
"""Photos per second and core, for photos of a few hundred pixels; phone photos take three times as long."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds per stage, and bytes on disk."""

    seconds: dict[str, float]
    disk: dict[str, float]

    def lines(self) -> list[str]:
        """For people."""
        total, size = sum(self.seconds.values()), sum(self.disk.values())
        return [
            f"About {duration(total)} ("
            + ", ".join(f"{name} {duration(value)}" for name, value in self.seconds.items())
            + ")",
            f"About {size / 1e9:.2f} GB of disk ("
            + ", ".join(f"{name} {value / 1e9:.2f}" for name, value in self.disk.items())
            + ")",
        ]


def estimate(data: Path, config: Config) -> Estimate:
    """Time each model for a second, with random weights, and multiply.

    Raises:
        PotstillError: as the run itself would, for what names alone can show.
    """
    folder = read_folder(data, classes=config.images.classes)
    machine = decide(config.machine)
    files = folder.files
    test_share = config.images.test_share if folder.flat else sum(f.split == "test" for f in files) / len(files)
    learning = len(files) * (1 - test_share)
    has_val = any(file.split == "val" for file in files)
    train = int(learning * (1 if has_val else 1 - config.images.val_share))
    views = views_for(config, train)
    classes = folder.classes
    seconds = {"photos": len(files) / (DECODED_PER_SECOND * machine.cores), "teacher": 0.0, "students": 0.0}
    disk, widths, seen, largest = {}, 0, 0, 0
    for name in config.teacher.model:
        size = None if config.teacher.size == "auto" else config.teacher.size
        info = describe(name, classes, size=size, levels=config.teacher.levels)
        model = fused(build(info), Precision(machine.torch_device()))
        precision, speeds = fastest_precision(model, info.size, machine, training=False)
        looks = train * (1 + max(views, config.teacher.probe_views)) + len(files) - train
        seconds["teacher"] += START_SECONDS + looks / speeds[precision.name]
        widths += model.num_last_features
        seen += model.num_features
        largest = max(largest, info.size)
    rendered = 0.0
    for spec in parse_students(config):
        info = describe(spec.model, classes, size=spec.size)
        precision, speeds = fastest_precision(build(info), info.size, machine, training=True)
        rates = len(config.student.lr_factors)
        candidates = rates * len(config.twin.label_smoothing) + rates + 2 * (config.student.search == "weights")
        pilots = candidates * config.student.pilot_share
        trainings = 2 * config.seeds + pilots
        work = train * epochs_for(config, spec, train) / speeds[precision.name] + START_SECONDS
        seconds["students"] += START_SECONDS + work * trainings / min(machine.jobs, 2 * config.seeds)
        largest = max(largest, info.size)
        rendered = max(rendered, train * views * info.size**2 * 3)
    disk["photos"] = estimated_bytes(len(files), round(config.images.margin * largest))
    disk["teacher's features"] = train * (1 + config.teacher.probe_views) * seen * 2
    disk["soft labels"] = train * views * (widths + len(classes)) * 2 * 2
    disk["rendered views"] = rendered if rendered <= config.machine.cache_gb * 1e9 else 0.0
    return Estimate(seconds, disk)
