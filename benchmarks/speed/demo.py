"""Where the demo's time goes, and what the teacher's runtime does to it.

    python benchmarks/speed/demo.py

runs the demo twice in a temporary folder, with the teacher in torch and as the machine would have it (in turn, one run
each: a profile, not a ratio), and writes the seconds of every stage to demo.csv.
"""

import argparse
import csv
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from potstill.demo import SETTINGS, make_folder
from potstill.machine import decide, environment
from potstill.pipeline import distill
from potstill.progress import Reporter
from potstill.run import read_json
from potstill.settings import from_mapping

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
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        photos = make_folder(Path(folder) / "photos")
        for runtime in ("torch", "auto"):
            config = from_mapping({**SETTINGS, "machine.runtime": runtime})
            run = distill(photos, config=config, run=Path(folder) / runtime, tell=Reporter(quiet=True)).run
            seconds[runtime] = read_json(run.path / "timings.json")
            facts = read_json(run.teacher / "precision.json")
        how = f"{facts['dtype']} in {facts['runtime']}"
        machine = decide(config.machine)
        here = environment(machine)
    hardware = f"{here['processor']}, {machine.cores} cores, {here['cpu_capability']}"
    with arguments.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for stage, what in STAGES.items():
            writer.writerow([what, seconds["torch"].get(stage, 0), seconds["auto"].get(stage, 0), how, hardware])


if __name__ == "__main__":
    main()
