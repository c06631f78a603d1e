"""What the settings `metric` and `operating_point` may say, and which class they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from potstill.errors import ConfigError, did_you_mean

MetricKind = Literal["accuracy", "balanced", "macro-f1", "recall", "mAP"]

WITHOUT_CLASS = ("accuracy", "balanced", "macro-f1")
"""Metrics that are complete without the name of a class."""

NAMED = 20
"""A message names at most so many classes."""


@dataclass(frozen=True, slots=True)
class MetricName:
    """The setting `metric`, taken apart."""

    kind: MetricKind
    class_name: str = ""
    """Of "recall"."""


@dataclass(frozen=True, slots=True)
class Target:
    """The setting `operating_point`, taken apart: of the photos of a class, this share is to be found."""

    class_name: str
    recall: float


def parse_metric(text: str) -> MetricName:
    """`accuracy`, `balanced`, `macro-f1` or `recall:CLASS`. Raises ConfigError for anything else."""
    kind, colon, class_name = text.partition(":")
    if kind in WITHOUT_CLASS and not colon:
        return MetricName(cast(MetricKind, kind))
    if kind == "recall" and class_name:
        return MetricName("recall", class_name)
    near = did_you_mean(text, (*WITHOUT_CLASS, "balanced-accuracy"), cutoff=0.4)
    near = near.replace("balanced-accuracy", "balanced")
    if kind == "recall":
        near = " Name the class, as in recall:CLASS."
    raise ConfigError(f"metric must be {', '.join(WITHOUT_CLASS)} or recall:CLASS, got {text!r}.{near}")


def metric_of(text: str, *, several_labels: bool) -> str:
    """The setting `metric` for photos with one label each or with several.

    Raises:
        ConfigError: it is not for such photos.
    """
    if not several_labels:
        return text
    if text != "accuracy":
        raise ConfigError(
            f"metric {text!r} is for photos with one label each. With several, the metric is always mAP: leave it out."
        )
    return "mAP"


def parse_operating_point(text: str) -> Target | None:
    """`recall:CLASS=SHARE`; None for an empty text.

    Raises:
        ConfigError: anything else, or a share that does not lie between 0 and 1.
    """
    if not text:
        return None
    kind, _, rest = text.partition(":")
    class_name, _, share = rest.rpartition("=")  # a class may have a = in its name
    try:
        recall = float(share)
    except ValueError:
        class_name, recall = "", 0.0
    if kind != "recall" or not class_name:
        raise ConfigError(f"operating_point must be recall:CLASS=SHARE, such as recall:defective=0.95, got {text!r}.")
    if not 0 < recall < 1:
        percent = f" For {recall:g} % write {recall / 100:g}." if 1 < recall < 100 else ""
        raise ConfigError(
            f"The share in operating_point must be above 0 and below 1, got {share} in {text!r}.{percent}"
        )
    return Target(class_name, recall)


def label_of(class_name: str, classes: Sequence[str], setting: str) -> int:
    """The place of a class that a setting names. Raises ConfigError, with the classes, where there is none."""
    if class_name in classes:
        return list(classes).index(class_name)
    more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
    raise ConfigError(
        f"{setting}: there is no class {class_name!r}.{did_you_mean(class_name, classes)}\n"
        f"  The classes are: {', '.join(classes[:NAMED])}{more}."
    )
