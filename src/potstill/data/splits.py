"""Which split a photo belongs to, decided by its own hash: adding or removing others never moves it."""

import hashlib
from typing import Literal

Split = Literal["train", "val", "test", "unlabeled"]
SPLITS: tuple[Split, ...] = ("train", "val", "test", "unlabeled")
LABELED: tuple[Split, ...] = ("train", "val", "test")


def unit_hash(key: str, *, seed: int, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments, the same on every machine for ever.

    Args:
        key: the photo's sha256, or the group that must stay together.
        seed: another seed gives another split.
        purpose: keeps the draws for test, val and folds independent of each other.
    """
    digest = hashlib.sha256(f"{purpose}:{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def in_share(key: str, share: float, *, seed: int, purpose: str) -> bool:
    """Whether this photo is in the first `share`. A larger share contains every smaller one."""
    return unit_hash(key, seed=seed, purpose=purpose) < share
