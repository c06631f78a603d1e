"""A pool of unrelated photos: a whole run leaves it out, and is the run that it would have been without it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support import TINY, make_photos, weight_hashes

import potstill
from potstill.monitoring.progress import Reporter

SETTINGS = {**TINY, "seeds": 1}


def noise(folder: Path, count: int) -> None:
    """Photos of nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (80, 96, 3), np.uint8)).save(folder / f"noise-{number}.png")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labeled photos only."""
    return make_photos(tmp_path_factory.mktemp("clean") / "data", {"train": 12, "val": 6, "test": 8})


@pytest.fixture(scope="module")
def with_noise(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, and a pool of noise, more than there are labeled photos."""
    data = shutil.copytree(clean, tmp_path_factory.mktemp("noisy") / "data")
    noise(data / "unlabeled", 60)
    return data


def distill(data: Path, run: Path, **settings: Any) -> "potstill.Result":
    return potstill.distill(data, settings={**SETTINGS, **settings}, run=run, reporter=Reporter(quiet=True))


@pytest.fixture(scope="module")
def filtered(with_noise: Path, tmp_path_factory: pytest.TempPathFactory) -> "potstill.Result":
    return distill(with_noise, tmp_path_factory.mktemp("runs") / "filtered")


def students(result: "potstill.Result") -> dict[str, str]:
    return {name: value for name, value in weight_hashes(result.path).items() if name.startswith("4_students")}


def test_unrelated_photos_change_no_student(filtered: "potstill.Result", clean: Path, tmp_path: Path) -> None:
    """Not worse than without the pool: the very same, teacher, student and twin, in as many steps."""
    without = distill(clean, tmp_path / "run")
    assert students(filtered) == students(without)
    log = (filtered.path / "log.txt").read_text("utf-8")
    assert "60 photos without labels: 0 used, 60 unlike any" in log
    assert filtered.comparison.teacher.accuracy == without.comparison.teacher.accuracy
    page = filtered.report.read_text("utf-8")
    assert "KD024" in page
    assert "Unlabeled photos left out: 60 of 60" in page


def test_kept_ones_do(filtered: "potstill.Result", with_noise: Path, tmp_path: Path) -> None:
    kept = distill(with_noise, tmp_path / "run", **{"teacher.unlike": "keep"})
    assert students(kept) != students(filtered)
    assert not (kept.path / "2_teacher/unlike.csv").exists()
    photos = [result.run.stage("3_soft_labels").facts()["photos"] for result in (kept, filtered)]
    assert photos[0] == photos[1] + 60


def test_the_length_follows_the_photos_that_are_used(with_noise: Path, tmp_path: Path) -> None:
    """A batch has at most an eighth of the photos: 12 of 96, but 8, the least, of the 36 that are used."""
    result = distill(with_noise, tmp_path / "run", **{"student.batch_size": "auto", "views.count": 1})
    log = (result.path / "log.txt").read_text("utf-8")
    assert "in batches of 12" in log
    assert "For the photos that are used: Student" in log
    (student,) = result.comparison.students
    assert student.distilled.recipe["batch_size"] == 8
