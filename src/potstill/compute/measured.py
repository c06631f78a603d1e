"""What timing found for one model on this machine, and what was chosen: one record per model, `precision.json`."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from potstill.compute.precision import Precision
from potstill.run.files import REMOVE, read_json, write_json

FILE = "precision.json"

Speeds = dict[str, float]
"""Photos per second by the name of what was tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The chosen arithmetic, runtime, batch, threads and compilation of one model, with the speeds behind them."""

    dtype: str
    """"float32" or "bfloat16"."""
    photos_per_second: Speeds
    """By arithmetic, and by runtime where another than torch was tried."""
    runtime: str = "torch"
    """Of inference: "torch", or the name of another backend."""
    batch: int = 32
    """Photos in one inference step."""
    batch_photos_per_second: Speeds = field(default_factory=dict)
    threads: int = 1
    """Of one training on the CPU."""
    threads_photos_per_second: Speeds = field(default_factory=dict)
    compile: bool = False
    """Whether trainings use `torch.compile`."""
    compile_trial: dict[str, Any] = field(default_factory=dict)
    """What a trial of it gave: seconds, photos per second, and whether the losses were the same."""

    @property
    def speed(self) -> float:
        """Photos per second of the choice."""
        return self.photos_per_second[self.dtype if self.runtime == "torch" else self.runtime]

    def precision(self, device: str) -> Precision:
        """The choice, for a model on this device."""
        return Precision(torch.device(device), getattr(torch, self.dtype), self.runtime, self.batch)

    def write(self, folder: Path) -> None:
        """Store the record beside the model."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Measured | None":
        """The record of a model folder; None where nothing has been measured yet."""
        return cls(**read_json(folder / FILE, REMOVE)) if (folder / FILE).is_file() else None
