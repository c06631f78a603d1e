"""A teacher of photos of which many have wrong labels: it finds them out of fold, and does not learn from them."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests import support
from tests.support import CLASSES, TINY, context_of, make_photos, run_on

from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.label_errors import MIN_PHOTOS
from potstill.data.pixels import PixelStore
from potstill.run.folder import Run
from potstill.teacher.finetune import FineTuning
from potstill.teacher.plan import TeacherPlan

COUNTS = {"train": 130, "val": 110, "test": 1}
"""Photos per class."""
EVERY = 4
"""The label of one photo in so many is wrong, in train and val."""

Packer = Callable[..., PixelStore]


def teach(run: Run, *, train: str = "probe", **settings: object) -> list[str]:
    """Train a teacher; returns what was said."""
    config = TeacherConfig(
        model=(TINY["teacher.model"][0],), weights="package", size=32, train=train, probe_views=1, probe_min_steps=60,
        probe_epochs=10, folds=3, head_l2=1e-3, min_gain=0, **settings,
    )  # fmt: skip
    said: list[str] = []
    context = context_of(run)
    context.reporter.info = said.append  # type: ignore[method-assign]
    support.teach(config, ViewsConfig(), context)
    return [line for line in said if "seem to be wrong" in line]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, packer: Packer) -> PixelStore:
    folder = tmp_path_factory.mktemp("clean")
    return packer(make_photos(folder / "data", COUNTS), folder / "run", size=32, duplicate_bits=-1)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory, packer: Packer) -> PixelStore:
    folder = tmp_path_factory.mktemp("noisy")
    data = make_photos(folder / "data", COUNTS)
    for split in ("train", "val"):
        moved = [photo for name in CLASSES for photo in sorted((data / split / name).iterdir())[::EVERY]]
        for photo in moved:
            other = CLASSES[(CLASSES.index(photo.parent.name) + 1) % len(CLASSES)]
            photo.rename(data / split / other / photo.name)
    return packer(data, folder / "run", size=32, duplicate_bits=-1)


def shown(store: PixelStore, rows: np.ndarray) -> np.ndarray:
    """(n,) what the photos really show: their files are named after it."""
    with (store.folder / "images.csv").open(encoding="utf-8", newline="") as file:
        names = {int(line["row"]): Path(line["path"]).stem.rpartition("-")[0] for line in csv.DictReader(file)}
    return np.array([CLASSES.index(names[row]) for row in rows.tolist()])


def out_of_fold(run: Run) -> tuple[np.ndarray, np.ndarray]:
    with np.load(run.teacher / "out_of_fold.npz", allow_pickle=False) as stored:
        return stored["row"], stored["logits"]


def test_wrong_labels_are_replaced_by_what_is_predicted_without_them(noisy: PixelStore, tmp_path: Path) -> None:
    errors = {}
    for choice in ("correct", "keep"):
        run = run_on(noisy, tmp_path / choice)
        said = teach(run, wrong_labels=choice)
        assert bool(said) == (choice == "correct")
        rows, logits = out_of_fold(run)
        errors[choice] = (logits.argmax(-1) != shown(noisy, rows)).mean()
    assert errors["correct"] < 0.5 * errors["keep"]


def test_good_labels_are_kept_as_they_are(clean: PixelStore, tmp_path: Path) -> None:
    checked, kept = run_on(clean, tmp_path / "checked"), run_on(clean, tmp_path / "kept")
    assert not teach(checked)
    teach(kept, wrong_labels="keep")
    assert np.array_equal(out_of_fold(checked)[1], out_of_fold(kept)[1])
    heads = [(run.teacher / "fold_heads.safetensors").read_bytes() for run in (checked, kept)]
    assert heads[0] == heads[1]


def test_fine_tuning_does_not_see_them_and_is_not_asked_for_because_of_them(
    noisy: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FineTuning] = []
    monkeypatch.setattr(FineTuning, "run", lambda self, _: asked.append(self))
    monkeypatch.setattr("potstill.teacher.stage.FEW_ERRORS", 0.1)
    teach(run_on(noisy, tmp_path / "auto"), train="auto")
    assert not asked, "val has wrong labels, too, and few other errors"
    teach(run_on(noisy, tmp_path / "always"), train="finetune")
    (tuning,) = asked
    truth = shown(noisy, tuning.photos)
    given = noisy.labels(tuning.photos)
    wrong = given != truth
    assert 0.2 < wrong.mean() < 0.3
    assert (tuning.beliefs.argmax(-1) != truth).mean() < 0.5 * wrong.mean()


@pytest.mark.parametrize(
    ("labeled", "settings", "checked"),
    [
        (3 * MIN_PHOTOS, {}, True),
        (3 * MIN_PHOTOS - 1, {}, False),
        (3 * MIN_PHOTOS, {"folds": 1}, False),
        (3 * MIN_PHOTOS, {"wrong_labels": "keep"}, False),
    ],
)
def test_labels_are_checked_where_it_is_asked_for_and_possible(
    labeled: int, settings: dict[str, object], checked: bool
) -> None:
    config = TeacherConfig(model=("efficientnet_lite0",), **settings)  # type: ignore[arg-type]
    assert TeacherPlan(config, ViewsConfig(), (32,)).checks_labels(labeled) is checked
