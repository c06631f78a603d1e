"""Numbers and losses of several labels per photo, against their definitions."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.config.metric import metric_of
from potstill.errors import ConfigError
from potstill.metrics import multilabel
from potstill.metrics.choice import Metric, class_balances
from potstill.metrics.classification import Classification
from potstill.training.losses import METHODS, check_method, multilabel_distill_loss, multilabel_task_loss


def by_definition(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision as scikit-learn defines it: the sum over the thresholds of (R_n - R_{n-1}) P_n."""
    found, before = 0.0, 0.0
    for least in np.unique(scores)[::-1]:
        given = scores >= least
        precision, recall = truth[given].mean(), truth[given].sum() / truth.sum()
        found, before = found + (recall - before) * precision, recall
    return found


@given(
    arrays.arrays(np.float64, (30,), elements=st.integers(-5, 5).map(float)),
    arrays.arrays(bool, (30,)).filter(lambda truth: truth.any() and not truth.all()),
)
@settings(max_examples=60)
def test_average_precision_is_that_of_scikit_learn(scores: np.ndarray, truth: np.ndarray) -> None:
    (found,) = multilabel.average_precisions(scores[:, None], truth[:, None].astype(int))
    assert found == pytest.approx(by_definition(scores, truth))


def test_a_known_value_of_scikit_learn() -> None:
    """average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) is 0.8333… in its documentation."""
    logits, labels = np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0], [0], [1], [1]])
    assert multilabel.mean_average_precision(logits, labels) == pytest.approx(0.8333333)


def test_average_precision_can_be_measured_at_another_share() -> None:
    """Photos that are there k times, and photos of weight k, are the same."""
    draw = np.random.default_rng(2)
    labels = (draw.random((40, 2)) < 0.3).astype(int)
    logits = draw.normal(size=(40, 2)) + labels
    repeated = np.repeat(np.arange(40), np.where(labels[:, 0] > 0, 4, 1))
    share = labels[repeated, 0].mean()
    found = multilabel.average_precisions(logits, labels, np.array([share, labels[:, 1].mean()]))
    plain = multilabel.average_precisions(logits, labels)
    assert found[0] == pytest.approx(multilabel.average_precisions(logits[repeated], labels[repeated])[0], abs=1e-6)
    assert found[1] == pytest.approx(plain[1], abs=1e-6)
    assert found[0] > plain[0] + 0.05, "a class is easier to find where it is frequent"
    drawn = multilabel.resampled_average_precisions(logits[None], labels, resamples=200, shares=np.array([share, 0.3]))
    assert drawn[:, 0].min() < found[0] < drawn[:, 0].max()


def test_classes_that_cannot_be_ranked_are_left_out() -> None:
    logits = np.array([[1.0, 5, 0], [0, 4, 1], [-1, 3, 2]])
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0]])
    assert multilabel.mean_average_precision(logits, labels) == 1
    assert np.isnan(multilabel.average_precisions(logits, labels)).tolist() == [False, True, True]


def test_thresholds_are_where_f1_is_highest() -> None:
    probabilities = np.array([[0.9, 0.2], [0.8, 0.7], [0.3, 0.1], [0.2, 0.6]])
    labels = np.array([[1, 1], [1, 1], [0, 1], [0, 1]])
    first, second = multilabel.place_thresholds(probabilities, labels)
    assert first == pytest.approx(0.55)
    assert second == 0.5  # every photo has the class
    for candidate in np.linspace(0.01, 0.99, 99):
        given_at, best = probabilities[:, :1] >= candidate, probabilities[:, :1] >= first
        assert (
            multilabel.f1_scores(given_at[None], labels[:, :1])[0] <= multilabel.f1_scores(best[None], labels[:, :1])[0]
        )


def test_the_calibration_error_counts_every_decision() -> None:
    assert multilabel.ece(np.array([[0.25, 0.25], [0.25, 0.25]]), np.array([[1, 0], [0, 0]])) == pytest.approx(0)
    assert multilabel.ece(np.array([[0.9], [0.9]]), np.array([[0], [0]])) == pytest.approx(0.9)


def test_the_temperature_repairs_overconfidence() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(4000, 3))
    labels = (draw.random((4000, 3)) < multilabel.sigmoid(logits)).astype(int)
    assert multilabel.temperature_of(3 * logits, labels) == pytest.approx(3, rel=0.1)


def test_the_same_models_differ_by_nothing_and_better_ones_by_more() -> None:
    draw = np.random.default_rng(1)
    labels = (draw.random((80, 3)) < 0.4).astype(int)
    noise = draw.normal(size=(2, 80, 3))
    weak, strong = noise + 0.5 * labels, noise + 3 * labels
    drawn = [multilabel.resampled_average_precisions(z, labels, resamples=300) for z in (weak, strong, weak)]
    measured = [np.mean([multilabel.average_precisions(z, labels) for z in arm], axis=0) for arm in (weak, strong)]
    same = multilabel.mean_interval(measured[0] - measured[0], drawn[0] - drawn[2], 0.95)
    gain = multilabel.mean_interval(measured[1] - measured[0], drawn[1] - drawn[0], 0.95)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert 0 < gain.low < gain.value < gain.high


def test_losses_are_0_for_equals_and_take_no_notice_of_photos_without_labels() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert multilabel_distill_loss(logits, logits, temperature=2.0).abs().max() < 1e-6
    targets = torch.tensor([[1.0, 0, 1], [float("nan")] * 3, [0, 0, 0], [1, 1, 1]])
    found = multilabel_task_loss(logits, targets)
    assert found[1] == 0
    expected = -(torch.sigmoid(logits[0, [0, 2]]).log().sum() + torch.sigmoid(-logits[0, 1]).log())
    assert found[0] == pytest.approx(float(expected), rel=1e-5)
    leaf = logits.clone().requires_grad_()
    multilabel_task_loss(leaf, targets).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert (leaf.grad[1] == 0).all()


def test_the_distillation_is_the_divergence_of_yes_and_no() -> None:
    student, teacher = torch.tensor([[0.3, -1.0]]), torch.tensor([[2.0, 0.5]])
    expected = 0.0
    for s, t in zip(student[0] / 3, teacher[0] / 3, strict=True):
        p, q = 1 / (1 + math.exp(-t)), 1 / (1 + math.exp(-s))
        expected += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert float(multilabel_distill_loss(student, teacher, temperature=3.0)) == pytest.approx(9 * expected, rel=1e-4)


def test_several_models_are_one_by_their_mean_probability() -> None:
    logits = [np.array([[0.0, 2.0]]), np.array([[1.0, -2.0]])]
    mean = multilabel.sigmoid(Classification.of(True).mean_logits(logits))
    assert mean == pytest.approx((multilabel.sigmoid(logits[0]) + multilabel.sigmoid(logits[1])) / 2)


def test_what_is_for_one_label_is_refused() -> None:
    assert metric_of("accuracy", several_labels=True) == "mAP"
    assert metric_of("balanced", several_labels=False) == "balanced"
    with pytest.raises(ConfigError, match="metric 'balanced' is for photos with one label each"):
        metric_of("balanced", several_labels=True)
    assert class_balances("mAP", "auto") == ("none",)
    check_method("kl", 2, several_labels=True)
    for name in METHODS.keys() - {"kl"}:
        with pytest.raises(ConfigError, match="is for photos with one label each"):
            check_method(name, 9, several_labels=True)


def test_settings_are_chosen_by_the_binary_nll() -> None:
    metric = Metric.of("mAP", ("a", "b"))
    logits, labels = np.array([[3.0, -3], [-3, 3], [2, 1]]), np.array([[1, 0], [0, 1], [1, 1]])
    assert metric.value(logits, labels) == 1
    assert metric.loss(logits, labels) < metric.loss(-logits, labels)


def test_differences_of_runs_have_the_same_photos_and_seeds_of_their_own() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random((60, 3)) < 0.4
    first, second = (labels[None] + generator.normal(0, 1, (1, 60, 3)) for _ in range(2))
    drawn = [multilabel.resampled_average_precisions(z, labels, resamples=40) for z in (first, second)]
    found = multilabel.resampled_differences(first, second, labels, resamples=40)
    assert found == pytest.approx(drawn[0] - drawn[1]), "with one seed each, the photos are all that is drawn"
    several = np.concatenate([first, second])
    apart = multilabel.resampled_differences(several, several, labels, resamples=40)
    assert apart.std() > 0, "the seeds of two runs have nothing in common, even if they are alike"
    assert abs(apart.mean()) < apart.std() / 3
