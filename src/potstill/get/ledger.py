"""Which of the fetched photos are kept: copies, placeholders and photos of two classes are removed.

Photos arrive in any order, some of them only after a crash and a second start; the outcome must not depend on that.
It does not, because every rule here only ever rejects, and applies to all fetched photos, also to rejected
ones: the more photos are known, the more are rejected, whatever their order. A property test holds this.

A photo without a label that shows the same as another one is only ever its copy: it says nothing against a label.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

_RANK = {"test": 0, "train": 1, "unlabeled": 2}
"""Of copies the one in the first of these splits is kept."""

STRENGTH = {"": 0, "duplicate": 1, "identical": 2, "in_test": 3, "two_classes": 4, "placeholder": 5}
"""Where several reasons apply, the strongest is given."""

URLS_OF_A_PLACEHOLDER = 3
"""The same bytes at this many addresses are a notice, not a photo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A fetched, decoded photo."""

    key: str
    label: str
    split: str
    """train, test or unlabeled."""
    order: int
    """Its place among the source's candidates; of copies the first is kept."""
    url: str
    """Empty for photos that were on this machine already: those are never placeholders."""
    path: str
    """Below the photo folder."""
    sha256: str
    phash: int
    phash_mirrored: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A photo that is removed."""

    row: Row
    reason: str
    before: str
    """The weaker reason for which it was rejected already; empty: it was in its place until now."""


class Ledger:
    """All fetched photos of a folder. `near_bits` as in `near_hashes.near_pairs`; -1 compares whole files only."""

    def __init__(self, *, near_bits: int) -> None:
        self._near_bits = near_bits
        self._rows: list[Row] = []
        self._reasons: list[str] = []
        self._same_bytes: defaultdict[str, list[int]] = defaultdict(list)
        self._hashes = np.zeros((2, 256), np.uint64)  # of each photo, and of its mirror image

    def add(self, row: Row) -> list[Verdict]:
        """Add a photo. Returns the verdicts that it changes, its own included; none when it is kept."""
        index = len(self._rows)
        same = self._same_bytes[row.sha256]
        relatives = {*same, *self._near(row)}
        self._append(row)
        same.append(index)
        found: dict[int, str] = {}
        for other in relatives:
            before = self._rows[other]
            if before.label != row.label and "unlabeled" not in (before.split, row.split):
                self._reject(found, index, "two_classes")
                self._reject(found, other, "two_classes")
            else:
                first, second = sorted((index, other), key=self._rank)
                crosses = (self._rows[first].split == "test") != (self._rows[second].split == "test")
                reason = "identical" if before.sha256 == row.sha256 else "duplicate"
                self._reject(found, second, "in_test" if crosses else reason)
        if len({self._rows[i].url for i in same} - {""}) >= URLS_OF_A_PLACEHOLDER:
            for i in same:
                self._reject(found, i, "placeholder")
        verdicts = []
        for i, reason in found.items():
            if STRENGTH[reason] > STRENGTH[self._reasons[i]]:
                verdicts.append(Verdict(self._rows[i], reason, self._reasons[i]))
                self._reasons[i] = reason
        return verdicts

    def _near(self, row: Row) -> list[int]:
        if self._near_bits < 0 or not self._rows:
            return []
        plain, mirrored = self._hashes[:, : len(self._rows)]
        near = np.bitwise_count(plain ^ np.uint64(row.phash)) <= self._near_bits
        # Both ways round: a mirrored hash is rounded a little differently, and the rule must be symmetric.
        near |= np.bitwise_count(plain ^ np.uint64(row.phash_mirrored)) <= self._near_bits
        near |= np.bitwise_count(mirrored ^ np.uint64(row.phash)) <= self._near_bits
        return [int(i) for i in np.flatnonzero(near)]

    def _append(self, row: Row) -> None:
        if len(self._rows) == self._hashes.shape[1]:
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)], axis=1)
        self._hashes[:, len(self._rows)] = row.phash, row.phash_mirrored
        self._rows.append(row)
        self._reasons.append("")

    def _rank(self, index: int) -> tuple[int, int, str, str]:
        row = self._rows[index]
        return _RANK[row.split], row.order, row.key, row.label

    @staticmethod
    def _reject(found: dict[int, str], index: int, reason: str) -> None:
        if STRENGTH[reason] > STRENGTH[found.get(index, "")]:
            found[index] = reason
