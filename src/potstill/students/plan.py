"""What the students' stage is to do, decided before it starts: sizes, lengths, recipes and candidates of each student.

Left open is what needs a trained teacher (`SoftLabelFacts`) or a measurement of speed (`potstill.compute.measured`).
"""

from dataclasses import dataclass, replace

from potstill.data.label_errors import NOISY
from potstill.students.recipe import Recipe

LAST_EPOCHS = 6
"""Of the last stage on labeled photos, where there are others."""

STRONG_SMOOTHING = 0.2
"""Label smoothing that the twin may choose as well where labels are noisy."""

MOSTLY_LABELS = 0.5, 0.0, 1.0
"""Loss weights of teacher, features and labels for photos that all have labels: there, these can teach more than the
teacher (docs/LOG.md, 2026-11-28)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftLabelFacts:
    """What is measured on the soft labels, and "auto" settings depend on."""

    confidence: float
    """The teacher's mean top probability on unmixed train views."""
    label_noise: float
    """Estimated share of wrong labels, see `label_noise` in `potstill.data.label_errors`."""
    fine_tuned: bool
    """Whether all networks were fine-tuned per fold, so that the features of two photos differ in their meaning."""

    has_unlabeled: bool
    """Whether there are photos without labels among them, where the labels count for little."""

    has_features: bool = True
    """Whether the teacher's features are known, not its outputs only."""

    @property
    def temperature(self) -> float:
        """Softmax temperature: a saturated teacher is softened."""
        return 4.0 if self.confidence > 0.99 else 2.0 if self.confidence > 0.97 else 1.0

    @property
    def noisy(self) -> bool:
        return self.label_noise >= NOISY


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
    """The student's loss: `shared`, with the weights and the method, as far as they need no soft labels."""
    auto: frozenset[str]
    """Those of its settings that are "auto"."""
    lr_factors: tuple[float, ...]
    label_smoothing: tuple[float, ...]
    """Values from which the twin chooses on val."""
    length_shares: tuple[float, ...]
    """Shares of the student's epochs from which the twin chooses on val how long it is trained."""
    search_weights: bool
    """Whether twice the temperature and no feature loss are candidates, where these are "auto"."""
    class_balances: tuple[str, ...]
    """Ways to make up for classes of unequal size from which student and twin each choose on val."""
    pilot_epochs: int
    """For how many epochs each candidate is trained before one is chosen; 0: no pilots, the first is taken."""
    start: str = ""
    """The folder of an earlier run's student, whose weights trainings start from; "": from the starting weights."""

    def distilled(self, facts: SoftLabelFacts) -> list[Recipe]:
        """The student's candidates, the one by rule first."""
        rule = self.distillation
        if "temperature" in self.auto:
            rule = replace(rule, temperature=facts.temperature)
        if not facts.has_features or ("feature_weight" in self.auto and facts.fine_tuned and rule.distill_weight):
            rule = replace(rule, feature_weight=0.0)
        if "task_weight" in self.auto and facts.noisy:
            rule = replace(rule, task_weight=0.0)
        if "last_epochs" in self.auto and facts.has_unlabeled and not facts.noisy:
            rule = replace(rule, last_epochs=LAST_EPOCHS)
        candidates = [
            replace(rule, lr=rule.lr * factor, class_balance=balance)
            for balance in self.class_balances
            for factor in self.lr_factors
        ]
        rule = replace(rule, class_balance=self.class_balances[0])
        if self.search_weights and "temperature" in self.auto:
            candidates.append(replace(rule, temperature=2 * rule.temperature))
        if self.search_weights and "feature_weight" in self.auto and rule.distill_weight and rule.feature_weight:
            candidates.append(replace(rule, feature_weight=0.0))
        return candidates

    def alone(self, facts: SoftLabelFacts) -> list[Recipe]:
        """The twin's candidates."""
        smoothing = self.label_smoothing + ((STRONG_SMOOTHING,) if facts.noisy else ())
        return [
            replace(
                self.shared, task_weight=1.0, label_smoothing=each, lr=self.shared.lr * factor, class_balance=balance
            )
            for balance in self.class_balances
            for factor in self.lr_factors
            for each in dict.fromkeys(smoothing)
        ]

    def lengths(self, twin: Recipe) -> list[Recipe]:
        """The twin's recipe at every length that is tried, the longest first; one where all come to the same."""
        epochs = {max(1, round(share * self.shared.epochs)) for share in self.length_shares}
        return [replace(twin, epochs=count) for count in sorted(epochs, reverse=True)]

    def finalists(self, best: Recipe, twin: Recipe, facts: SoftLabelFacts) -> list[Recipe]:
        """The student's recipes that are trained in full, for val to choose from.

        Args:
            best: of its pilots.
            twin: the best of the twin's pilots. Its learning rate suits `MOSTLY_LABELS`.
        """
        if facts.has_unlabeled or facts.noisy or not self.may_learn_mostly_from_labels:
            return [best]
        distill, features, labels = MOSTLY_LABELS
        weighted = replace(best, distill_weight=distill, feature_weight=features, task_weight=labels)
        return [best, replace(weighted, lr=twin.lr, class_balance=twin.class_balance)]

    @property
    def may_learn_mostly_from_labels(self) -> bool:
        """Whether `MOSTLY_LABELS` are tried where all photos are labeled, and the labels are good."""
        return self.pilot_epochs > 0 and self.auto >= {"distill_weight", "feature_weight", "task_weight"}

    @property
    def may_drop_teacher(self) -> bool:
        """Whether the student learns without the teacher where the twin is clearly better on val."""
        return bool(self.auto & {"distill_weight", "feature_weight"})

    @property
    def num_pilots(self) -> int:
        """Candidates of student and twin that are trained for a share of the epochs."""
        facts = SoftLabelFacts(confidence=0.0, label_noise=0.0, fine_tuned=False, has_unlabeled=False)
        counts = len(self.distilled(facts)), len(self.alone(facts))
        return sum(count for count in counts if count > 1) if self.pilot_epochs else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentsPlan:
    """All students of a command."""

    students: tuple[StudentPlan, ...]
    seeds: int
    """Each student and its twin are trained this many times."""
    twins: bool = True
    """Whether the twins are trained now; without, students come first and nothing is compared."""
    cache_gb: float
    """Disk for rendered views."""
