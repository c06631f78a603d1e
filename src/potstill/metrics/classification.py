"""The one place that tells photos with one label each from photos with several: how logits become probabilities, and
what is measured of them. `Classification.of` gives the one that a set of photos or a model needs."""

from collections.abc import Callable
from dataclasses import dataclass

from potstill import metrics
from potstill.metrics import Array, multilabel


@dataclass(frozen=True, slots=True)
class Classification:
    """A kind of classification. Labels are (n,) class indices, or with several labels (n, C) of 0 and 1."""

    several_labels: bool
    probabilities: Callable[[Array], Array]
    """Of logits (…, C)."""
    logits: Callable[[Array], Array]
    """Of probabilities (…, C), the way back."""
    mean_logits: Callable[[list[Array]], Array]
    """Several models as one: the logits of their mean probabilities."""
    nll_of_each: Callable[[Array, Array], Array]
    """(n,) of logits and labels."""
    accuracy: Callable[[Array, Array], float]
    """Share of photos that are right, with all of their labels."""
    score: Callable[[Array, Array], float]
    """What counts most: accuracy, or mAP."""
    score_title: str
    agreement: Callable[[Array, Array], float]
    """Of the logits of two models."""
    certainty: Callable[[Array], Array]
    """(…,) how sure probabilities (…, C) are."""

    @classmethod
    def of(cls, several_labels: bool) -> "Classification":
        """The kind for photos that may have several labels, or have one each."""
        return MULTI_LABEL if several_labels else MULTI_CLASS

    def fit_temperature(self, logits: Array, labels: Array) -> float:
        """The temperature that minimizes the NLL."""
        return metrics.fit_temperature(logits, labels, nll=self.nll_of_each)

    def nll(self, logits: Array, labels: Array) -> float:
        """Mean over the photos."""
        return float(self.nll_of_each(logits, labels).mean())

    def nll_scaled(self, logits: Array, labels: Array) -> float:
        """The NLL after temperature scaling."""
        return self.nll(logits / self.fit_temperature(logits, labels), labels)


MULTI_CLASS = Classification(
    several_labels=False,
    probabilities=metrics.softmax,
    logits=metrics.logits_of,
    mean_logits=metrics.mean_probability_logits,
    nll_of_each=metrics.nll_of_each,
    accuracy=metrics.accuracy,
    score=metrics.accuracy,
    score_title="accuracy",
    agreement=metrics.agreement,
    certainty=lambda probabilities: probabilities.max(-1),
)

MULTI_LABEL = Classification(
    several_labels=True,
    probabilities=multilabel.sigmoid,
    logits=multilabel.logits_of,
    mean_logits=multilabel.mean_probability_logits,
    nll_of_each=multilabel.nll_of_each,
    accuracy=multilabel.exact_match,
    score=multilabel.mean_average_precision,
    score_title="mAP",
    agreement=multilabel.agreement,
    certainty=multilabel.certainty,
)
