"""What the teacher's stage is to do, decided before it starts."""

from dataclasses import dataclass

from potstill.config.schema import TeacherConfig, ViewsConfig


@dataclass(frozen=True, slots=True)
class TeacherPlan:
    """Which models, at which input size, trained on what views."""

    config: TeacherConfig
    views: ViewsConfig
    sizes: tuple[int, ...]
    """Input side in pixels of each of `config.model`."""

    @property
    def stored_views(self) -> int:
        """Views per photo whose features are stored: the plain one and `teacher.probe_views` random ones."""
        return 1 + self.config.probe_views
