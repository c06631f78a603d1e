"""How long Potstill needs to list the photos of tar shards and to plan a run on them, and how much memory.

    python benchmarks/scale/index_shards.py FOLDER --photos 1000000

writes shards of 10,000 synthetic photos each (KEY.jpg and KEY.cls, so twice as many members), lists them, each time in
a fresh process: as for the first time, and from the kept lists. Writing is not measured. A row per measurement is added
to results.csv.
"""

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path

PER_SHARD = 10_000
RESULTS = Path(__file__).with_name("results.csv")
COLUMNS = ("what", "photos", "members", "seconds", "processor_seconds", "peak_mb", "hardware", "date", "command")


def write_shard(path: Path, start: int, count: int, classes: int) -> None:
    """Headers and a few bytes: the listing never reads a photo."""
    photo, zeros = b"\xff\xd8\xff\xe0" + bytes(508), bytes(512)
    with path.open("wb") as file:
        for number in range(start, start + count):
            for kind, data in (("jpg", photo), ("cls", b"%d" % (number % classes))):
                item = tarfile.TarInfo(f"{number:08d}.{kind}")
                item.size = len(data)
                file.write(item.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
        file.write(2 * zeros)


def measured(folder: Path) -> dict[str, float]:
    """List and plan here, in this process."""
    import potstill.planning
    from potstill.config.schema import Config
    from potstill.images.selection import read_for_training
    from potstill.images.summary import folder_lines

    config = Config()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor = time.perf_counter(), time.process_time()
    found = read_for_training(folder / "shards", config.images, runs=folder / "runs")
    folder_lines(found, config.images)
    potstill.planning.expected_train_photos(found, config)
    return {
        "photos": len(found.files),
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "before_mb": before / 1024,
    }


def hardware() -> str:
    """The processor and its cores."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--note", default="", help="what else the machine was doing")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measured(args.folder)))
        return
    (args.folder / "shards").mkdir(parents=True)
    for number, start in enumerate(range(0, args.photos, PER_SHARD)):
        count = min(PER_SHARD, args.photos - start)
        write_shard(args.folder / "shards" / f"{number:06d}.tar", start, count, args.classes)
    rows = []
    for what in ("first listing and plan", "plan from the kept lists"):
        command = [sys.executable, __file__, str(args.folder), "--here"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(what, found)
        rows.append(
            [
                f"{what} ({found['before_mb']:.0f} MB before)",
                found["photos"],
                2 * found["photos"],
                *(round(found[name], 1) for name in ("seconds", "processor_seconds", "peak_mb")),
                hardware() + (f", {args.note}" if args.note else ""),
                datetime.now(UTC).date().isoformat(),
                f"python benchmarks/scale/index_shards.py FOLDER --photos {args.photos} --classes {args.classes}",
            ]
        )
    new = not RESULTS.is_file()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows] if new else rows)


if __name__ == "__main__":
    main()
