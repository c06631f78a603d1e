"""How a stored model was trained, and what was fitted on val: "trained" in model.json, whose format covers it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from potstill.run.files import read_json


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatingPoint:
    """From which probability on a photo counts as one of a class, so that a share of the class is found."""

    class_name: str
    recall: float
    """The share that was asked for."""
    threshold: float
    """A photo with at least this probability of the class counts as one of it."""

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> "OperatingPoint | None":
        """From plain values, of model.json or an exported file."""
        return cls(**values) if values else None

    def __str__(self) -> str:
        """The setting that asks for it."""
        return f"recall:{self.class_name}={self.recall:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What is known of a model's training. The defaults stand for a model that was not trained."""

    role: str = ""
    """"teacher" or "student"."""
    method: str | None = None
    """Of a teacher: "probe" or "finetune"."""
    arm: str | None = None
    """Of a student: "distilled" or "alone"."""
    seed: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Of a student: the fields of its `Recipe`."""
    temperature: float = 1.0
    """Fitted on val."""
    threshold: float = 0.0
    """Top probability below which a prediction counts as unknown; with several labels per photo, the mean certainty of
    its decisions (`potstill.metrics.multilabel.certainty`). Fitted on val; 0 where it is not known."""
    operating_point: OperatingPoint | None = None
    """Of a student, where one was asked for."""
    thresholds: tuple[float, ...] = ()
    """With several labels per photo: of each class the probability from which on a photo has it; placed on val."""
    gray_levels: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Black and white of gray photos with more than 8 bits, as decided for the photos that it was trained on."""
    precision: str = "float32"
    """Of a teacher: the arithmetic, runtime and batch of its labeling."""
    runtime: str = "torch"
    batch: int = 32
    quantization_aware: Mapping[str, Any] | None = None
    """Of a student that was fine-tuned for int8."""
    bias_correction: Mapping[str, Any] | None = None
    """Of a student whose biases were corrected for int8."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Trained":
        """From plain values; those of other versions are ignored."""
        known = {item.name for item in fields(cls)}
        found = {name: value for name, value in values.items() if name in known}
        found["thresholds"] = tuple(values.get("thresholds", ()))
        return cls(**{**found, "operating_point": OperatingPoint.of(values.get("operating_point"))})


def read_trained(folder: Path) -> Trained:
    """Of the model stored in this folder. Raises PotstillError where model.json is missing or damaged."""
    return Trained.of(read_json(folder / "model.json").get("trained", {}))
