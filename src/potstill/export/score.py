"""Scoring a file by its own runtime on the photos of a split, in a process of its own: clean memory, one thread.

A file that takes any size gets the photo as it is stored; one that takes the input size gets the center square of the
photo, resized by Pillow with the bilinear filter on floats (`fit`). That rule is part of what is scored.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from potstill.data.resize import fit
from potstill.errors import ExportError
from potstill.export.formats.registry import FORMATS
from potstill.run.files import read_json, write_json

TIMED_PHOTOS = 50
WARM_UP = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What a file said to the photos, and what it took."""

    probabilities: np.ndarray
    """(n, C)."""
    milliseconds: float
    """Median of one photo: preprocessing, network, softmax; without reading the photo, and without `fit`."""
    peak_memory: int
    """Bytes of the whole process: Python, numpy, Pillow, the runtime and the model."""
    versions: dict[str, str]
    """Of the format's packages; the first one is the runtime."""
    metadata: dict[str, str]
    """The texts read back from the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """What to score on which photos."""

    format: str
    path: str
    images: str
    """Folder of the pixel store."""
    split: str
    size: int
    crop: float


def score(scoring: Scoring, python: str | None = None) -> Answers:
    """Run the file on the photos. Raises ExportError where its runtime does not load or run it.

    Args:
        python: the interpreter of another environment; this one's when None.
    """
    out = Path(scoring.path).with_name("scored")
    job = out.with_suffix(".json")
    write_json(job, asdict(scoring))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [python or sys.executable, "-m", "potstill.export.score", str(job), str(out)],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    job.unlink()
    if done.returncode != 0:
        raise ExportError(f"Its own runtime does not run it:\n{done.stderr.strip()[-1500:]}")
    facts = read_json(out.with_suffix(".facts.json"))
    probabilities = np.load(out.with_suffix(".npy"), allow_pickle=False)
    for suffix in (".facts.json", ".npy"):
        out.with_suffix(suffix).unlink()
    return Answers(probabilities=probabilities, **facts)


def main(job: str, out: str) -> None:
    """Score in this process and write `OUT.npy` and `OUT.facts.json`."""
    from potstill.data.pixels import PixelStore

    scoring = Scoring(**json.loads(Path(job).read_text("utf-8")))
    form = FORMATS[scoring.format]
    run = form.open(Path(scoring.path))
    store = PixelStore(Path(scoring.images))
    answers, times = [], []
    for row in store.rows(scoring.split):  # type: ignore[arg-type]
        image = store.photo(int(row))
        photo = np.array(image) if form.any_size else fit(image, scoring.size, scoring.crop)
        started = time.perf_counter()
        answers.append(np.array(run(photo), np.float32))
        times.append(1000 * (time.perf_counter() - started))
    while len(times) < WARM_UP + TIMED_PHOTOS:
        started = time.perf_counter()
        run(photo)
        times.append(1000 * (time.perf_counter() - started))
    facts: dict[str, Any] = {
        "milliseconds": round(statistics.median(times[WARM_UP : WARM_UP + TIMED_PHOTOS]), 3),
        "peak_memory": _peak_memory(),
        "versions": {name: version(name) for name in form.packages},
        "metadata": form.read_metadata(Path(scoring.path)),
    }
    np.save(Path(out).with_suffix(".npy"), np.stack(answers))
    Path(out).with_suffix(".facts.json").write_text(json.dumps(facts), "utf-8")


def _peak_memory() -> int:
    """Bytes. Linux counts the parent's memory into getrusage of a new process, so its own counter is read there."""
    if platform.system() == "Linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
