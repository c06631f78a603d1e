"""What the comparison is to do, decided before it starts."""

from dataclasses import dataclass
from pathlib import Path

from potstill.config.schema import ComparisonConfig


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """Which models are compared, and how the intervals are made."""

    teacher: tuple[str, ...]
    """Names of the teacher's models."""
    seeds: int
    config: ComparisonConfig
    metric: str = "accuracy"
    class_balance: str = "auto"
    operating_point: str = ""
    earlier: Path | None = None
    """The run that photos were added to, whose student is compared, too."""
    warm: bool = False
    """Whether trainings started from that run's students."""
