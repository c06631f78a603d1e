"""The candidates of each class, and which of them is tried next."""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from potstill.data.splits import in_share
from potstill.get.licenses import is_allowed
from potstill.get.sources import Candidate, Concept, Source

MAX_WAITING = 2000
"""Candidates kept for a side that is full, in case some of its photos are rejected late."""
MAX_PARKED = 50
"""A class is given up after this many candidates from servers that are left alone."""


BYTES_PER_PHOTO = 300_000
"""For the space check and the estimate: Open Images' validation photos are 288 kB on average."""


SIDES = ("train", "test", "unlabeled")
"""The splits that `get` fills."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What is kept, and where it goes."""

    root: Path
    seed: int
    test_share: float
    licenses: frozenset[str]
    min_side: int
    near_bits: int
    """Of copies, see Ledger; -1 finds identical files only."""


@dataclass(slots=True)
class Side:
    """The photos of one class in one split."""

    label: str
    split: str
    wanted: int
    have: int = 0
    under_way: int = 0
    waiting: deque[tuple[int, Candidate]] = field(default_factory=deque)
    """Candidates for when photos of this side are rejected late, with their places in the source's order."""

    @property
    def is_open(self) -> bool:
        """Whether another candidate should be tried."""
        return self.have + self.under_way < self.wanted


@dataclass(slots=True)
class Stream:
    """The candidates of one class, and what became of them."""

    source: Source
    concept: Concept
    sides: Mapping[str, Side]
    reasons: Counter[str] = field(default_factory=Counter)
    """How often a candidate was left out, by reason code."""
    examples: dict[str, str] = field(default_factory=dict)
    """One sentence per code."""
    error: str = ""
    """Why the source stopped listing."""
    listed: int = 0
    exhausted: bool = False
    queue: deque[tuple[int, Candidate]] = field(default_factory=deque)
    known: set[int] = field(default_factory=set)
    """Hashes of the keys that have been tried or are under way."""

    @property
    def is_open(self) -> bool:
        return any(side.is_open for side in self.sides.values())

    @property
    def is_over(self) -> bool:
        """Whether no further candidate will be tried."""
        if not self.is_open or self.is_given_up:
            return True
        return self.exhausted and not self.queue

    @property
    def is_given_up(self) -> bool:
        return self.reasons["parked"] >= MAX_PARKED

    def next(self, rules: Rules) -> tuple[Side, int, Candidate] | None:
        """The next candidate worth a request, with its open side and its place in the source's order."""
        if self.is_given_up:
            return None
        for side in self.sides.values():
            if side.is_open and side.waiting:
                return side, *side.waiting.popleft()
        while self.queue and self.is_open:
            order, candidate = self.queue.popleft()
            if not self._is_wanted(candidate, rules):
                continue
            side = self._side_of(candidate, rules)
            if side.is_open:
                return side, order, candidate
            if len(side.waiting) < MAX_WAITING:
                side.waiting.append((order, candidate))
        return None

    def _side_of(self, candidate: Candidate, rules: Rules) -> Side:
        """The side of its split. What train has no room for goes without a label, and nothing of test's groups does."""
        side, pool = self.sides[split_of(candidate, rules.test_share, rules.seed)], self.sides["unlabeled"]
        return pool if pool.wanted and side.split == "train" and not side.is_open else side

    def _is_wanted(self, candidate: Candidate, rules: Rules) -> bool:
        """Whether it is new and its license is allowed. Counts those that are not."""
        if (mark := hash(candidate.key)) in self.known:
            return False
        self.known.add(mark)
        if self.source.has_licenses and not is_allowed(candidate.license, rules.licenses):
            self.count("license", candidate.license or candidate.license_url or "none given")
            return False
        return True

    def count(self, code: str, reason: str) -> None:
        """Record that a candidate was left out."""
        self.reasons[code] += 1
        self.examples.setdefault(code, reason)


def split_of(candidate: Candidate, test_share: float, seed: int) -> str:
    """The source's own split, else by the hash of the candidate's group."""
    is_test = in_share(candidate.group, test_share, seed=seed, purpose="test")
    return candidate.split or ("test" if is_test else "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What `get` would download of one class."""

    source: str
    concept: Concept
    candidates: dict[str, int]
    """By split; listing stops soon after there are enough."""
    wanted: dict[str, int]
    """Photos by split."""
    licenses: Counter[str]
    """Candidates by license."""

    @property
    def megabytes(self) -> float:
        """About how much would be downloaded."""
        photos = sum(min(self.candidates[split], count) for split, count in self.wanted.items())
        return photos * BYTES_PER_PHOTO / 1e6
