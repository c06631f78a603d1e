"""`potstill count`: how many files there are per split and class; none is opened."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.check.quarantine import Quarantine
from potstill.data.splits import SPLITS
from potstill.errors import DataError
from potstill.images.folder import list_photos


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Photos by split and class. The split "" is that of a flat folder."""

    root: Path
    by_split: dict[str, dict[str, int]]
    quarantine: dict[str, int]
    """Photos in quarantine by reason."""

    @property
    def classes(self) -> list[str]:
        """Every class of any split, by name; "" holds unlabeled photos."""
        return sorted({label for counts in self.by_split.values() for label in counts})

    def total(self, split: str) -> int:
        return sum(self.by_split[split].values())

    def imbalance(self, split: str) -> float | None:
        """Size of the largest class over that of the smallest; None with fewer than two classes, or an empty one."""
        counts = [count for label, count in self.by_split[split].items() if label]
        return max(counts) / min(counts) if len(counts) > 1 and min(counts) else None

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "splits": self.by_split,
            "totals": {split: self.total(split) for split in self.by_split},
            "imbalance": {split: self.imbalance(split) for split in self.by_split},
            "quarantine": self.quarantine,
        }


def count(root: Path) -> Counts:
    """Count the photos of a folder, also of an unfinished one. Raises DataError where there is none."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"There is no folder {root}. `potstill init cat dog --into {root}` creates one.")
    found: dict[str, Counter[str]] = {}
    for split, label, path in list_photos(root):
        counts = found.setdefault(split or "", Counter())
        counts[label] += path is not None
    order = [split for split in ("", *SPLITS) if split in found]
    return Counts(
        root=root, by_split={split: dict(found[split]) for split in order}, quarantine=Quarantine(root).counts()
    )
