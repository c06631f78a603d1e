"""The comparison with other tools: they get the run's own photos, and are judged on the run's own test photos."""

import csv
import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

import potstill
from potstill.run.results import read_comparison

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy" / "peer_tools"))

import common
import peers


@pytest.fixture
def work(tiny_run: "potstill.Result", tmp_path: Path) -> peers.Work:
    return peers.Work(tmp_path / "work", tiny_run.run)


def test_every_tool_gets_the_photos_and_the_split_of_the_run(work: peers.Work, photos: Path) -> None:
    work.link_photos()
    with (work.run.images / "images.csv").open(newline="") as file:
        wanted = {
            (row["row"], row["split"], row["class"], (photos / row["path"]).resolve()) for row in csv.DictReader(file)
        }
    linked = [path for path in work.folder.rglob("*") if path.is_symlink()]
    found = {(path.stem, path.parent.parent.name, path.parent.name, path.resolve()) for path in linked}
    assert found == wanted
    assert {split for _, split, _, _ in found} == {"train", "val", "test"}


def write_results(work: peers.Work, seeds: int, label: int) -> None:
    """A tool that gives every test photo the same class."""
    with (work.run.images / "images.csv").open(newline="") as file:
        rows = [row["row"] for row in csv.DictReader(file) if row["split"] == "test"]
    for seed in range(seeds):
        path = work.result("timm", seed)
        path.parent.mkdir(parents=True)
        values = {"predicted": dict.fromkeys(rows, label), "seconds": 90, "versions": {"timm": "1"}, "settings": "none"}
        path.write_text(json.dumps(values))


def test_a_tool_is_judged_by_the_labels_of_the_run_and_paired_with_it(work: peers.Work) -> None:
    write_results(work, 2, label=1)
    row = peers.row_of("timm", 2, work, Namespace(set="shapes", regime="all-labels", minutes=2.0))
    assert (row["accuracy"], row["errors"], row["n"], row["minutes"]) == (pytest.approx(1 / 3), 16, 24, 1.5)
    ours = read_comparison(work.run.comparison / "comparison.json").students[0]
    assert row["potstill"] == pytest.approx(ours.distilled.accuracy.value)
    assert row["difference"] == pytest.approx(row["potstill"] - 1 / 3)
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]


def test_without_as_many_seeds_of_its_own_potstill_is_not_compared(work: peers.Work) -> None:
    write_results(work, 3, label=0)
    row = peers.row_of("timm", 3, work, Namespace(set="shapes", regime="all-labels", minutes=2.0))
    assert row["accuracy"] == pytest.approx(1 / 3)
    assert row["potstill"] is None
    assert row["difference"] is None


def test_a_training_takes_its_time_and_no_more() -> None:
    gone: list[float] = []
    checks: list[int] = []

    def step(share: float) -> None:
        gone.append(share)
        time.sleep(0.002)

    assert common.train_for(0.1, step, lambda: checks.append(1), checks=4) == len(gone) > 1
    assert gone == sorted(gone)
    assert 0 <= gone[0] < gone[-1] < 1
    assert 2 <= len(checks) <= 5


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_a_training_without_time_left_takes_no_step_and_is_judged(seconds: float) -> None:
    checks: list[int] = []
    assert common.train_for(seconds, lambda share: pytest.fail("took a step"), lambda: checks.append(1)) == 0
    assert len(checks) == 1
