"""Finds the pairs of 64-bit hashes that differ in few bits, without comparing all of many hashes with each other.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012):
a hash is four words of 16 bits. Two hashes at most r bits apart agree in one of the words up to r // 4 bits, so that
only those with nearly the same word need be compared: one in 480 for r = 8 to 11. What is found is what comparing all
would find.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(K,) indices into left and right, and the distances of the pairs in bits."""

FEW = 1e9
"""Comparisons that take a few seconds: up to here all hashes are compared with each other, which is simpler."""

MAX_BITS = 15
"""Above this the words may differ in four bits and more, and one in 26 would be compared."""

_WORDS, _WORD_BITS = 4, 16
_BLOCK = 1 << 18
"""Comparisons at once: what the processor's cache holds."""


def near_pairs(left: np.ndarray, right: np.ndarray, *, max_bits: int) -> Iterator[Pairs]:
    """All pairs of hashes at most `max_bits` apart, each once, some at a time.

    Args:
        left, right: (N,) and (M,) uint64.
        max_bits: of 64. Copies of one photo differ by 0 to 10 bits, different photos by 14 and more, rarely 8.
    """
    few = float(len(left)) * len(right) <= FEW
    yield from all_compared(left, right, max_bits) if few or max_bits > MAX_BITS else indexed(left, right, max_bits)


def all_compared(left: np.ndarray, right: np.ndarray, max_bits: int) -> Iterator[Pairs]:
    """As `near_pairs`, by comparing all with each other."""
    block = max(1, _BLOCK // max(1, len(right)))
    for start in range(0, len(left), block):
        i, j, distance = _compared(left[start : start + block], right, max_bits)
        if len(i):
            yield i + start, j, distance


def indexed(left: np.ndarray, right: np.ndarray, max_bits: int) -> Iterator[Pairs]:
    """As `near_pairs`, by an index of the words. `max_bits` of at most MAX_BITS."""
    masks = _masks(max_bits // _WORDS)
    for word in range(_WORDS):
        ours, theirs = _Buckets.of(left, word), _Buckets.of(right, word)
        for value in np.flatnonzero(ours.sizes()):
            mine = ours.members(np.array([value]))
            near = theirs.members(value ^ masks)
            block = max(1, _BLOCK // max(1, len(near)))
            for start in range(0, len(mine), block):
                i, j, distance = _compared(left[mine[start : start + block]], right[near], max_bits)
                i, j = mine[i + start], near[j]
                new = ~_near_in_earlier_word(left[i] ^ right[j], word, max_bits // _WORDS)
                if new.any():
                    yield i[new], j[new], distance[new]


class _Buckets:
    """Hashes by the value of one of their words."""

    def __init__(self, words: np.ndarray) -> None:
        self._order = np.argsort(words, kind="stable")
        self._starts = np.searchsorted(words[self._order], np.arange((1 << _WORD_BITS) + 1))

    @classmethod
    def of(cls, hashes: np.ndarray, word: int) -> "_Buckets":
        return cls(_word(hashes, word))

    def sizes(self) -> np.ndarray:
        return np.diff(self._starts)

    def members(self, values: np.ndarray) -> np.ndarray:
        """Indices of the hashes whose word has one of the values."""
        starts = self._starts[values]
        sizes = self._starts[values + 1] - starts
        before = np.cumsum(sizes) - sizes
        return self._order[np.arange(sizes.sum()) + np.repeat(starts - before, sizes)]


def _compared(left: np.ndarray, right: np.ndarray, max_bits: int) -> Pairs:
    distance = np.bitwise_count(left[:, None] ^ right[None, :])
    i, j = np.nonzero(distance <= max_bits)
    return i, j, distance[i, j]


def _word(hashes: np.ndarray, word: int) -> np.ndarray:
    """(N,) uint16."""
    return (hashes >> np.uint64(_WORD_BITS * word)).astype(np.uint16)


def _near_in_earlier_word(differences: np.ndarray, word: int, radius: int) -> np.ndarray:
    """(K,) whether pairs, given by the XOR of their hashes, were found by an earlier word."""
    found = np.zeros(len(differences), bool)
    for earlier in range(word):
        found |= np.bitwise_count(_word(differences, earlier)) <= radius
    return found


def _masks(radius: int) -> np.ndarray:
    """All words with at most `radius` bits."""
    bits = [
        sum(1 << bit for bit in chosen)
        for size in range(radius + 1)
        for chosen in combinations(range(_WORD_BITS), size)
    ]
    return np.array(bits)
