"""What the students' stage is to do, decided before it starts: sizes, lengths, recipes and candidates of each student.

Two things are left open, because they need a trained teacher or a measurement: the temperature where it is "auto"
(`temperature_for`), and how a training is computed (`potstill.compute.measured`).
"""

from dataclasses import dataclass, replace

from potstill.config.schema import Auto
from potstill.students.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentPlan:
    """One student and its twin."""

    name: str
    """Name of its folder."""
    model: str
    size: int | None
    """Input side in pixels as asked for; None for what the model was trained at."""
    input_size: int
    """Input side in pixels."""
    weights: str
    """Where the starting weights come from; "none": it is trained from scratch."""
    shared: Recipe
    """What student and twin have in common: batch, averaging, the first learning rate, and the student's length."""
    distillation: Recipe
    """The student's loss: `shared`, with the weights and the method. Its temperature counts unless it is "auto"."""
    temperature: float | Auto
    lr_factors: tuple[float, ...]
    label_smoothing: tuple[float, ...]
    """Values from which the twin chooses on val."""
    length_shares: tuple[float, ...]
    """Shares of the student's epochs from which the twin chooses on val how long it is trained."""
    search_temperature: bool
    """Whether twice the temperature is a candidate."""
    search_features: bool
    """Whether no feature loss is a candidate."""
    may_drop_teacher: bool
    """Whether the student learns without the teacher where the twin's best pilot is clearly better on val."""
    pilot_share: float
    """Share of the epochs that each candidate is trained before one is chosen; 0: no pilots, the first is taken."""

    def distilled(self, temperature: float) -> list[Recipe]:
        """The student's candidates, at the temperature that was found for "auto"."""
        rule = self.distillation
        if self.temperature == "auto":
            rule = replace(rule, temperature=temperature)
        candidates = [replace(rule, lr=rule.lr * factor) for factor in self.lr_factors]
        if self.search_temperature:
            candidates.append(replace(rule, temperature=2 * rule.temperature))
        if self.search_features:
            candidates.append(replace(rule, feature_weight=0.0))
        return candidates

    def alone(self) -> list[Recipe]:
        """The twin's candidates."""
        return [
            replace(self.shared, task_weight=1.0, label_smoothing=smoothing, lr=self.shared.lr * factor)
            for factor in self.lr_factors
            for smoothing in self.label_smoothing
        ]

    def lengths(self, twin: Recipe) -> list[Recipe]:
        """The twin's recipe at every length that is tried, the longest first; one where all come to the same."""
        epochs = {max(1, round(share * self.shared.epochs)) for share in self.length_shares}
        return [replace(twin, epochs=count) for count in sorted(epochs, reverse=True)]

    def num_trainings(self, seeds: int) -> float:
        """All trainings of student and twin, counted in trainings of full length: pilots, lengths that the twin tries,
        and all seeds, with the twin at the longest of its lengths."""
        longest, *others = (recipe.epochs / self.shared.epochs for recipe in self.lengths(self.shared))
        return self.num_pilots * self.pilot_share + sum(others) + seeds * (1 + longest)

    @property
    def num_pilots(self) -> int:
        """Candidates of student and twin that are trained for a share of the epochs."""
        counts = len(self.distilled(1.0)), len(self.alone())
        return sum(count for count in counts if count > 1) if self.pilot_share else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentsPlan:
    """All students of a command."""

    students: tuple[StudentPlan, ...]
    seeds: int
    """Each student and its twin are trained this many times."""
    cache_gb: float
    """Disk for rendered views."""


def temperature_for(confidence: float) -> float:
    """The softmax temperature of "auto".

    Args:
        confidence: the teacher's mean top probability on unmixed train views. A saturated teacher is softened.
    """
    return 4.0 if confidence > 0.99 else 2.0 if confidence > 0.97 else 1.0
