"""Which students to train when only a limit is given: size on disk, multiply-accumulates, or time per photo.

Of small models at several input sizes the costliest that fit are taken, each model once: within a budget, more
computation is the best single predictor of accuracy. Which of them is deployed is then decided on val.
"""

from dataclasses import dataclass

import torch

from potstill.config.schema import BudgetConfig, Config
from potstill.errors import ConfigError
from potstill.models.classifier import Classifier, build, describe
from potstill.models.costs import macs_of, milliseconds_of, parameters_of
from potstill.models.weights import is_available
from potstill.models.zoo import construct

CANDIDATES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("mobilenetv1_025", (96, 128, 160)),
    ("mobilenetv3_small_050", (128, 160, 224)),
    ("mobilenetv3_small_100", (128, 160, 224)),
    ("mobilenetv1_050", (128, 160)),
    ("mobilenetv4_conv_small", (128, 160, 224)),
    ("mobilenetv2_100", (128, 160, 224)),
    ("efficientnet_lite0", (96, 128, 160, 224)),
    ("mobilenetv3_large_100", (160, 224)),
)
"""Models and input sizes, small to large."""


UNITS: dict[str, dict[str, float]] = {
    "budget.max_megabytes": {"MB": 1.0, "kB": 1e-3, "MiB": 1.048576},
    "budget.max_mmacs": {"M": 1.0, "G": 1e3, "k": 1e-3},
    "budget.max_milliseconds": {"ms": 1.0, "s": 1e3},
}
"""How people write the limits."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model at one size, and what it costs with a head of few classes."""

    model: str
    size: int
    megabytes: float
    mmacs: float

    @property
    def name(self) -> str:
        return f"{self.model}@{self.size}"


def is_set(budget: BudgetConfig) -> bool:
    """Whether there is any limit."""
    return bool(budget.max_megabytes or budget.max_mmacs or budget.max_milliseconds)


def candidates(config: Config, classes: int) -> tuple[str, ...]:
    """The students to train for `config.budget`, costliest first.

    Raises:
        ConfigError: nothing fits; the message has the smallest candidate.
    """
    budget = config.budget
    known = [candidate for model, sizes in CANDIDATES for candidate in _with_costs(model, sizes, classes)]
    known.sort(key=lambda candidate: -candidate.mmacs)
    chosen: list[Candidate] = []
    for candidate in known:
        if len(chosen) == budget.candidates:
            break
        if _fits(candidate, budget, classes) and candidate.model not in {c.model for c in chosen}:
            info = describe(candidate.model, (), size=candidate.size)
            if is_available(info.architecture, info.arguments, config.student.weights):
                chosen.append(candidate)
    if not chosen:
        least = known[-1]
        raise ConfigError(
            f"No student fits the budget ({_limits(budget)}) with weights that are available here. The smallest, "
            f"{least.name}, has {least.megabytes:.2f} MB and {least.mmacs:.1f} million MACs.\n"
            "  Raise a limit, train from scratch (--student.weights none), or name students and their weights "
            "(--students NAME@SIZE=FILE)."
        )
    return tuple(candidate.name for candidate in chosen)


def _with_costs(model: str, sizes: tuple[int, ...], classes: int) -> list[Candidate]:
    """Counted once, at the largest size: the work of convolutions grows with the area."""
    largest = max(sizes)
    info = describe(model, [str(i) for i in range(classes)], size=largest)
    with torch.device("meta"):
        empty = Classifier(construct(info.architecture, {**info.arguments, "num_classes": classes}), info)
    megabytes, mmacs = 4 * parameters_of(empty) / 1e6, macs_of(empty) / 1e6
    return [Candidate(model, size, megabytes, mmacs * (size / largest) ** 2) for size in sizes]


def _fits(candidate: Candidate, budget: BudgetConfig, classes: int) -> bool:
    if budget.max_megabytes and candidate.megabytes > budget.max_megabytes:
        return False
    if budget.max_mmacs and candidate.mmacs > budget.max_mmacs:
        return False
    if not budget.max_milliseconds:
        return True
    model = build(describe(candidate.model, [str(i) for i in range(classes)], size=candidate.size))
    return milliseconds_of(model) <= budget.max_milliseconds


def _limits(budget: BudgetConfig) -> str:
    parts = [
        f"{budget.max_megabytes:g} MB" if budget.max_megabytes else "",
        f"{budget.max_mmacs:g} million MACs" if budget.max_mmacs else "",
        f"{budget.max_milliseconds:g} ms" if budget.max_milliseconds else "",
    ]
    return ", ".join(part for part in parts if part)


def parse_amount(text: str, units: dict[str, float], name: str) -> float:
    """`3MB`, `50M`, `5ms` as a number. Raises ConfigError with the units that are known."""
    stripped = text.strip().lower().replace(" ", "")
    for unit in sorted(units, key=len, reverse=True):
        number = stripped.removesuffix(unit.lower())
        if stripped.endswith(unit.lower()) and number.replace(".", "", 1).isdecimal():
            return float(number) * units[unit]
    raise ConfigError(f"{name} {text!r} is not an amount such as 3{next(iter(units))}.")
