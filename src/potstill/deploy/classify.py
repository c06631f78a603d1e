"""The work of `potstill predict`: classify what was given, write what was predicted, sort the photos."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from potstill.deploy.batches import Model, predict_each
from potstill.deploy.inputs import Inputs
from potstill.deploy.outputs import Write
from potstill.deploy.predictor import LabelsPrediction
from potstill.deploy.sorting import Sorter
from potstill.errors import DataError
from potstill.wording import counted


@dataclass(slots=True)
class Summary:
    """What came of it."""

    by_label: Counter[str] = field(default_factory=Counter)
    unsure: int = 0
    several: int = 0
    """Photos that a model for several labels classified: each counts for all of its labels, or for none."""
    failed: int = 0
    """Photos that could not be read."""
    seconds: float = 0.0

    @property
    def photos(self) -> int:
        return (self.several or self.by_label.total()) + self.failed

    def line(self) -> str:
        """For people."""
        parts = [f"{count:,} {label}" for label, count in self.by_label.most_common()]
        parts += [f"{self.failed:,} could not be read"] if self.failed else []
        unsure = f"; {self.unsure:,} of them unsure" if self.unsure else ""
        pace = f"{self.photos / self.seconds:,.0f} per second" if self.seconds > 0 else ""
        return f"{counted(self.photos, 'photo')} ({', '.join(parts)}{unsure}) in {self.seconds:.1f} s, {pace}"


def classify(
    model: Model,
    inputs: Inputs,
    write: Write,
    *,
    sorter: Sorter | None = None,
    update: Callable[[int], None] = lambda done: None,
    count: int = 0,
) -> Summary:
    """Classify everything that was given, in order.

    Args:
        write: gets every photo's name and prediction.
        sorter: gets every photo that could be read.
        update: gets the number of photos so far.
        count: how many photos there are, about.
    """
    summary, started = Summary(), time.monotonic()
    for name, outcome in predict_each(model, inputs.photos(), count=count):
        write(str(name), outcome)
        if isinstance(outcome, DataError):
            summary.failed += 1
        else:
            if isinstance(outcome, LabelsPrediction):
                summary.several += 1
                summary.by_label.update(outcome.labels)
                update(summary.photos)
                continue
            summary.by_label[outcome.label] += 1
            summary.unsure += not outcome.known
            if sorter is not None and name.path is not None:
                sorter.place(name.path, outcome.label)
        update(summary.photos)
    summary.seconds = time.monotonic() - started
    return summary
