"""Scoring a file by its own runtime on the photos of a split, in a process of its own: clean memory, one thread.

A file that takes any size gets the photo as it is stored; one that takes the input size gets the center square of the
photo, resized by Pillow with the bilinear filter on floats (`fit`). That rule is part of what is scored.
"""

import platform
import resource
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from potstill.data.pixels import PixelStore
from potstill.data.resize import fit
from potstill.data.splits import Split
from potstill.errors import ExportError
from potstill.export.formats.base import Format, Runner
from potstill.export.formats.registry import format_named
from potstill.processes import child
from potstill.run.files import read_json, write_json

TIMED_PHOTOS = 50
WARM_UP = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The predictions of a file, and what they took."""

    probabilities: np.ndarray
    """(n, C)."""
    milliseconds: float
    """Median of one photo: preprocessing, network, softmax; without reading the photo, and without `fit`."""
    peak_memory: int | None
    """Bytes of the whole process: Python, numpy, Pillow, the runtime and the model. None for a format that is scored in
    the process of the caller."""
    versions: dict[str, str]
    """Of the format's packages; the first one is the runtime."""
    metadata: dict[str, str]
    """The texts read back from the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """What to score on which photos."""

    format: str
    module: str
    """That registers the format."""
    path: str
    images: str
    """Folder of the pixel store."""
    split: Split
    size: int
    crop: float


def score(scoring: Scoring, python: str | None = None) -> Score:
    """Run the file on the photos. Raises ExportError where its runtime does not load or run it.

    Args:
        python: the interpreter of another environment; this one's when None.
    """
    format = format_named(scoring.format, scoring.module)
    if format.in_process:
        try:
            return score_here(scoring, format)
        except Exception as error:  # whatever a runtime raises
            raise ExportError(f"Its own runtime does not run it: {type(error).__name__}: {error}") from error
    job = Path(scoring.path).with_name("scoring.json")
    write_json(job, asdict(scoring))
    try:
        child.run("potstill.export.score", job, python=python, threads=1)
    except child.ChildCrashError as error:
        raise ExportError(f"Its own runtime does not run it:\n{error}") from None
    finally:
        job.unlink()
    facts = read_json(job.with_name("score.json"))
    probabilities = np.load(job.with_name("probabilities.npy"), allow_pickle=False)
    return Score(probabilities=probabilities, **facts)


def score_here(scoring: Scoring, format: Format) -> Score:
    """Score in this process."""
    run = format.open(Path(scoring.path))
    probabilities, times = _predict(run, scoring, format)
    return Score(
        probabilities=probabilities,
        milliseconds=round(statistics.median(times), 3),
        peak_memory=None if format.in_process else _peak_memory(),
        versions={name: version(name) for name in format.packages},
        metadata=format.read_metadata(Path(scoring.path)),
    )


def work(job: Path) -> None:
    """Score in a child process: write `score.json` and `probabilities.npy` beside the job."""
    scoring = Scoring(**read_json(job))
    found = score_here(scoring, format_named(scoring.format, scoring.module))
    np.save(job.with_name("probabilities.npy"), found.probabilities)
    facts = {name: value for name, value in asdict(found).items() if name != "probabilities"}
    write_json(job.with_name("score.json"), facts)


def _predict(run: Runner, scoring: Scoring, format: Format) -> tuple[np.ndarray, list[float]]:
    """(n, C) probabilities, and the milliseconds of TIMED_PHOTOS photos."""
    store = PixelStore(Path(scoring.images))
    probabilities, times = [], []
    for row in store.rows(scoring.split):
        image = store.photo(int(row))
        photo = np.array(image) if format.any_size else fit(image, scoring.size, scoring.crop)
        started = time.perf_counter()
        probabilities.append(np.array(run(photo), np.float32))
        times.append(1000 * (time.perf_counter() - started))
    while len(times) < WARM_UP + TIMED_PHOTOS:
        started = time.perf_counter()
        run(photo)
        times.append(1000 * (time.perf_counter() - started))
    return np.stack(probabilities), times[WARM_UP : WARM_UP + TIMED_PHOTOS]


def _peak_memory() -> int:
    """Bytes. Linux counts the parent's memory into getrusage of a new process, so its own counter is read there."""
    if platform.system() == "Linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
