"""Labels that flow to photos that look alike, and a head that learns from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import support
from tests.support import TINY, context_of, make_photos, run_on

from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.folds import fold_of
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import blended, draw_views, mixed_labels, one_hot
from potstill.metrics import softmax
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run
from potstill.teacher import propagation
from potstill.teacher.probe import FoldHeads, Probe
from potstill.teacher.propagation import Graph, joined


def two_moons(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two half circles that no straight line divides: only their shape says which photo belongs to which."""
    angle = np.linspace(0, np.pi, count)
    upper = np.stack([np.cos(angle), np.sin(angle)], -1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], -1)
    # On the sphere of three dimensions, since nearness is an angle.
    points = np.concatenate([upper, lower]) / 3
    return np.concatenate([points, np.ones((2 * count, 1))], -1), np.repeat([0, 1], count)


def test_one_label_each_is_enough_where_the_shape_shows_the_class() -> None:
    points, classes = two_moons(60)
    labels = np.full(120, -1)
    labels[[30, 90]] = classes[[30, 90]]
    believed = Graph.of(points).propagate(labels, 2)
    assert (believed.argmax(-1) == classes).mean() == 1.0
    nearest = np.abs(points[:, None] - points[[30, 90]]).sum(-1).argmin(-1)
    assert (nearest == classes).mean() < 0.9, "the labeled photos alone would not tell"


@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 40), seed=st.integers(0, 99), known=st.integers(0, 40))
def test_beliefs_are_probabilities(count: int, seed: int, known: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.full(count, -1)
    labels[:known] = random.integers(0, 3, len(labels[:known]))
    believed = Graph.of(random.normal(size=(count, 4))).propagate(labels, 3)
    assert believed.shape == (count, 3)
    assert np.isfinite(believed).all()
    assert (believed >= 0).all()
    assert believed.sum(-1) == pytest.approx(1, abs=1e-5)


def test_photos_that_no_label_reaches_get_equal_shares() -> None:
    features = np.concatenate([np.tile([1.0, 0.0], (3, 1)), np.tile([-1.0, 0.0], (3, 1))])
    features[:, 1] = [0.1, 0, -0.1] * 2
    propagation_of = Graph.of(features).propagate(np.array([0, -1, -1, -1, -1, -1]), 2)
    assert propagation_of[1, 0] > 0.99
    assert propagation_of[4] == pytest.approx([0.5, 0.5])


def test_neither_of_two_beliefs_rules_a_class_out_alone() -> None:
    both = joined(np.array([[1.0, 0.0], [0.6, 0.4]]), np.array([[0.0, 1.0], [0.6, 0.4]]))
    assert both[0] == pytest.approx([0.5, 0.5])
    assert both[1, 0] > 0.6, "two that agree are surer than one"


def test_the_blend_of_given_labels_is_that_of_the_labels(store: PixelStore) -> None:
    rows = store.rows("train")
    views = draw_views(store, rows, 4, ViewsConfig(mix=1.0))
    belief = one_hot(store.labels(rows), 3)
    assert blended(belief, rows, views) == pytest.approx(mixed_labels(store, rows, views, 3))
    softer = blended(softmax(belief), rows, views)
    assert softer.sum(-1) == pytest.approx(1)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, packer) -> PixelStore:
    """Two labeled photos per class, and thirty without."""
    folder = tmp_path_factory.mktemp("few")
    photos = make_photos(folder / "data", {"train": 2, "val": 4, "test": 1, "unlabeled": 10})
    return packer(photos, folder / "run", size=40)


def teach(run: Run, *, mix: float = 0.5, **settings) -> list[str]:
    """Train a teacher on the photos and have it label four views; returns what was said."""
    views = ViewsConfig(mix=mix)
    teacher = TeacherConfig(
        train="probe",
        model=(TINY["teacher.model"][0],),
        weights="package",
        size=64,
        probe_views=2,
        probe_min_steps=60,
        folds=2,
        min_gain=0,
        unlike="keep",
        **settings,
    )
    said: list[str] = []
    context = context_of(run)
    context.reporter.info = said.append  # type: ignore[method-assign]
    support.teach(teacher, views, context)
    support.label(teacher, views, 4, context)
    return said


def test_a_teacher_learns_from_photos_without_labels(few: PixelStore) -> None:
    run = Run(few.folder.parent)
    said = teach(run)
    (line,) = [line for line in said if "photos without labels" in line]
    assert "30 photos without labels" in line
    features = np.load(run.teacher / "features.npy", mmap_mode="r")
    assert len(features) == len(few.rows("train", "unlabeled")) == 36
    soft = SoftLabels.open(run)
    of_first_views = soft.features(np.arange(36), np.zeros(36, int))
    assert (of_first_views == features[:, 1, : of_first_views.shape[-1]]).all(), (
        "what the teacher has looked at is not computed again"
    )
    rows, logits = (np.load(run.teacher / "out_of_fold.npz")[name] for name in ("row", "logits"))
    assert (rows == few.rows("train")).all()
    assert np.isfinite(logits).all()


def test_a_teacher_may_ignore_them(few: PixelStore, tmp_path: Path) -> None:
    run = run_on(few, tmp_path / "run")
    said = teach(run, unlabeled="ignore")
    assert not [line for line in said if "without labels" in line]
    assert len(np.load(run.teacher / "features.npy", mmap_mode="r")) == 6
    assert len(SoftLabels.open(run).photos) == 36, "they are labeled all the same"


def test_a_sample_of_very_many_is_enough(few: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.teacher.probe.MAX_NODES", 16)
    assert propagation.MAX_NODES > 1000
    run = run_on(few, tmp_path / "run")
    assert [line for line in teach(run) if "photos without labels" in line]


def test_where_every_view_is_a_blend_val_says_how_sure_the_teacher_is(few: PixelStore, tmp_path: Path) -> None:
    run = run_on(few, tmp_path / "run")
    teach(run, mix=1.0)
    meta = SoftLabels.open(run).meta
    assert meta["train_top_probability"] == meta["val_top_probability"] > 1 / 3


def test_no_out_of_fold_head_learns_from_photos_of_its_fold(
    few: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, learn_folds = Probe._fit, Probe.learn_folds
    learned: dict[str, np.ndarray] = {}

    def recording(self: Probe, name: str, belief: np.ndarray, allowed: np.ndarray, *others: Any) -> Any:
        learned[name] = allowed.copy()
        return fit(self, name, belief, allowed, *others)

    def both_ways(self: Probe, reporter: Reporter, *, from_all: bool) -> FoldHeads:
        return learn_folds(self, reporter, from_all=True)

    monkeypatch.setattr(Probe, "_fit", recording)
    monkeypatch.setattr(Probe, "learn_folds", both_ways)
    teach(run_on(few, tmp_path / "run"))
    labeled = few.rows("train")
    fold = fold_of(few, labeled, 2)
    assert set(fold) == {0, 1}
    for number in (0, 1):
        for name in (f"fold-{number}", f"fold-{number}-all-0", f"fold-{number}-all-1"):
            allowed = learned[name][: len(labeled)]
            assert (allowed == (fold != number)).all(), name
    assert learned["head"][: len(labeled)].all()
