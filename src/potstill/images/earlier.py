"""The run that photos are added to: what is known of its photos without reading their pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.data.splits import Split
from potstill.run.folder import Run


@dataclass(frozen=True, slots=True)
class EarlierPhotos:
    """They stay as they are: packed, labeled and split."""

    run: Path
    classes: tuple[str, ...]
    counts: dict[Split, int]
    """Photos of each split."""
    test_share: float
    """Share of the photos to add that go to test."""

    @classmethod
    def of(cls, run: Run, test_share: float = 0.0) -> "EarlierPhotos":
        """Raises PotstillError where the run's photos are not packed yet."""
        counts = run.stage("1_images").facts()["counts"]
        return cls(run.path, tuple(run.classes()), counts, test_share)

    @property
    def images(self) -> Path:
        """The folder of the packed photos."""
        return Run(self.run).images

    @property
    def facts(self) -> dict[str, Any]:
        """What the run's stage kept."""
        return Run(self.run).stage("1_images").facts()

    @property
    def digest(self) -> str:
        """Of what the run's photos were made from."""
        return Run(self.run).stage("1_images").digest()

    @property
    def short_side(self) -> int:
        """Of packed photos, in pixels."""
        return int(self.facts["inputs"]["short_side"])
