"""How far a whole run is: its parts with the time that each is expected to take, corrected by the measured pace."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PRIOR = 0.15
"""The expectation counts as much as measurements over this share of the expected time: a first second says little."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a run."""

    name: str
    """What stages call it when they begin it. Of several models or students each has parts of the same names."""
    stage: str
    """Its folder in the run, such as "2_teacher"."""
    seconds: float
    """That it is expected to take."""


@dataclass(slots=True)
class _Working:
    """The part that is being worked on."""

    position: int
    began: float
    share: float = 0.0
    first: tuple[float, float] | None = None
    """Time and share of the first update: what came before was starting up, or done by an earlier command."""

    @property
    def measured(self) -> float:
        """Share of the part whose time is known."""
        return self.share - self.first[1] if self.first else 0.0


class WholeRun:
    """The parts of a run in their order, and which of them is being worked on.

    A part that is skipped, such as fine-tuning where the teacher needs none, drops out when a later one begins.
    """

    def __init__(self, parts: Sequence[Part], clock: Callable[[], float] | None = None) -> None:
        self.parts = list(parts)
        self.measured: dict[int, float] = {}
        """Seconds of the parts that are finished, by their position."""
        self._paced: list[tuple[float, float]] = []
        """Measured and expected seconds of what told how far it is: starting up says nothing of the pace."""
        self._clock = clock or time.monotonic
        self.started = self._clock()
        self._working: _Working | None = None
        self._next = 0

    @property
    def part(self) -> Part | None:
        """What is being worked on."""
        return self.parts[self._working.position] if self._working else None

    def begin(self, name: str) -> None:
        """Work on the next part of this name; the one before is finished, and those between drop out."""
        if self.part is not None and self.part.name == name:
            return
        self._finish()
        names = [part.name for part in self.parts]
        if name not in names[self._next :]:  # takes time that nobody expected
            stage = self.parts[max(self._next - 1, 0)].stage if names else ""
            self.parts.insert(self._next, Part(name, stage, 0.0))
            names.insert(self._next, name)
        position = names.index(name, self._next)
        self._next = position + 1
        self._working = _Working(position, self._clock())

    def skip_to(self, stage: str) -> None:
        """What is left of the stages before this one is finished or not needed."""
        if self.part is not None and self.part.stage < stage:
            self._finish()
        while self._next < len(self.parts) and self.parts[self._next].stage < stage:
            self._next += 1

    def update(self, share: float) -> None:
        """So much of the present part is done, between 0 and 1."""
        working = self._working
        if working is None:
            return
        working.share = min(max(share, 0.0), 1.0)
        if working.first is None and share > 0:
            working.first = self._clock(), working.share

    def close(self) -> None:
        """Everything is finished."""
        self._finish()
        self._next = len(self.parts)

    @property
    def left(self) -> float:
        """Seconds that the rest of the run is expected to take."""
        return self.left_after_part + self._left_of_part(self._pace())

    @property
    def left_after_part(self) -> float:
        """Seconds that the parts after the present one are expected to take."""
        return self._pace() * sum(part.seconds for part in self.parts[self._next :])

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return self._clock() - self.started

    @property
    def share(self) -> float:
        """Share of this command's time that is over."""
        elapsed = self.elapsed
        return elapsed / max(elapsed + self.left, 1e-9)

    def _finish(self) -> None:
        if self._working is not None:
            self.measured[self._working.position] = self._clock() - self._working.began
            self._paced.append(self._paced_now())
        self._working = None

    def _pace(self) -> float:
        """Measured over expected time, of the parts that are finished and the share of the present one."""
        prior = PRIOR * sum(part.seconds for part in self.parts)
        measured, expected = (prior + sum(values) for values in zip(*self._paced, self._paced_now(), strict=True))
        return measured / expected if prior else 1.0

    def _paced_now(self) -> tuple[float, float]:
        """Measured and expected seconds of the present part, as far as it is done."""
        working, part = self._working, self.part
        if working is None or part is None or working.first is None or not working.measured:
            return 0.0, 0.0
        return self._clock() - working.first[0], working.measured * part.seconds

    def _left_of_part(self, pace: float) -> float:
        working, part = self._working, self.part
        if working is None or part is None:
            return 0.0
        expected, now = pace * part.seconds, self._clock()
        if working.first is None:
            return max(expected - (now - working.began), 0.0)
        seconds = now - working.first[0]
        return (1 - working.share) * (seconds + PRIOR * expected) / (working.measured + PRIOR)
