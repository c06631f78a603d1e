"""Where the demo's time goes, and what the teacher's runtime does to it.

    python benchmarks/speed/demo.py

runs the demo in a temporary folder, then its teacher and soft labels once more with the teacher in torch (one run each:
a profile, not a ratio), and writes the seconds of every stage to demo.csv.
"""

import argparse
import csv
import os
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from potstill.compute.device import decide, environment
from potstill.config.load import from_mapping
from potstill.context import Context
from potstill.data.pixels import PixelStore
from potstill.images.folder import read_folder
from potstill.monitoring.progress import Reporter
from potstill.pipeline import distill
from potstill.planning import make_plan
from potstill.report.read import RunFiles
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.soft_labels.stage import store_soft_labels
from potstill.teacher.stage import train_teacher
from potstill.tools.demo import SETTINGS, make_folder

STAGES = {
    "1_images": "decode, check and pack 2,624 photos",
    "2_teacher": "teacher: features of 3 views, heads",
    "3_soft_labels": "soft labels for 8 views",
    "4_students": "pilots, student and twin",
    "5_comparison": "comparison on test",
}
COLUMNS = ("stage", "torch_seconds", "auto_seconds", "auto", "hardware")


def main() -> None:
    """Run, and write one row per stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demo.csv"))
    arguments = parser.parse_args()
    quiet = Reporter(quiet=True)
    config = from_mapping(SETTINGS)
    machine = decide(config.machine)
    here = environment(machine)
    with tempfile.TemporaryDirectory() as folder:
        photos = make_folder(Path(folder) / "photos")
        run = distill(photos, config=config, run=Path(folder) / "auto", reporter=quiet).run
        seconds = RunFiles(run).seconds
        facts = read_json(run.teacher / "precision.json")
        other = Run(Path(folder) / "torch")
        other.path.mkdir()
        other.images.symlink_to(run.images)
        in_torch = replace(machine, requested=replace(machine.requested, runtime="torch"))
        context, train = Context(other, in_torch, quiet), PixelStore(run.images).rows("train", "unlabeled")
        plan = make_plan(read_folder(photos), config, train_photos=len(train))
        with other.timed("2_teacher"):
            train_teacher(plan.teacher, context)
        with other.timed("3_soft_labels"):
            store_soft_labels(plan.soft_labels, context)
        before = seconds | RunFiles(other).seconds
        how = f"{facts['dtype']} in {facts['runtime']}"
    hardware = f"{here['processor']}, {machine.cores} cores, {here['cpu_capability']}"
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for stage, what in STAGES.items():
            writer.writerow([what, before[stage], seconds[stage], how, hardware])


if __name__ == "__main__":
    main()
