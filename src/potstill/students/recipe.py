"""How one model is trained, everything decided, and the training as a job in a folder of its own."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from potstill.config.schema import Auto
from potstill.errors import DataError
from potstill.run.files import read_json
from potstill.run.layout import ARMS

_UNSEEN = {"metric": "accuracy", "class_balance": "none"}
"""Fields and values that a training's inputs do not name: trainings from before there was a choice had these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How one model is trained, everything decided. With all distillation weights 0 it is a twin."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    ema: float
    dtype: str
    soft_labels: str
    """Digest of the soft labels that it learns from, or of the job's own targets."""
    method: str = "kl"
    temperature: float = 1.0
    distill_weight: float = 0.0
    feature_weight: float = 0.0
    task_weight: float = 1.0
    label_smoothing: float = 0.0
    last_epochs: int = 0
    """Epochs of a last stage on the labeled photos only."""
    crop_pct: float | Auto = "auto"
    """Of the trained model; "auto": one of `CROPS`, by val."""
    metric: str = "accuracy"
    """What is chosen by on val, as the setting of this name."""
    class_balance: str = "none"
    """"none", "logit-adjusted" or "weighted", see `potstill.training.losses`."""
    operating_point: str = ""
    """The setting of this name: a threshold is stored with the model, which does not depend on it."""
    compile: bool = False
    """By `torch.compile`: the same model up to rounding, so a finished one does not depend on it."""

    @property
    def arm(self) -> str:
        """Whether a teacher takes part. A distilled student whose pilots chose "no teacher" is trained like a twin."""
        return "distilled" if self.distill_weight or self.feature_weight else "alone"

    def steps(self, photos: int) -> int:
        """Training steps, of student and twin alike: `photos` counts the unlabeled ones too."""
        return self.epochs * max(1, photos // self.batch_size)


@dataclass(frozen=True, slots=True)
class Job:
    """One model to train, and the folder that it ends up in."""

    folder: Path
    model: str
    size: int | None
    weights: str
    seed: int
    recipe: Recipe
    labeled_share: float = 1.0
    """Share of the labeled training photos that it learns from, in as many steps; drawn by the seed."""
    unlabeled_share: float = 1.0
    """The same of the photos without a label."""
    targets: str = ""
    """Folder below the run's that holds other soft labels to learn from, or other labels in `labels.npy`; "": what the
    run has. `Recipe.soft_labels` is its digest."""
    start: str = ""
    """Folder of a trained model whose weights, head included, it starts from; "": from the starting weights."""

    @property
    def learns_from_all(self) -> bool:
        return self.labeled_share == self.unlabeled_share == 1

    @property
    def arm(self) -> str:
        """By the name of its folder; of a pilot, by its recipe."""
        return self.folder.name if self.folder.name in ARMS else self.recipe.arm

    def inputs(self) -> dict[str, Any]:
        """What the result depends on."""
        recipe = {name: value for name, value in asdict(self.recipe).items() if value != _UNSEEN.get(name)}
        recipe = {name: value for name, value in recipe.items() if name not in ("compile", "operating_point")}
        shares = {"labeled_share": self.labeled_share, "unlabeled_share": self.unlabeled_share}
        return (
            {"model": self.model, "size": self.size, "weights": self.weights, "seed": self.seed}
            | ({} if self.learns_from_all else shares)
            | ({"start": read_json(Path(self.start) / "model.json")["sha256"]} if self.start else {})
            | recipe
        )

    def require_starting_weights(self, what: str) -> None:
        """Raise DataError where it goes on from an earlier run's model, which has seen that run's photos.

        Args:
            what: cannot be measured then.
        """
        if self.start:
            raise DataError(
                f"{what} cannot be measured: {self.model} went on from a student of an earlier run, and brings along "
                "what that had learned. `potstill update --from-scratch` trains from the starting weights."
            )

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k != "folder"}

    @classmethod
    def read(cls, folder: Path) -> "Job":
        values = read_json(folder / "job.json")
        return cls(folder=folder, **{**values, "recipe": Recipe(**values["recipe"])})
