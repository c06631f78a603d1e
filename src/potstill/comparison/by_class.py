"""Numbers about each class: recall, precision, ROC and PR curves, and what the thresholds of an operating point do.

All of photos and seeds drawn alike, so that distilled and alone are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from potstill import metrics
from potstill.comparison.plan import ComparisonPlan
from potstill.config.metric import Target, parse_operating_point
from potstill.config.metric import label_of as place_of
from potstill.metrics import Interval
from potstill.metrics.choice import Metric
from potstill.metrics.curves import measured_areas, rankings, resampled_areas
from potstill.metrics.operating_point import place_threshold, recall_range
from potstill.metrics.per_class import Rates, interval, measured_rates, resampled_rates
from potstill.run.results import ByClass, ClassDifferences, OperatingResult, OperatingTarget

CURVES_UP_TO = 30
"""Curves and areas of each class are measured up to so many classes."""

MOST_DRAWN = 50_000_000
"""Photos that are drawn anew for an interval: with more than 5,000 of them there are fewer than 10,000 resamples."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a teacher, student or twin gives the test photos."""

    logits: np.ndarray
    """(S, n, C)."""
    temperatures: tuple[float, ...]
    """One per seed."""
    thresholds: tuple[float, ...] = ()
    """Of the operating point, one per seed; none where there is none."""

    @property
    def probabilities(self) -> np.ndarray:
        """(S, n, C)."""
        return np.stack([metrics.softmax(z / t) for z, t in zip(self.logits, self.temperatures, strict=True)])


@dataclass(frozen=True, slots=True)
class _Areas:
    """Of every class, in order, as in `ByClass`."""

    roc_area: list[Interval | None]
    pr_area: list[Interval | None]
    roc: list[tuple[float, ...]]
    pr: list[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class ClassScores:
    """The classes of the test photos, and how numbers about them are made."""

    classes: Sequence[str]
    labels: np.ndarray
    """(n,)."""
    plan: ComparisonPlan
    groups: np.ndarray | None = None
    """(n,) the group of each photo, where several are of one: intervals draw whole groups."""

    @property
    def resamples(self) -> int:
        """Of photos and seeds, for every interval."""
        return min(self.plan.config.resamples, max(1_000, MOST_DRAWN // len(self.labels)))

    @property
    def target(self) -> Target | None:
        return parse_operating_point(self.plan.operating_point)

    @property
    def target_label(self) -> int:
        """Of the class of the operating point; -1 where there is none."""
        return place_of(self.target.class_name, self.classes, "operating_point") if self.target else -1

    def drawn_classes(self) -> list[int]:
        """Of which curves are drawn: all, or of two the positive one, which is the class that the operating point or
        the metric names, or else the rarer one."""
        present = [label for label in range(len(self.classes)) if 0 < np.sum(self.labels == label) < len(self.labels)]
        if len(self.classes) > CURVES_UP_TO:
            return []
        if len(self.classes) > 2 or not present:
            return present
        named = max(self.target_label, Metric.of(self.plan.metric, self.classes).label)
        return [named if named >= 0 else int(np.bincount(self.labels, minlength=2).argmin())]

    def measure(self, model: Model) -> ByClass:
        """Every number about the classes."""
        predicted, count = model.logits.argmax(-1), len(self.classes)
        now = measured_rates(predicted, self.labels, count)
        drawn = self._drawn(predicted, self.labels, count)
        areas = self._areas(model)
        return ByClass(
            balanced_accuracy=self._known(now.balanced_accuracy[0], drawn.balanced_accuracy),
            macro_f1=self._known(now.macro_f1[0], drawn.macro_f1),
            recall=self._each(now.recall[0], drawn.recall),
            precision=self._each(now.precision[0], drawn.precision),
            roc_area=tuple(areas.roc_area),
            pr_area=tuple(areas.pr_area),
            roc=tuple(areas.roc),
            pr=tuple(areas.pr),
        )

    def _areas(self, model: Model) -> _Areas:
        """Curves and areas of the classes that are drawn; None and empty for the others."""
        probabilities, count = model.probabilities, len(self.classes)
        areas = _Areas([None] * count, [None] * count, [()] * count, [()] * count)
        for label in self.drawn_classes():
            ranked = rankings(probabilities[..., label], self.labels == label)
            drawn = resampled_areas(ranked, resamples=self.resamples, groups=self.groups)
            roc, pr = measured_areas(ranked)
            areas.roc_area[label] = self._interval(roc, drawn[:, 0])
            areas.pr_area[label] = self._interval(pr, drawn[:, 1])
            areas.roc[label] = _rounded(np.mean([own.roc() for own in ranked], axis=0))
            areas.pr[label] = _rounded(np.mean([own.pr() for own in ranked], axis=0))
        return areas

    def differences(self, distilled: Model, alone: Model) -> ClassDifferences:
        """Distilled minus alone, paired."""
        count = len(self.classes)
        predicted = [model.logits.argmax(-1) for model in (distilled, alone)]
        now = [measured_rates(own, self.labels, count) for own in predicted]
        drawn = [
            resampled_rates(own, self.labels, count, resamples=self.resamples, groups=self.groups) for own in predicted
        ]
        balanced, macro = "balanced_accuracy", "macro_f1"
        of = {
            name: self._known(
                float(getattr(now[0], name)[0] - getattr(now[1], name)[0]),
                getattr(drawn[0], name) - getattr(drawn[1], name),
            )
            for name in (balanced, macro)
        }
        return ClassDifferences(
            balanced_accuracy=of[balanced],
            macro_f1=of[macro],
            recall=self._each(now[0].recall[0] - now[1].recall[0], drawn[0].recall - drawn[1].recall),
            false_alarms=self._false_alarm_difference(distilled, alone),
        )

    def operating_target(self, val_labels: np.ndarray) -> OperatingTarget | None:
        """The operating point, and how well val places it."""
        if self.target is None:
            return None
        photos = int(np.sum(val_labels == self.target_label))
        low, high = recall_range(photos, self.target.recall, self.plan.config.confidence)
        return OperatingTarget(
            class_name=self.target.class_name, recall=self.target.recall, val_photos=photos, low=low, high=high
        )

    def threshold(self, val_probabilities: np.ndarray, val_labels: np.ndarray) -> tuple[float, ...]:
        """The threshold of a model without seeds, from its val probabilities (n, C); none without operating point."""
        if self.target is None:
            return ()
        own = val_probabilities[val_labels == self.target_label, self.target_label]
        return (place_threshold(own, self.target.recall),)

    def operating(self, model: Model) -> OperatingResult | None:
        """What the thresholds find of the test photos; None where there is no operating point, or no photo of its
        class or of others in test."""
        if not self._has_operating_point:
            return None
        now, drawn = self._found(model)
        return OperatingResult(
            thresholds=model.thresholds,
            recall=self._known(now.recall[0, 1], drawn.recall[:, 1]),
            false_alarms=self._known(1 - now.recall[0, 0], 1 - drawn.recall[:, 0]),
            precision=self._interval(now.precision[0, 1], drawn.precision[:, 1]),
        )

    @property
    def _has_operating_point(self) -> bool:
        """Whether there is one, and photos of both sides to measure it on."""
        return self.target is not None and 0 < np.sum(self.labels == self.target_label) < len(self.labels)

    def _false_alarm_difference(self, distilled: Model, alone: Model) -> Interval | None:
        if not self._has_operating_point:
            return None
        (first, first_drawn), (second, second_drawn) = self._found(distilled), self._found(alone)
        # A false alarm is a photo of the others that is not left alone.
        return self._known(
            float(second.recall[0, 0] - first.recall[0, 0]), second_drawn.recall[:, 0] - first_drawn.recall[:, 0]
        )

    def _found(self, model: Model) -> tuple[Rates, Rates]:
        """Rates of two groups: 1 for the class of the operating point, 0 for all others."""
        own = model.probabilities[..., self.target_label]
        flagged = (own >= np.array(model.thresholds)[:, None]).astype(int)
        truth = (self.labels == self.target_label).astype(int)
        return measured_rates(flagged, truth, 2), resampled_rates(
            flagged, truth, 2, resamples=self.resamples, groups=self.groups
        )

    def _drawn(self, predicted: np.ndarray, labels: np.ndarray, classes: int) -> Rates:
        return resampled_rates(predicted, labels, classes, resamples=self.resamples, groups=self.groups)

    def _interval(self, value: float, drawn: np.ndarray) -> Interval | None:
        return interval(value, drawn, self.plan.config.confidence)

    def _known(self, value: float, drawn: np.ndarray) -> Interval:
        found = self._interval(value, drawn)
        assert found is not None, "there is a test photo"
        return found

    def _each(self, values: np.ndarray, drawn: np.ndarray) -> tuple[Interval | None, ...]:
        """Of every class: values (C,), drawn (R, C)."""
        return tuple(self._interval(value, drawn[:, label]) for label, value in enumerate(values))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(np.round(values, 5).tolist())
