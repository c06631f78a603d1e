"""Decides which one of several copies of a picture is kept.

Photos in test are kept before those in val, val before train; among equals the one with more pixels, then the first by
hash. A picture in two classes is kept in neither, since it is unknown which label is right. Photos that an earlier run
settled on are kept before all others, and always.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from potstill.images.duplicates import THUMB, Fingerprint, same_pairs

NEAR_BITS = 6
"""The hashes of copies within a split differ in at most this many bits of 64, by default."""
LEAK_BITS = 10
"""The same between splits, where a missed copy would make test accuracy too high."""

_ORDER = {"test": 0, "val": 1, "train": 2, "": 2, "unlabeled": 3}


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photo of the folder."""

    index: int
    split: str
    label: str
    sha256: str
    pixels: int
    marks: Fingerprint
    settled: bool = False
    """Of an earlier run: it stays, whatever it resembles."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A photo that should be left out (or, with the code `similar`, reviewed), and the one it resembles."""

    index: int
    of: int
    code: str


def find_copies(photos: Sequence[Photo], *, near_bits: int, leak_bits: int) -> list[Copy]:
    """All copies among the photos, at most one line per photo, with the strongest reason.

    Args:
        near_bits, leak_bits: largest distance of 64-bit hashes, within one split and between two.
    """
    ranked = sorted(photos, key=lambda p: (not p.settled, _ORDER[p.split], -p.pixels, p.sha256, p.index))
    found: dict[int, Copy] = {}
    left_out: set[int] = set()
    pairs = sorted(_pairs(ranked, max(near_bits, leak_bits)))
    conflicts = [(a, b) for a, b, bits in pairs if _conflict(ranked[a], ranked[b]) and bits <= near_bits]
    for a, b in conflicts:
        for one, other in ((a, b), (b, a)):
            if ranked[one].settled:
                continue
            left_out.add(one)
            found.setdefault(one, Copy(ranked[one].index, ranked[other].index, "two_classes"))
    for a, b, bits in pairs:  # the better one, a, is always decided before b, because pairs are in order of rank
        if a in left_out or b in left_out or _conflict(ranked[a], ranked[b]):
            continue
        first, second = ranked[a], ranked[b]
        crosses = first.split != second.split and bool({first.split, second.split} & {"test", "val"})
        if bits > (leak_bits if crosses else near_bits):
            found.setdefault(b, Copy(second.index, first.index, "similar"))
            continue
        leaks = crosses and first.split in ("test", "val")
        code = "in_test" if leaks else "identical" if bits < 0 else "duplicate"
        left_out.add(b)
        found[b] = Copy(second.index, first.index, code)
    return [found[rank] for rank in sorted(found)]


def _conflict(first: Photo, second: Photo) -> bool:
    return first.label != second.label and bool(first.label and second.label)


def _pairs(ranked: Sequence[Photo], max_bits: int) -> Iterator[tuple[int, int, int]]:
    """(better, worse, distance) by rank; -1 is the distance of identical files."""
    same: defaultdict[str, list[int]] = defaultdict(list)
    for rank, photo in enumerate(ranked):
        for other in same[photo.sha256]:
            if not photo.settled:
                yield other, rank, -1
        same[photo.sha256].append(rank)
    hashes = np.array([p.marks.hash for p in ranked], np.uint64)
    mirrored = np.array([p.marks.mirrored for p in ranked], np.uint64)
    thumbs = np.array([p.marks.thumb for p in ranked], np.uint8).reshape(-1, THUMB, THUMB)
    for a, b, bits in same_pairs(hashes, mirrored, thumbs, max_bits=max_bits):
        if ranked[a].sha256 != ranked[b].sha256 and not (ranked[a].settled and ranked[b].settled):
            yield a, b, bits
