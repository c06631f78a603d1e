"""Metrics against brute force, published values and what they must recover."""

import itertools
import math

import numpy as np
import pytest

from potstill import metrics


def test_mcnemar_is_the_exact_binomial_test_by_enumeration() -> None:
    for b, c in [(0, 0), (1, 0), (5, 1), (8, 3), (4, 4), (0, 9)]:
        first = np.array([True] * b + [False] * c + [True] * 5)
        second = np.array([False] * b + [True] * c + [True] * 5)
        n = b + c
        # Every way that n fair coins can fall, and how many are at least as lopsided.
        falls = [sum(coins) for coins in itertools.product((0, 1), repeat=n)]
        expected = sum(abs(k - n / 2) >= abs(b - n / 2) for k in falls) / 2**n
        only_first, only_second, p = metrics.mcnemar(first, second)
        assert (only_first, only_second) == (b, c)
        assert p == pytest.approx(expected)


def test_mcnemar_with_thousands_of_photos_does_not_overflow() -> None:
    first, second = np.arange(40_000) % 2 == 0, np.arange(40_000) % 2 == 1
    assert metrics.mcnemar(first, second)[2] == pytest.approx(1.0)
    assert metrics.mcnemar(np.ones(900, bool), np.zeros(900, bool))[2] == pytest.approx(2.0**-899)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_has_the_published_values(right: int, total: int, low: float, high: float) -> None:
    assert metrics.wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_stays_within_zero_and_one() -> None:
    assert metrics.wilson_interval(0, 1)[0] == 0
    assert metrics.wilson_interval(1, 1)[1] == pytest.approx(1)


def _sure(probability: float, answer: int) -> list[float]:
    values = [math.log(1 - probability), math.log(1 - probability)]
    values[answer] = math.log(probability)
    return values


def test_ece_of_a_hand_made_case() -> None:
    # Four photos at 0.9, three right: gap 0.15. Six at 0.6, three right: gap 0.1.
    logits = np.array([_sure(0.9, 0)] * 4 + [_sure(0.6, 1)] * 6)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0, 0])
    assert metrics.ece(logits, labels) == pytest.approx(0.4 * 0.15 + 0.6 * 0.1)
    assert metrics.ece(np.array([[50.0, 0.0]] * 3), np.zeros(3, int)) == pytest.approx(0, abs=1e-9)


def test_nll_and_accuracy_by_hand() -> None:
    logits, labels = np.array([_sure(0.9, 0), _sure(0.75, 1)]), np.array([0, 0])
    assert metrics.nll(logits, labels) == pytest.approx(-(math.log(0.9) + math.log(0.25)) / 2)
    assert metrics.accuracy(logits, labels) == 0.5
    assert np.isfinite(metrics.nll(np.array([[1e4, -1e4]]), np.array([1])))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_fit_temperature_finds_the_temperature_that_was_put_in(temperature: float) -> None:
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 1.5, (20_000, 4))
    labels = (metrics.softmax(honest).cumsum(-1) > generator.random((20_000, 1))).argmax(-1)
    assert metrics.fit_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_a_temperature_is_near_1_where_few_photos_cannot_tell_it() -> None:
    right, wrong = np.zeros(20, int), np.ones(20, int)
    logits = np.tile([5.0, 0.0], (20, 1))
    assert 0.7 < metrics.fit_temperature(logits, right) < 0.9, "without a prior 0.05"
    assert metrics.fit_temperature(logits, wrong) == pytest.approx(20, rel=0.01), (
        "20 photos that say otherwise count more"
    )
    assert 0.9 < metrics.fit_temperature(logits[:1], right[:1]) < 1


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    """With one seed it is the interval of a mean over photos: 95 % within simulation error (±3 σ of 200 draws)."""
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        right = (generator.random((1, 200)) < 0.7).astype(float)
        interval = metrics.bootstrap_mean(right, resamples=300, seed=trial)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 <= covered / 200 <= 0.995


def test_bootstrap_is_wider_where_seeds_differ() -> None:
    same = np.tile(np.arange(100) % 2, (4, 1)).astype(float)
    differing = np.stack([np.full(100, value) for value in (0.2, 0.4, 0.6, 0.8)])
    assert same.mean() == differing.mean() == 0.5
    narrow, wide = (metrics.bootstrap_mean(x, resamples=2000) for x in (same, differing))
    assert narrow.value == wide.value == 0.5
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def _photos_of_people(generator: np.random.Generator, people: int, each: int, alike: float) -> tuple[np.ndarray, ...]:
    """(1, n) rightness of photos of some people, and (n,) who is on each. Of a share of the people, all photos go the
    same way."""
    own = generator.random((people, each)) < 0.7
    same = np.repeat(generator.random((people, 1)) < 0.7, each, axis=1)
    right = np.where(generator.random((people, 1)) < alike, same, own)
    return right.reshape(1, -1).astype(float), np.repeat(np.arange(people), each)


def test_bootstrap_of_groups_is_wider_where_photos_of_a_group_are_alike() -> None:
    right, people = _photos_of_people(np.random.default_rng(0), 40, 10, alike=1.0)
    photos, groups = (metrics.bootstrap_mean(right, resamples=2000, groups=g) for g in (None, people))
    assert photos.value == groups.value
    assert groups.high - groups.low == pytest.approx(10**0.5 * (photos.high - photos.low), rel=0.15)
    assert metrics.design_effect(right[0], people) == pytest.approx(10)
    one_each = metrics.bootstrap_mean(right, resamples=2000, groups=np.arange(right.size))
    assert one_each.low == pytest.approx(photos.low, abs=0.005), "groups of one photo are photos"
    right, people = _photos_of_people(np.random.default_rng(0), 40, 10, alike=0.0)
    photos, groups = (metrics.bootstrap_mean(right, resamples=2000, groups=g) for g in (None, people))
    assert groups.high - groups.low == pytest.approx(photos.high - photos.low, rel=0.25)
    assert metrics.design_effect(right[0], None) == 1


@pytest.mark.parametrize(("drawn", "least", "most"), [("groups", 0.88, 0.99), ("photos", 0.0, 0.75)])
def test_only_the_bootstrap_of_groups_covers_the_truth_of_groups(drawn: str, least: float, most: float) -> None:
    generator, covered = np.random.default_rng(2), 0
    for trial in range(150):
        right, people = _photos_of_people(generator, 60, 8, alike=1.0)
        groups = people if drawn == "groups" else None
        interval = metrics.bootstrap_mean(right, resamples=200, seed=trial, groups=groups)
        covered += interval.low <= 0.7 <= interval.high
    assert least <= covered / 150 <= most


def test_accuracy_without_groups_has_wilsons_interval() -> None:
    right = np.arange(50) >= 10
    alone = metrics.accuracy_interval(right, confidence=0.9)
    assert (alone.low, alone.high) == metrics.wilson_interval(40, 50, 0.9)
    together = metrics.accuracy_interval(right, confidence=0.9, groups=np.arange(50) // 5)
    assert alone.value == together.value == 0.8
    assert together.high - together.low > alone.high - alone.low


def test_bootstrap_of_paired_differences_is_zero_when_models_agree() -> None:
    interval = metrics.bootstrap_mean(np.zeros((3, 50)), resamples=500)
    assert (interval.value, interval.low, interval.high) == (0, 0, 0)
    assert interval.low <= 0 <= interval.high


def test_mean_probability_logits_average_probabilities_not_logits() -> None:
    one, other = np.array([[4.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 2.0]])
    both = metrics.softmax(metrics.mean_probability_logits([one, other]))
    assert both == pytest.approx((metrics.softmax(one) + metrics.softmax(other)) / 2, abs=1e-6)
    assert metrics.mean_probability_logits([one]) is one


def test_confusion_and_agreement() -> None:
    logits, labels = np.eye(3)[[0, 1, 1, 2]], np.array([0, 0, 1, 2])
    assert metrics.confusion(logits, labels).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert metrics.agreement(logits, np.eye(3)[[0, 1, 2, 2]]) == 0.75


def test_smallest_visible_difference_shrinks_with_the_root_of_the_photos() -> None:
    few, many = (metrics.smallest_visible_difference(0.2, n) for n in (100, 10_000))
    assert few / many == pytest.approx(10)
    assert few == pytest.approx(2.8 * math.sqrt(0.2 / 100))
