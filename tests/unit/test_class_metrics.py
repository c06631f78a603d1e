"""Classes of unequal size: what is chosen by, numbers of each class, curves and thresholds, against brute force."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from potstill import metrics
from potstill.comparison.by_class import ClassScores, Model
from potstill.comparison.plan import ComparisonPlan
from potstill.config.load import from_mapping
from potstill.config.metric import Target
from potstill.config.schema import ComparisonConfig
from potstill.deploy.predictor import Prediction
from potstill.errors import ConfigError, DataError
from potstill.metrics.choice import ACCURACY, Metric, adjustment, class_balances
from potstill.metrics.curves import GRID, measured_areas, rankings, resampled_areas
from potstill.metrics.operating_point import highest_recall, least_photos, place_threshold, recall_range
from potstill.metrics.per_class import interval, measured_rates, resampled_rates
from potstill.run.trained import OperatingPoint
from potstill.students.operating_point import require_enough

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Logits (400, 3) that know something of labels (400,), of which a tenth are rare."""
    generator = np.random.default_rng(0)
    labels = generator.choice(3, 400, p=[0.6, 0.3, 0.1])
    return generator.normal(0, 1, (400, 3)) + 2.0 * np.eye(3)[labels] + [1.0, 0.0, -1.0], labels


def brute_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    found = []
    for label in np.unique(labels):
        hits = np.sum((predicted == label) & (labels == label))
        precision, recall = hits / max(np.sum(predicted == label), 1), hits / np.sum(labels == label)
        found.append(2 * precision * recall / max(precision + recall, 1e-12))
    return float(np.mean(found))


def test_by_accuracy_everything_is_chosen_by_the_very_nll_that_it_was(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    assert ACCURACY.loss(logits, labels) == metrics.nll_scaled(logits, labels)
    assert ACCURACY.temperature(logits, labels) == metrics.fit_temperature(logits, labels)
    assert ACCURACY.value(logits, labels) == metrics.accuracy(logits, labels)
    assert class_balances("accuracy", "auto") == ("none",)


def test_every_metric_is_what_its_name_says(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    predicted = logits.argmax(-1)
    assert Metric.of("balanced", CLASSES).value(logits, labels) == pytest.approx(
        metrics.balanced_accuracy(logits, labels)
    )
    assert Metric.of("macro-f1", CLASSES).value(logits, labels) == pytest.approx(brute_f1(predicted, labels))
    found = np.mean(predicted[labels == 2] == 2), np.mean(predicted[labels != 2] != 2)
    assert Metric.of("recall:cow", CLASSES).value(logits, labels) == pytest.approx(np.mean(found))


@pytest.mark.parametrize("text", ["balanced", "recall:cow"])
def test_the_loss_of_a_class_does_not_depend_on_how_many_photos_it_has(
    text: str, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    logits, labels = drawn
    again = np.concatenate([np.arange(400), np.flatnonzero(labels == 2)])
    metric = Metric.of(text, CLASSES)
    # Up to the prior of the temperature, which counts as one photo of 400, or of more.
    assert metric.loss(logits[again], labels[again]) == pytest.approx(metric.loss(logits, labels), abs=1e-5)
    assert metric.value(logits[again], labels[again]) == pytest.approx(metric.value(logits, labels))
    assert ACCURACY.loss(logits[again], labels[again]) != pytest.approx(ACCURACY.loss(logits, labels), abs=1e-6)


@pytest.mark.parametrize("text", ["balanced", "macro-f1", "recall:cow"])
def test_a_better_model_has_a_lower_loss_and_calling_all_the_same_is_no_way_to_it(
    text: str, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    logits, labels = drawn
    metric, better = Metric.of(text, CLASSES), logits + np.eye(3)[labels]
    all_cow = np.tile([0.0, 0.0, 9.0], (400, 1))
    assert metric.loss(better, labels) < metric.loss(logits, labels) < metric.loss(all_cow, labels)
    assert metric.value(all_cow, labels) < metric.value(logits, labels)


@pytest.mark.parametrize("text", ["balanced", "macro-f1", "recall:cow"])
def test_the_spread_over_photos_is_the_standard_error_of_the_metric(
    text: str, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    logits, labels = drawn
    metric, generator = Metric.of(text, CLASSES), np.random.default_rng(1)
    drawn_again = [generator.integers(400, size=400) for _ in range(400)]
    resampled = np.std([metric.value(logits[rows], labels[rows]) for rows in drawn_again])
    of_each = metric.value_of_each(logits, labels)
    assert of_each.std() / 20 == pytest.approx(resampled, rel=0.25)


def test_logit_adjustment_predicts_as_if_all_classes_were_equally_frequent() -> None:
    generator, shares = np.random.default_rng(0), np.array([0.9, 0.1])
    labels = generator.choice(2, 20_000, p=shares)
    x = generator.normal(labels * 2.0, 1)  # the best border for equal classes is 1
    logits = np.stack([np.zeros(20_000), 2 * x - 2 + np.log(1 / 9)], 1)  # the true posterior
    adjusted = logits + adjustment(shares)
    assert np.array_equal(adjusted.argmax(-1) == 1, x > 1)
    balanced = Metric.of("balanced", ("a", "b"))
    assert balanced.loss(adjusted, labels) < balanced.loss(logits, labels)
    assert ACCURACY.loss(logits, labels) < ACCURACY.loss(adjusted, labels)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recal:ant", "metric must be accuracy, balanced, macro-f1 or recall:CLASS"),
        ("f1", "Did you mean 'macro-f1'"),
        ("recall", "Name the class"),
        ("balanced:ant", "metric must be"),
    ],
)
def test_a_metric_that_there_is_not_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_mapping({"metric": text})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recall:cow", "operating_point must be recall:CLASS=SHARE"),
        ("cow=0.9", "operating_point must be recall:CLASS=SHARE"),
        ("recall:cow=much", "operating_point must be recall:CLASS=SHARE"),
        ("recall:cow=95", r"above 0 and below 1, got 95 .* For 95 % write 0\.95"),
        ("recall:cow=0", "above 0 and below 1"),
        ("recall:cow=1", "above 0 and below 1"),
        ("recall:cow=nan", "above 0 and below 1"),
    ],
)
def test_an_operating_point_that_there_is_not_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_mapping({"operating_point": text})


def test_a_class_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"(?s)metric: there is no class 'cows'. Did you mean 'cow'.*ant, bee, cow"):
        Metric.of("recall:cows", CLASSES)


def test_rates_agree_with_brute_force(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = drawn
    predicted = np.stack([logits.argmax(-1), np.roll(labels, 1)])
    found = measured_rates(predicted, labels, 4)  # a fourth class that neither occurs nor is predicted
    for label in range(3):
        hits = [np.mean(own[labels == label] == label) for own in predicted]
        assert found.recall[0, label] == pytest.approx(np.mean(hits))
        assert found.precision[0, label] == pytest.approx(
            np.mean([np.mean(labels[p == label] == label) for p in predicted])
        )
    assert np.isnan(found.recall[0, 3])
    assert np.isnan(found.precision[0, 3])
    assert found.macro_f1[0] == pytest.approx(np.mean([brute_f1(own, labels) for own in predicted]))
    assert found.balanced_accuracy[0] == pytest.approx(found.recall[0, :3].mean())


def test_a_class_that_is_never_predicted_has_no_precision_and_no_part_in_its_interval() -> None:
    labels = np.array([0, 0, 1, 1])
    never, once = np.zeros((1, 4), int), np.array([[0, 0, 0, 0], [0, 0, 0, 1]])
    assert interval(float(measured_rates(never, labels, 2).precision[0, 1]), np.full(9, np.nan), 0.95) is None
    assert measured_rates(once, labels, 2).precision[0, 1] == 1  # of the only seed that predicts it
    assert measured_rates(never, labels, 2).f1[0, 1] == 0


def test_intervals_of_rates_are_those_of_drawing_photos_and_seeds_again() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 100])
    predicted = np.stack([np.where(generator.random(400) < 0.8, labels, 1 - labels) for _ in range(3)])
    found = resampled_rates(predicted, labels, 2, resamples=1500)
    rows = [generator.integers(400, size=400) for _ in range(1500)]
    again = []
    for drawn_rows in rows:
        seeds = generator.integers(3, size=3)
        again.append(np.mean([np.mean(predicted[s][drawn_rows][labels[drawn_rows] == 1] == 1) for s in seeds]))
    assert np.std(found.recall[:, 1]) == pytest.approx(np.std(again), rel=0.1)
    made = interval(0.8, found.recall[:, 1], 0.95)
    assert made is not None
    assert (made.low, made.high) == pytest.approx(tuple(np.quantile(again, [0.025, 0.975])), abs=0.015)


def test_areas_are_the_pairs_in_the_right_order_and_the_precision_at_each_hit() -> None:
    scores = np.array([[0.9, 0.8, 0.8, 0.7, 0.6, 0.6, 0.2]])
    positive = np.array([True, True, False, False, True, False, True])
    pairs = [
        float(a > b) + 0.5 * float(a == b) for a, b in itertools.product(scores[0][positive], scores[0][~positive])
    ]
    at_hits = [np.sum(positive & (scores[0] >= score)) / np.sum(scores[0] >= score) for score in scores[0][positive]]
    roc, pr = measured_areas(rankings(scores, positive))
    assert roc == pytest.approx(np.mean(pairs))
    assert pr == pytest.approx(np.mean(at_hits))


def test_areas_drawn_again_are_paired_and_lie_around_the_measured_one() -> None:
    generator = np.random.default_rng(0)
    positive = np.arange(300) % 3 == 0
    scores = generator.normal(0, 1, (2, 300)) + 1.2 * positive
    drawn = resampled_areas(rankings(scores, positive), resamples=300)
    assert np.array_equal(drawn, resampled_areas(rankings(scores, positive), resamples=300))
    assert drawn.mean(0) == pytest.approx(measured_areas(rankings(scores, positive)), abs=0.02)
    perfect = resampled_areas(rankings(positive[None].astype(float), positive), resamples=300)
    assert np.all(perfect == 1)


def test_curves_begin_and_end_where_all_curves_do() -> None:
    positive = np.array([True, False, True, False])
    (ranked,) = rankings(np.array([[0.9, 0.8, 0.7, 0.1]]), positive)
    roc, pr = ranked.roc(), ranked.pr()
    assert (len(roc), roc[-1]) == (len(GRID), 1)
    assert np.all(np.diff(roc) >= 0)
    assert np.all(np.diff(pr) <= 0)
    assert (pr[0], pr[50], pr[-1]) == (1, 1, pytest.approx(2 / 3))


@pytest.mark.parametrize(("recall", "least"), [(0.95, 19), (0.9, 9), (0.5, 1), (0.99, 99), (0.8, 4), (0.25, 1)])
def test_so_many_val_photos_are_needed(recall: float, least: int) -> None:
    assert least_photos(recall) == least
    assert place_threshold(np.linspace(0.1, 0.9, least), recall) > 0
    if least > 1:
        assert highest_recall(least - 1) < recall


def test_a_threshold_finds_what_was_asked_for_on_average_and_varies_as_is_said() -> None:
    generator = np.random.default_rng(0)
    # Probabilities that are evenly spread: above a threshold t lies the share 1 - t.
    found = np.array([1 - place_threshold(generator.random(30), 0.9) for _ in range(3000)])
    assert 0.9 <= found.mean() < 0.92
    assert np.quantile(found, [0.025, 0.975]) == pytest.approx(recall_range(30, 0.9, 0.95), abs=0.01)


def test_a_threshold_lies_below_the_photo_that_is_to_be_found_and_above_the_one_that_is_not() -> None:
    values = np.array([0.2, 0.20001, 0.5, 0.9, 0.95, 0.97, 0.98, 0.99, 0.999])
    assert 0.19 < place_threshold(values, 0.9) < 0.2
    threshold = place_threshold(np.concatenate([values, np.full(10, 1.0)]), 0.9)
    assert 0.2 < threshold < 0.20001


def test_too_few_val_photos_say_how_many_and_what_they_can_do() -> None:
    require_enough(Target("defective", 0.95), 19)
    with pytest.raises(DataError, match=r"(?s)val has 18 photos of defective.*takes 19 or more.*place one for 0\.94"):
        require_enough(Target("defective", 0.95), 18)
    with pytest.raises(DataError, match=r"(?s)val has 1 photo of defective.*or leave it out"):
        require_enough(Target("defective", 0.95), 1)


POINT = OperatingPoint(class_name="defective", recall=0.9, threshold=0.2)


@pytest.mark.parametrize(
    ("probabilities", "plain", "at_point"),
    [((0.7, 0.25, 0.05), "fine", "defective"), ((0.9, 0.1, 0.0), "fine", "fine"), ((0.1, 0.19, 0.71), "odd", "odd"),
     ((0.05, 0.9, 0.05), "defective", "defective")],
)  # fmt: skip
def test_a_photo_counts_as_one_of_the_class_from_the_threshold_on(
    probabilities: tuple[float, ...], plain: str, at_point: str
) -> None:
    values, classes = np.array(probabilities), ("fine", "defective", "odd")
    assert Prediction.of(values, classes, 0.8).label == plain
    found = Prediction.of(values, classes, 0.8, POINT)
    assert found.label == at_point
    assert found.probability == found.probabilities[at_point]
    assert found.known == (max(probabilities) >= 0.8)


def test_below_the_threshold_the_class_is_not_predicted_even_if_it_is_the_most_probable() -> None:
    strict = replace(POINT, threshold=0.95)
    assert Prediction.of(np.array([0.1, 0.9]), ("fine", "defective"), 0.0, strict).label == "fine"


def comparison_of(labels: np.ndarray, **settings: str) -> ClassScores:
    plan = ComparisonPlan(("t",), 2, ComparisonConfig(resamples=300), **settings)
    return ClassScores(("fine", "defective"), labels, plan)


def test_of_two_classes_the_one_that_is_named_has_the_curve_or_the_rarer_one() -> None:
    labels = np.repeat([0, 1], [30, 10])
    assert comparison_of(labels).drawn_classes() == [1]
    assert comparison_of(1 - labels).drawn_classes() == [0]
    assert comparison_of(labels, metric="recall:fine").drawn_classes() == [0]
    assert comparison_of(labels, operating_point="recall:fine=0.9").drawn_classes() == [0]


def test_the_operating_point_is_measured_with_each_seeds_own_threshold() -> None:
    labels = np.repeat([0, 1], [4, 4])
    own = np.array([[0.1, 0.1, 0.3, 0.6, 0.2, 0.4, 0.8, 0.9], [0.1, 0.2, 0.2, 0.2, 0.3, 0.3, 0.9, 0.9]])
    logits = np.log(np.stack([1 - own, own], -1))
    test = comparison_of(labels, operating_point="recall:defective=0.9")
    found = test.operating(Model(logits, (1.0, 1.0), (0.35, 0.25)))
    assert found is not None
    assert found.recall.value == pytest.approx((3 / 4 + 1) / 2)
    assert found.false_alarms.value == pytest.approx((1 / 4 + 0) / 2)
    assert found.precision is not None
    assert found.precision.value == pytest.approx((3 / 4 + 1) / 2)
    assert found.recall.low <= found.recall.value <= found.recall.high
    alone = Model(logits, (1.0, 1.0), (0.0, 0.0))
    differences = test.differences(Model(logits, (1.0, 1.0), (0.35, 0.25)), alone)
    assert differences.false_alarms is not None
    assert differences.false_alarms.value == pytest.approx(1 / 8 - 1)
    assert comparison_of(labels).operating(alone) is None


def test_a_model_against_itself_has_no_difference_and_its_areas_are_those_of_its_probabilities() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 20])
    logits = generator.normal(0, 1, (2, 80, 2)) + 1.5 * np.eye(2)[labels]
    test, model = comparison_of(labels), Model(logits, (1.0, 2.0))
    same = test.differences(model, model)
    assert same.balanced_accuracy == metrics.Interval(0, 0, 0)
    assert same.recall == (metrics.Interval(0, 0, 0),) * 2
    found = test.measure(model)
    assert (found.roc_area[0], found.roc[0], len(found.roc[1])) == (None, (), 101)
    assert found.roc_area[1] is not None
    assert math.isclose(
        found.roc_area[1].value, measured_areas(rankings(logits[..., 1] - logits[..., 0], labels == 1))[0]
    )
    assert found.balanced_accuracy.low < found.balanced_accuracy.value < found.balanced_accuracy.high
