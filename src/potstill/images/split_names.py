"""Folders that are named after a split, in the words that people use: Training, valid, images_test …"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from potstill.data.splits import Split

_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "validating"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "tests"), "test"),
    **dict.fromkeys(("unlabeled", "unlabelled", "unlabled"), "unlabeled"),
}

_BESIDE_TRAIN: dict[str, Split] = {
    **dict.fromkeys(("dev", "devel", "development", "eval", "evaluation", "vld"), "val"),
    **dict.fromkeys(("holdout", "heldout"), "test"),
    **dict.fromkeys(
        ("unsup", "unsupervised", "pool", "nolabel", "nolabels", "unannotated", "unlab", "withoutlabels"), "unlabeled"
    ),
}
"""Words that could as well be classes (a swimming pool): splits only beside a folder of training photos."""

_PLAIN = (
    "set sets data dataset datasets image images img imgs pic pics picture pictures photo photos split splits folder "
    "dir file files seg raw final new resized cropped crop crops small original orig the of for only my"
)
"""Words that say nothing about what is in a folder."""


class SplitName(NamedTuple):
    """A folder's name, taken apart."""

    split: Split
    rest: tuple[str, ...]
    """The words that say nothing about the split, but something about the rest."""
    needs_train: bool


def split_name(name: str) -> SplitName | None:
    """What a folder's name says about a split; None where it names none, or two."""
    words = _words(name)
    found = {_NAMES.get(word) or _BESIDE_TRAIN.get(word) for word in words} - {None}
    if len(found) != 1:
        return None
    split = found.pop()
    assert split is not None
    rest = tuple(word for word in words if word not in _NAMES and word not in _BESIDE_TRAIN and not is_plain(word))
    return SplitName(split, rest, needs_train=not any(word in _NAMES for word in words))


def split_of(name: str) -> Split | None:
    """The split that a name means by itself, such as a cell of a table; None for any other name."""
    found = split_name(name)
    return found.split if found and not found.rest else None


def is_plain(word: str) -> bool:
    """Whether a word says nothing about what is in a folder: images, data, 2017."""
    return word in _PLAIN.split() or word.isdecimal()


def is_plain_name(name: str) -> bool:
    """Whether all words of a name are plain."""
    return all(is_plain(word) for word in _words(name))


def find_splits(names: Sequence[str]) -> dict[str, Split]:
    """Those of the names of folders side by side that name a split.

    Other words beside the split's are allowed where the folders of different splits share them: seg_train, seg_test.
    """
    read = {name: found for name in names if (found := split_name(name))}
    by_rest = Counter(rest for rest, _ in {(found.rest, found.split) for found in read.values()})
    named = {name: found for name, found in read.items() if not found.rest or by_rest[found.rest] > 1}
    has_train = any(found.split == "train" for found in named.values())
    return {name: found.split for name, found in named.items() if has_train or not found.needs_train}


def _words(name: str) -> list[str]:
    """`seg_Train2017` → seg, train, 2017; `hold-out` → holdout; `trainset` → train, set."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = [word.casefold() for word in re.findall(r"[^\W\d_]+|\d+", spaced)]
    joined = "".join(word for word in words if not word.isdecimal())
    if joined in _NAMES or joined in _BESIDE_TRAIN:
        return [joined]
    return [part for word in words for part in _parts(word)]


def _parts(word: str) -> list[str]:
    """Two words without a space, such as trainset or valdata."""
    for end in ("sets", "set", "dataset", "data", "images", "imgs", "img", "photos"):
        if word.removesuffix(end) in _NAMES and word != word.removesuffix(end):
            return [word.removesuffix(end), end]
    return [word]
