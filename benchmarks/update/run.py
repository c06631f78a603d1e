"""Is an update better started from the run's students, or from scratch? Both, and the run, on the same test photos.

    python benchmarks/update/run.py --sets animals=PATH:cat,dog,bird flowers=PATH \\
        --weights mobilenetv1_025_128.safetensors --into FOLDER

Each draw puts 20 photos of each class into the first run and 100 others into the photos that are added. The run is
updated twice: `potstill update` (from its students, a third of the length) and with `--from-scratch` (from the
published weights, full length). Settings are SETTINGS; all else is default. FOLDER keeps the runs, so that a command
that was stopped goes on. One row per trained student goes to results.csv, and one per set to differences.csv, with
paired intervals over draws, seeds and photos.
"""

import argparse
import csv
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import potstill
from potstill import metrics
from potstill.compute.device import decide, environment
from potstill.config.schema import MachineConfig
from potstill.run.files import read_json, write_text
from potstill.run.folder import Run
from potstill.run.layout import comparison_path, model_folder, num_seeds
from potstill.run.results import read_chosen

HERE = Path(__file__).resolve().parent
SETTINGS: dict[str, Any] = {
    "teacher.model": "efficientnet_lite0",
    "teacher.weights": "package",
    "teacher.train": "probe",
    "teacher.size": 128,
    "teacher.folds": 3,
    "views.count": 8,
    "student.models": "mobilenetv1_025@96",
    "student.patience": 0.25,
    "machine.jobs": 1,
    "seeds": 2,
}
STARTS = ("run", "update", "from-scratch")


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """Photos in `folder/{train,test}/CLASS/*`."""

    name: str
    folder: Path
    classes: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "PhotoSet":
        """From NAME=PATH or NAME=PATH:CLASS,CLASS."""
        name, _, place = text.partition("=")
        path, _, wanted = place.partition(":")
        folder = Path(path)
        classes = wanted.split(",") if wanted else sorted(path.name for path in (folder / "train").iterdir())
        return cls(name, folder, tuple(classes))

    def draw(self, seed: int, into: Path, first: int, more: int) -> tuple[Path, Path]:
        """The folders of the first photos, with all test photos, and of those that are added."""
        folders = into / "first", into / "more"
        if into.is_dir():
            return folders
        random, drawing = np.random.default_rng(seed), into.with_name(f"{into.name}.part")
        shutil.rmtree(drawing, ignore_errors=True)
        for label in self.classes:
            shutil.copytree(self.folder / "test" / label, drawing / "first" / "test" / label)
            photos = random.permutation(sorted((self.folder / "train" / label).iterdir()))[: first + more]
            for number, photo in enumerate(photos):
                part = Path("first/train") if number < first else Path("more")
                (drawing / part / label).mkdir(parents=True, exist_ok=True)
                shutil.copy(photo, drawing / part / label)
        drawing.rename(into)
        return folders


def runs_of(photos: tuple[Path, Path], folder: Path, weights: Path) -> dict[str, Path]:
    """The finished run folder of each start."""
    first, more = photos
    paths = {start: folder / start for start in STARTS}
    settings = SETTINGS | {"student.weights": str(weights)}
    potstill.distill(first, settings=settings, run=paths["run"])
    potstill.update(paths["run"], more, into=paths["update"])
    potstill.update(paths["run"], more, into=paths["from-scratch"], from_scratch=True)
    return paths


def rows_of(path: Path) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Of each student and twin of a run: its facts, and which test photos (n,) it classifies correctly."""
    run = Run.open(path)
    name = read_chosen(comparison_path(run)).name
    with np.load(run.comparison / "predictions.npz", allow_pickle=False) as stored:
        labels = stored["labels"]
        for arm in ("distilled", "alone"):
            logits = stored[f"{name}/{arm}"]
            for seed in range(num_seeds(run)):
                done = read_json(model_folder(run, name, seed, arm) / "done.json")
                facts = {"arm": arm, "seed": seed, "steps": done["steps"], "seconds": round(done["seconds"])}
                yield facts, logits[seed].argmax(1) == labels


def measure(photos: PhotoSet, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of one set."""
    right: dict[tuple[str, str], list[np.ndarray]] = {}
    rows = []
    for draw in range(options.draws):
        folder = options.into / photos.name / f"draw-{draw}"
        drawn = photos.draw(draw, folder / "photos", options.first, options.more)
        for start, path in runs_of(drawn, folder, options.weights.resolve()).items():
            for facts, found in rows_of(path):
                right.setdefault((facts["arm"], start), []).append(found)
                named = {"set": photos.name, "start": start, "draw": draw, **facts}
                rows.append({**named, "accuracy": f"{found.mean():.5f}", "n": len(found), **made_by()})
    return rows, list(differences(photos.name, right))


def differences(name: str, right: Mapping[tuple[str, str], Sequence[np.ndarray]]) -> Iterator[dict[str, Any]]:
    """Each start against each earlier one, for students and twins."""
    for arm in ("distilled", "alone"):
        for before, after in (("run", "update"), ("run", "from-scratch"), ("from-scratch", "update")):
            old, new = (np.stack(right[arm, start]).astype(float) for start in (before, after))
            gain = metrics.bootstrap_mean(new - old, resamples=10_000)
            yield {
                "set": name,
                "arm": arm,
                "before": before,
                "after": after,
                "accuracy_before": f"{old.mean():.5f}",
                "accuracy_after": f"{new.mean():.5f}",
                "difference": f"{gain.value:.5f}",
                "low": f"{gain.low:.5f}",
                "high": f"{gain.high:.5f}",
                "trainings": len(new),
                "n": new.shape[1],
                **made_by(),
            }


def made_by() -> dict[str, str]:
    machine = environment(decide(MachineConfig(device="cpu")))
    return {"hardware": f"{machine['processor']}, torch {version('torch')}"}


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the rows of the sets that were measured; those of others stay."""
    measured = {row["set"] for row in rows}
    kept: list[Mapping[str, Any]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["set"] not in measured]
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows([*kept, *rows])
    write_text(path, buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", required=True, help="NAME=PATH or NAME=PATH:CLASS,CLASS")
    parser.add_argument("--weights", type=Path, required=True, help="published weights of the student")
    parser.add_argument("--into", type=Path, required=True, help="where photos and runs are kept")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--first", type=int, default=20, help="photos per class of the first run")
    parser.add_argument("--more", type=int, default=100, help="photos per class that are added")
    options = parser.parse_args()
    for text in options.sets:
        results, compared = measure(PhotoSet.parse(text), options)
        write(HERE / "results.csv", results)
        write(HERE / "differences.csv", compared)


if __name__ == "__main__":
    main()
