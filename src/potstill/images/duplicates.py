"""Finds the same picture twice: byte for byte, or re-saved, resized, slightly changed or mirrored.

A 64-bit DCT hash finds candidates, a small gray thumbnail confirms them. By hashes alone, photos of one machine part or
one landscape would be copies of each other; thumbnails alone are too slow for all pairs. Where many photos look alike
(one kind of part under one camera), similarity proves nothing, and only nearly equal pictures count as copies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from potstill.images.near_hashes import near_pairs

THUMB = 24
"""Side of the confirming thumbnail, in pixels."""

CROWD_BITS = 14
"""Photos whose hashes differ in at most this many bits look alike. Unrelated photos differ in more."""
CROWD = 16
"""A photo with more look-alikes than this (plus one for every 10,000 photos) is in a crowd."""
CROWD_COPY_BITS = 2
CROWD_COPY_DIFFERENCE = 3.0
"""Limits for copies in a crowd. Frames of one video are within them; the most similar of different solar cells differ
by more than 3 at 4 bits, and by 4 at 2 bits."""

_DCT_SIDE = 32


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of a photo to recognize its copies: 16 + 576 bytes."""

    hash: int
    """64-bit perceptual hash."""
    mirrored: int
    """The hash of the photo's mirror image."""
    thumb: np.ndarray
    """(THUMB, THUMB) uint8, gray."""


class Pair(NamedTuple):
    """Two photos by position, the smaller first, and how many bits of 64 their hashes differ by."""

    first: int
    second: int
    bits: int


def fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of an upright RGB picture."""
    gray = image.convert("L").resize((_DCT_SIDE, _DCT_SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    thumb = np.asarray(gray.resize((THUMB, THUMB), Image.Resampling.BILINEAR), np.uint8)
    spectrum = _DCT @ np.asarray(gray, np.float32) @ _DCT.T
    # Mirroring a picture flips the sign of every odd horizontal frequency.
    return Fingerprint(_bits(spectrum), _bits(spectrum * _MIRROR), thumb)


def same_pairs(hashes: np.ndarray, mirrored: np.ndarray, thumbs: np.ndarray, *, max_bits: int) -> Iterator[Pair]:
    """All pairs of photos that show the same picture, each once.

    Args:
        hashes, mirrored: (N,) uint64, of the pictures and of their mirror images.
        thumbs: (N, THUMB, THUMB) uint8.
        max_bits: of 64, see `near_pairs`; below 0 there are none.
    """
    if max_bits < 0:
        return
    crowded: dict[int, bool] = {}
    limit = CROWD + len(hashes) // 10_000

    def in_crowd(index: int) -> bool:
        if index not in crowded:
            near = np.bitwise_count(hashes ^ hashes[index]) <= CROWD_BITS
            crowded[index] = int(near.sum()) - 1 > limit
        return crowded[index]

    seen: set[tuple[int, int]] = set()
    for right in (hashes, mirrored):
        for i, j, bits in near_pairs(hashes, right, max_bits=max_bits):
            for one, other, distance in zip(i.tolist(), j.tolist(), bits.tolist(), strict=True):
                a, b = min(one, other), max(one, other)
                if a == b or (a, b) in seen:
                    continue
                if in_crowd(a) or in_crowd(b):
                    same = distance <= CROWD_COPY_BITS and same_picture(
                        thumbs[a], thumbs[b], max_difference=CROWD_COPY_DIFFERENCE
                    )
                else:
                    same = same_picture(thumbs[a], thumbs[b])
                if same:
                    seen.add((a, b))
                    yield Pair(a, b, distance)


def same_picture(a: np.ndarray, b: np.ndarray, *, max_difference: float = 9.0) -> bool:
    """Whether two thumbnails (THUMB, THUMB) uint8 show one picture, up to brightness, contrast and a narrower crop.

    The smallest root mean square difference counts, of the plain and the mirrored pair, each as it is and with one of
    the two enlarged by up to 6 %, in gray levels out of 255, relative to a picture with a standard deviation of 64.
    Copies of photos that were cropped by 3 % differ by 5 (median) to 9.
    """
    one, other = a.astype(np.float64), b.astype(np.float64)
    pairs = [(zoom @ one @ zoom.T, other) for zoom in _ZOOMS] + [(one, zoom @ other @ zoom.T) for zoom in _ZOOMS]
    differences = []
    for left, right in pairs:
        first, second = _standard(left), _standard(right)
        differences += [_rms(first - second), _rms(first - second[:, ::-1])]
    return 64 * min(differences) <= max_difference


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 4.0)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values * values)))


def _bits(spectrum: np.ndarray) -> int:
    values = spectrum.ravel()
    above = values > np.partition(values[1:], 31)[31]  # the median; the first value is the mean brightness
    return int.from_bytes(np.packbits(above).tobytes(), "big")


def _zoom(share: float) -> np.ndarray:
    """(THUMB, THUMB) matrix that stretches the middle 1 − share of a line of pixels over all of it, linearly."""
    at = (np.arange(THUMB) + 0.5 - THUMB / 2) * (1 - share) + THUMB / 2 - 0.5
    return np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(THUMB)[None, :]))


_ZOOMS = [_zoom(share) for share in (0.0, 0.015, 0.03, 0.045, 0.06)]

_k = np.arange(_DCT_SIDE)
_DCT = np.cos(np.pi / _DCT_SIDE * (_k[None, :] + 0.5) * _k[:8, None]).astype(np.float32)
"""(8, _DCT_SIDE): the eight lowest frequencies."""
_MIRROR = np.where(np.arange(8) % 2 == 0, 1.0, -1.0)[None, :].astype(np.float32)
