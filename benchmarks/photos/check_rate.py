"""`check`'s look at every photo against Pillow's bare decode, on all cores, the same files, several times.

    python benchmarks/photos/check_rate.py DATA --photos 3000

"bare" opens and loads each file with Pillow and drops it. "check" reads, hashes, decodes to the last byte, looks and
makes the fingerprint. Both run in as many processes as there are cores, started before the clock. Rates are given per
wall second, and per second of processor time, which does not suffer when others use the machine.
"""

import argparse
import csv
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image
from results import save

from potstill.check.inspect import inspect

CHUNK = 32


def bare(path: Path) -> int:
    """Decode one file."""
    with Image.open(path) as image:
        image.load()
        return image.width


def look(path: Path) -> int:
    """What `check` does with one file."""
    return inspect(path, min_side=32).pixels


def job(function: Callable[[Path], int], paths: list[Path]) -> tuple[int, float]:
    """(sum, processor seconds) of a chunk."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    total = sum(function(path) for path in paths)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return total, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def enlarged(paths: list[Path], side: int, folder: Path) -> list[Path]:
    """The same photos with a shorter side of `side` pixels, as JPEG: about what `get` fetches."""
    found = []
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            scale = side / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            found.append(folder / f"{number}.jpg")
            image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(found[-1], quality=90)
    return found


def main() -> None:
    """Alternate both sides and print."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("data", type=Path)
    parse.add_argument("--photos", type=int, default=3000)
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--save", metavar="HARDWARE", help="also write the result to results.csv")
    parse.add_argument("--side", type=int, default=0, help="enlarge the photos to this shorter side first")
    options = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="potstill-bench-") as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """The rounds, and the result if it is to be kept."""
    paths = sorted(path for path in options.data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    paths = paths[:: max(1, len(paths) // options.photos)][: options.photos]
    if options.side:
        paths = enlarged(paths, options.side, folder)
    with Image.open(paths[0]) as image:
        side = min(image.size)
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    out = csv.writer(sys.stdout)
    names = ["bare_per_second", "check_per_second", "ratio", "bare_per_cpu_second", "check_per_cpu_second", "cpu_ratio"]
    out.writerow(["photos", "short_side", "round", *names, "cores", "load"])
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(job, look), chunks))  # start the processes, fill the file cache
        walls, cpus = [], []
        for round in range(options.rounds):
            rates = []
            for function in (bare, look):
                started = time.perf_counter()
                spent = sum(seconds for _, seconds in pool.map(partial(job, function), chunks))
                rates.append((len(paths) / (time.perf_counter() - started), len(paths) / spent))
            (wall, cpu), (our_wall, our_cpu) = rates
            walls.append((our_wall, wall))
            cpus.append((our_cpu, cpu))
            row = [f"{wall:.0f}", f"{our_wall:.0f}", f"{our_wall / wall:.2f}"]
            row += [f"{cpu:.0f}", f"{our_cpu:.0f}", f"{our_cpu / cpu:.2f}"]
            out.writerow([len(paths), side, round, *row, os.cpu_count(), f"{os.getloadavg()[0]:.1f}"])
            sys.stdout.flush()
    if options.save:
        command = f"check_rate.py DATA --photos {options.photos} --rounds {options.rounds} --side {options.side}"
        for what, pairs, unit in (("wall", walls, "photos/s"), ("processor", cpus, "photos/s of processor time")):
            ours, reference = zip(*pairs, strict=True)
            name = f"check decodes, short side {side}, {os.cpu_count()} cores, {what} time"
            save(name, ours, reference, unit=unit, hardware=options.save, command=command)


if __name__ == "__main__":
    main()
