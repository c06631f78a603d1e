"""What the comparison is to do, decided before it starts."""

from dataclasses import dataclass

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
