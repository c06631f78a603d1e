"""Do suggested photos teach more than random ones? Test accuracy of a linear probe, as labels are added 50 at a time.

    python benchmarks/suggest/run.py --sets flowers=PATH animals=PATH:cat,dog,bird --into FOLDER

A frozen EfficientNet-Lite0 sees every photo once. Then, for each of the draws, 10 labels per class are drawn, a head is
trained on them, and 50 labels are added four times: of photos that `potstill.suggest.choice` takes by the head's doubt,
or of random ones. Heads are trained as the teacher's are, on the plain view of the labeled photos alone; 30 % of the
training photos are kept out of it (val). The test photos are only scored. Features take minutes, everything else about
five seconds per head.

What is not in it: label propagation, the student's doubt, photos unlike the classes, and wrong labels other than those
of the set. One row per draw goes to results.csv, one per number of labels, with the paired interval over draws and
photos, to differences.csv.
"""

import argparse
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prepared import TEACHER, Prepared, prepare

from potstill import metrics
from potstill.compute.device import decide, environment
from potstill.config.schema import MachineConfig
from potstill.data.views import one_hot
from potstill.run.files import write_text
from potstill.suggest.choice import choose, doubt
from potstill.teacher.heads import HeadData, apply_head, fit_head

HERE = Path(__file__).resolve().parent
METHODS = ("random", "suggested")


class Drawing:
    """One draw of the first labels, and what becomes of it by either method."""

    def __init__(self, photos: Prepared, folder: Path, seed: int, per_class: int) -> None:
        self._photos, self._folder, self._seed = photos, folder, seed
        self._train, self._test = photos.rows("train"), photos.rows("test")
        self._labels, self._test_labels = (photos.store.labels(rows) for rows in (self._train, self._test))
        last = photos.plain(self._train)[:, : photos.model.num_last_features]
        last = (last - last.mean(0)) / (last.std(0) + 1e-3)
        self._last = last / np.linalg.norm(last, axis=1, keepdims=True)
        random = np.random.default_rng([seed, 0])
        classes = range(len(photos.classes))
        self._first = np.concatenate(
            [random.permutation(np.flatnonzero(self._labels == label))[:per_class] for label in classes]
        )

    def run(self, method: str, count: int, rounds: int) -> Iterator[tuple[int, np.ndarray]]:
        """The number of labels, and which test photos (n,) are right, before and after each round."""
        known, random = self._first, np.random.default_rng([self._seed, 1])
        for number in range(rounds + 1):
            head = self._head(known)
            logits = apply_head(head, self._photos.plain(self._test))
            yield len(known), logits.argmax(1) == self._test_labels
            pool = np.setdiff1d(np.arange(len(self._train)), known)
            if number == rounds or len(pool) < count:
                return
            if method == "random":
                chosen = random.choice(len(pool), count, replace=False)
            else:
                probabilities = metrics.softmax(apply_head(head, self._photos.plain(self._train[pool])))
                chosen = choose(self._last[pool], doubt(probabilities), count)
            known = np.concatenate([known, pool[chosen]])

    def _head(self, known: np.ndarray) -> torch.nn.Module:
        allowed = np.zeros((len(self._photos.store), 1), bool)
        allowed[self._train[known]] = True
        everything = self._photos.store.labels(np.arange(len(allowed)))
        targets = one_hot(np.where(allowed[:, 0], everything, -1), len(self._photos.classes))[:, None]
        head, _ = fit_head(HeadData(self._photos.features, targets, allowed), TEACHER, self._folder / "head.checkpoint")
        return head


def measure(name: str, photos: Prepared, folder: Path, options: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """The rows of one set."""
    right: dict[str, dict[int, list[np.ndarray]]] = {method: {} for method in METHODS}
    results = []
    made_by = _made_by()
    for draw in range(options.draws):
        drawing = Drawing(photos, folder, draw, options.per_class)
        for method in METHODS:
            for labels, found in drawing.run(method, options.count, options.rounds):
                right[method].setdefault(labels, []).append(found)
                row = {"set": name, "method": method, "labels": labels, "draw": draw}
                results.append({**row, "accuracy": f"{found.mean():.5f}", "n": len(found), **made_by})
                print(f"{name}, draw {draw}, {method}, {labels} labels: {found.mean():.1%}", flush=True)
    return results, [{**row, **made_by} for row in _differences(name, right)]


def _differences(name: str, right: Mapping[str, Mapping[int, Sequence[np.ndarray]]]) -> Iterator[dict[str, Any]]:
    for labels in right["random"]:
        random, suggested = (np.stack(right[method][labels]).astype(float) for method in METHODS)
        gain = metrics.bootstrap_mean(suggested - random, resamples=10_000)
        yield {
            "set": name,
            "labels": labels,
            "random": f"{random.mean():.5f}",
            "suggested": f"{suggested.mean():.5f}",
            "difference": f"{gain.value:.5f}",
            "low": f"{gain.low:.5f}",
            "high": f"{gain.high:.5f}",
            "draws": len(random),
            "n": random.shape[1],
        }


def _made_by() -> dict[str, str]:
    machine = environment(decide(MachineConfig(device="cpu")))
    return {"hardware": f"1 core, {machine['processor']}, torch {version('torch')}"}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
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
    parser.add_argument("--into", type=Path, required=True, help="where photos and features are kept")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--per-class", type=int, default=10, help="labels to begin with")
    parser.add_argument("--count", type=int, default=50, help="labels to add in a round")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for text in options.sets:
        name, _, place = text.partition("=")
        path, _, classes = place.partition(":")
        folder = options.into / name
        photos = prepare(Path(path), tuple(filter(None, classes.split(","))), folder)
        results, differences = measure(name, photos, folder, options)
        _write(HERE / "results.csv", results)
        _write(HERE / "differences.csv", differences)


if __name__ == "__main__":
    main()
