"""A run learns the same from a table in an archive as from class folders; with groups, no group is on two sides."""

import csv
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import TINY, make_photos, table_of, weight_hashes

from potstill import Result, distill, metrics
from potstill.config.load import from_mapping
from potstill.data.folds import fold_of
from potstill.data.pixels import PixelStore
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json

SETTINGS: dict[str, Any] = {**TINY, "seeds": 1, "student.epochs": 1, "teacher.probe_epochs": 5}


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "1_images" / "images.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("data") / "shapes", {"": 20})


def test_a_table_in_an_archive_gives_the_run_of_class_folders(folders: Path, tmp_path: Path) -> None:
    flat = table_of(folders, tmp_path / "flat")
    archive = Path(shutil.make_archive(str(tmp_path / "shapes"), "zip", tmp_path, "flat"))
    quiet = Reporter(quiet=True)
    plain = distill(folders, settings=SETTINGS, run=tmp_path / "plain", reporter=quiet).path
    other = distill(archive, settings=SETTINGS, run=tmp_path / "other", reporter=quiet).path
    for name in ("pixels.bin", "index.npy", "classes.txt"):
        assert (plain / "1_images" / name).read_bytes() == (other / "1_images" / name).read_bytes(), name
    facts = ("row", "split", "class", "sha256")
    assert [[row[f] for f in facts] for row in rows_of(plain)] == [[row[f] for f in facts] for row in rows_of(other)]
    assert weight_hashes(plain) == weight_hashes(other)
    shutil.rmtree(tmp_path / ".unpacked")
    before = weight_hashes(other)
    again = distill(archive, settings=SETTINGS, run=other, reporter=quiet)
    assert again.path == other, "unpacked again, the photos are the same"
    assert weight_hashes(other) == before
    assert flat.is_dir()


def _require_intervals_of_groups(result: Result) -> None:
    """The intervals of a run draw the groups of its test photos."""
    store, (student,) = PixelStore(result.run.images), result.comparison.students
    groups = store.groups_of(store.rows("test"))
    assert groups is not None
    with np.load(result.run.comparison / "predictions.npz", allow_pickle=False) as stored:
        right = {arm: stored[f"{student.name}/{arm}"].argmax(-1) == stored["labels"] for arm in ("distilled", "alone")}
        teacher = stored["teacher"].argmax(-1) == stored["labels"]
    gain = right["distilled"].astype(float) - right["alone"]
    resamples = from_mapping(SETTINGS).comparison.resamples
    assert student.difference == metrics.bootstrap_mean(gain, resamples=resamples, groups=groups)
    assert student.difference != metrics.bootstrap_mean(gain, resamples=resamples)
    assert result.comparison.teacher.accuracy == metrics.accuracy_interval(teacher, confidence=0.95, groups=groups)
    assert f"{len(groups)} test photos of {len(set(groups.tolist()))} groups" in student.verdict
    assert read_json(result.run.comparison / "done.json")["inputs"]["resampled"] == "groups of photos"
    assert "interval over seeds and groups of photos" in result.report.read_text("utf-8")


def test_no_group_is_on_two_sides_of_a_run(folders: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "images.group_pattern": r"(\d)\.png$"}
    result = distill(folders, settings=settings, run=tmp_path / "run", reporter=Reporter(quiet=True))
    run = result.run
    _require_intervals_of_groups(result)
    store, rows = PixelStore(run.images), rows_of(run.path)
    splits = defaultdict(set)
    for row in rows:
        splits[row["group"]].add(row["split"])
    assert set(splits) == set("0123456789")
    assert all(len(found) == 1 for found in splits.values())
    train = store.rows("train")
    with np.load(run.teacher / "out_of_fold.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["row"], train)
    fold = fold_of(store, train, settings["teacher.folds"])
    for number in set(fold.tolist()):
        inside = {rows[row]["group"] for row in train[fold == number]}
        outside = {rows[row]["group"] for row in train[fold != number]}
        assert not inside & outside
