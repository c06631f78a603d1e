"""Very unequal classes: a teacher that tells them apart is used, and one that only knows their shares is not."""

from pathlib import Path

import numpy as np
import pytest

from potstill import metrics
from potstill.config.schema import TeacherConfig
from potstill.data.arrays import RowReader
from potstill.errors import TeacherError
from potstill.metrics.classification import MULTI_CLASS
from potstill.teacher.heads import HeadData, apply_head, fit_head
from potstill.teacher.learned import require_learned


def features(counts: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, D) features that show the class, with much noise, and labels."""
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    values = draw.normal(0, 1, (len(labels), 40)).astype(np.float32)
    values[np.arange(len(labels)), labels] += 2.5
    return values, labels


def head_data(folder: Path, counts: tuple[int, ...]) -> HeadData:
    values, labels = features(counts, 0)
    np.save(folder / "f.npy", values[:, None].astype(np.float16))
    targets = np.eye(len(counts), dtype=np.float32)[labels][:, None]
    return HeadData(RowReader(folder / "f.npy", leading=2), targets, np.ones((len(labels), 1), bool))


def test_a_head_starts_at_the_shares_of_the_classes(tmp_path: Path) -> None:
    data = head_data(tmp_path, (90, 9, 1))
    head, _ = fit_head(data, TeacherConfig(probe_epochs=0), tmp_path / "c")
    probabilities = metrics.softmax(apply_head(head, np.zeros((1, 40), np.float32)))[0]
    mean = metrics.softmax(apply_head(head, features((90, 9, 1), 0)[0])).mean(0)
    assert probabilities == pytest.approx([0.9, 0.09, 0.01], rel=0.3)
    assert mean == pytest.approx([0.9, 0.09, 0.01], rel=0.3)


def test_a_head_of_unequal_classes_predicts_the_rare_one_as_well(tmp_path: Path) -> None:
    head, _ = fit_head(head_data(tmp_path, (300, 12)), TeacherConfig(), tmp_path / "c")
    values, labels = features((300, 12), 1)
    logits = apply_head(head, values)
    assert metrics.accuracy(logits, labels) >= 300 / 312
    assert require_learned("x", logits, labels, MULTI_CLASS, TeacherConfig()) == metrics.accuracy(logits, labels)


def test_a_good_ranking_passes_where_the_rare_class_is_never_predicted() -> None:
    labels = np.repeat([0, 1], [300, 12])
    logits = np.stack([np.where(labels, 1.0, 8.0), np.zeros(312)], 1)
    assert require_learned("x", logits, labels, MULTI_CLASS, TeacherConfig()) == 300 / 312


@pytest.mark.parametrize("counts", [(300, 12), (50, 50), (200, 50, 5)])
def test_a_teacher_that_only_knows_the_shares_is_refused(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    logits = np.log(np.array(counts, float))[None] + np.random.default_rng(0).normal(
        0, 1e-3, (len(labels), len(counts))
    )
    with pytest.raises(TeacherError, match=r"mean accuracy of .* It has learned nothing"):
        require_learned("x", logits, labels, MULTI_CLASS, TeacherConfig())
    assert require_learned("x", logits, labels, MULTI_CLASS, TeacherConfig(min_gain=0)) < 1


def test_a_limit_of_zero_never_stops() -> None:
    labels = np.repeat([0, 1], [300, 12])
    wrong = np.stack([np.where(labels, 9.0, -9.0), np.zeros(312)], 1)
    assert require_learned("x", wrong, labels, MULTI_CLASS, TeacherConfig(min_gain=0)) == 0
