"""What the labeling stage is to do, decided before it starts."""

from dataclasses import dataclass

from potstill.config.schema import ViewsConfig


@dataclass(frozen=True, slots=True)
class SoftLabelsPlan:
    """Whose outputs are stored, for which views."""

    teacher: tuple[str, ...]
    """Names of the teacher's models."""
    views: ViewsConfig
    """The kind of views."""
    num_views: int
    """V, per photo."""
