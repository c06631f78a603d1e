"""What is chosen by on val: the metric that the user names, and a smooth loss in its place.

A few hundred val photos say little about the accuracy of two settings, and less about the recall of a rare class, but
much about how probable they find the right class. So settings, lengths, crops, seeds and ways of training are chosen by
a loss of the probabilities that has its minimum where the metric is best, and the metric itself only decides which of
several finished students is deployed, with its standard error.

| metric | the loss in its place |
|---|---|
| accuracy | NLL |
| balanced | NLL, every class counting alike whatever its size |
| macro-f1 | 1 − macro F1 of probabilities instead of predictions |
| recall:CLASS | NLL of CLASS against all others, both sides counting alike |
| mAP, with several labels per photo | binary NLL, the mean over the classes |

Recall alone would be won by a model that calls every photo CLASS. That is why both sides count: the metric is the mean
of the share of CLASS that is found and the share of the others that is left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from potstill import metrics
from potstill.config.metric import MetricKind, label_of, parse_metric
from potstill.metrics import multilabel

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Metric:
    """What counts."""

    kind: MetricKind = "accuracy"
    label: int = -1
    """The class of "recall"."""
    class_name: str = ""

    @classmethod
    def of(cls, text: str, classes: Sequence[str]) -> "Metric":
        """The setting `metric`, or mAP, for these classes. Raises ConfigError where it names another class."""
        if text == "mAP":
            return cls("mAP")
        name = parse_metric(text)
        label = label_of(name.class_name, classes, "metric") if name.kind == "recall" else -1
        return cls(name.kind, label, name.class_name)

    @property
    def title(self) -> str:
        """In words, such as `balanced accuracy`."""
        titles = {
            "accuracy": "accuracy",
            "balanced": "balanced accuracy",
            "macro-f1": "macro F1",
            "recall": f"balanced accuracy of {self.class_name} against the rest",
            "mAP": "mAP",
        }
        return titles[self.kind]

    @property
    def loss_title(self) -> str:
        """The loss in words, such as `NLL`."""
        titles = {
            "accuracy": "NLL",
            "balanced": "balanced NLL",
            "macro-f1": "1 − soft F1",
            "recall": f"balanced NLL of {self.class_name}",
            "mAP": "binary NLL",
        }
        return titles[self.kind]

    def value(self, logits: Array, labels: Array) -> float:
        """The metric of the predicted classes, in [0, 1]."""
        if self.kind == "mAP":
            return multilabel.mean_average_precision(logits, labels)
        return float(np.mean(self.value_of_each(logits, labels)))

    def value_of_each(self, logits: Array, labels: Array) -> Array:
        """(n,) whose mean is the metric, and whose spread gives its standard error. Not of mAP, which is no mean."""
        assert self.kind != "mAP"
        predicted = np.eye(logits.shape[-1])[logits.argmax(-1)]
        if self.kind == "accuracy":
            return np.asarray(logits.argmax(-1) == labels, float)
        if self.kind == "macro-f1":
            return _f1_of_each(predicted, labels)
        return self._weights(labels) * self._given(predicted, labels)

    def temperature(self, logits: Array, labels: Array) -> float:
        """The temperature that fits the logits to the labels, with the photos weighted as the metric weights them."""
        if self.kind == "mAP":
            return multilabel.temperature_of(logits, labels)
        weighted = self.kind in ("balanced", "recall")
        return metrics.fit_temperature(logits, labels, self._weights(labels) if weighted else None)

    def loss(self, logits: Array, labels: Array) -> float:
        """The mean of `loss_of_each`."""
        return float(np.mean(self.loss_of_each(logits, labels)))

    def loss_of_each(self, logits: Array, labels: Array) -> Array:
        """(n,) whose mean is the loss after temperature scaling, lower is better; their spread gives its error."""
        scaled = logits / self.temperature(logits, labels)
        if self.kind == "mAP":
            return multilabel.nll_of_each(scaled, labels)
        if self.kind == "accuracy":
            return metrics.nll_of_each(scaled, labels)
        if self.kind == "balanced":
            return self._weights(labels) * metrics.nll_of_each(scaled, labels)
        if self.kind == "macro-f1":
            return 1 - _f1_of_each(metrics.softmax(scaled), labels)
        own = metrics.log_softmax(scaled)
        others = np.delete(own, self.label, axis=-1)
        top = others.max(-1)
        rest = top + np.log(np.exp(others - top[..., None]).sum(-1))
        return -self._weights(labels) * np.where(labels == self.label, own[..., self.label], rest)

    def _weights(self, labels: Array) -> Array:
        """(n,) of mean 1: every class that occurs counts alike, or the class of "recall" and all others together."""
        groups = labels == self.label if self.kind == "recall" else labels
        _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
        return len(labels) / (len(counts) * counts[inverse])

    def _given(self, probabilities: Array, labels: Array) -> Array:
        """(n,) what the probabilities (n, C) give to the truth."""
        if self.kind == "recall":
            own = probabilities[:, self.label]
            return np.where(labels == self.label, own, 1 - own)
        return probabilities[np.arange(len(labels)), labels]


def class_balances(metric: str, setting: str) -> tuple[str, ...]:
    """The ways to make up for classes of unequal size that are tried, by the settings `metric` and `class_balance`."""
    if setting != "auto":
        return (setting,)
    return ("none",) if metric in ("accuracy", "mAP") else ("logit-adjusted", "none")


def _f1_of_each(probabilities: Array, labels: Array) -> Array:
    """(n,) whose mean is the macro F1 over the classes that occur, and whose spread is that of its linear
    approximation (its influence function): F1 is no mean over photos, for its denominators depend on all of them."""
    classes = np.unique(labels)
    truth = (labels[:, None] == classes).astype(float)
    given = probabilities[:, classes]
    hits, size = given * truth, given + truth
    f1 = 2 * hits.sum(0) / size.sum(0)
    influence = (2 * hits - f1 * size) / size.mean(0)
    return f1.mean() + influence.mean(1)


ACCURACY = Metric()


def adjustment(shares: Array) -> Array:
    """(C,) to add to logits of classes with these shares, so that they predict as if all classes were equally frequent.

    Args:
        shares: (C,) above 0, of the classes in what the model learned from.
    Source: Menon et al. 2021, "Long-tail learning via logit adjustment", arXiv:2007.07314, section 4, with τ = 1.
    """
    logs = np.log(shares)
    return np.asarray(logs.mean() - logs)
