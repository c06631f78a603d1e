"""What a backend of inference is: another way than torch to compute a backbone's features."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from potstill.models.classifier import Classifier


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """One backend. It computes in float32."""

    name: str
    """As `machine.runtime` has it."""
    title: str
    devices: tuple[str, ...]
    """Where it runs: "cpu", "cuda", "mps"."""
    packages: tuple[str, ...]
    """Modules that it needs."""
    install: str
    """What to type where they are missing."""
    file: str
    """Kept in the teacher's folder until the soft labels are stored; removed then."""
    convert: Callable[[Classifier, Path, int], Classifier | None]
    """(model, folder, threads) → a classifier that computes the model's features in this backend; None where the model
    cannot be converted, or the features differ."""

    @property
    def is_installed(self) -> bool:
        return all(find_spec(name) for name in self.packages)
