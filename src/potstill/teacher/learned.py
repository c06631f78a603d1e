"""How good a teacher is on val, in words, and whether it has learned anything that could be distilled."""

import numpy as np

from potstill import metrics
from potstill.config.schema import TeacherConfig
from potstill.errors import TeacherError
from potstill.metrics import multilabel
from potstill.metrics.classification import MULTI_LABEL, Classification
from potstill.wording import counted

_HINTS = {
    False: "Do the weights belong to the model (--teacher.weights)?",
    True: "Are its classes in the order of the run's (--class-map), and its inputs as it knows them ([external])?",
}
"""What else may be wrong with a teacher, by whether it is a file."""


def score_on_val(logits: np.ndarray, labels: np.ndarray, kind: Classification) -> str:
    """In words: the score, the NLL after temperature scaling, and the number of photos."""
    return (
        f"val {kind.score_title} {kind.score(logits, labels):.1%}, NLL {kind.nll_scaled(logits, labels):.3f} "
        f"on {counted(len(labels), 'photo')}"
    )


def require_learned(
    name: str, logits: np.ndarray, labels: np.ndarray, kind: Classification, config: TeacherConfig
) -> float:
    """The val accuracy.

    Raises:
        TeacherError: the outputs say hardly more of the classes than how frequent these are, see `teacher.min_gain`.
    """
    return (_require_labels if kind.several_labels else _require_classes)(name, logits, labels, config)


def _require_classes(name: str, logits: np.ndarray, labels: np.ndarray, config: TeacherConfig) -> float:
    """The val accuracy; TeacherError when the outputs say hardly more of the classes than their shares do.

    Plain accuracy would not do: among very unequal classes, always predicting the largest has nearly all of it. The
    mean accuracy of the classes counts each alike, and the NLL sees a good ranking where no rare class is predicted.
    """
    accuracy = metrics.accuracy(logits, labels)
    counts = np.bincount(labels)
    shares = counts[counts > 0] / len(labels)
    balanced = metrics.balanced_accuracy(logits, labels)
    guess = 1 / len(shares)
    nll, blind = metrics.nll_scaled(logits, labels), float(-(shares * np.log(shares)).sum())
    by_accuracy = (balanced - guess) / max(1 - guess, 1e-9)
    by_nll = 1 - nll / max(blind, 1e-9)
    if config.min_gain and max(by_accuracy, by_nll) < config.min_gain:
        raise TeacherError(
            f"The teacher {name} has a mean accuracy of {balanced:.1%} over {counted(len(shares), 'class')} on "
            f"{counted(len(labels), 'val photo')}, where guessing has {guess:.1%}, and an NLL of {nll:.3f}, where the "
            f"shares of the classes alone have {blind:.3f}. It has learned nothing that could be distilled.\n"
            f"  Are the photos in the right class folders (potstill check)? {_HINTS[config.external is not None]}\n"
            f"  --teacher.min-gain sets this limit ({config.min_gain:g}); 0 turns it off."
        )
    return accuracy


def _require_labels(name: str, logits: np.ndarray, labels: np.ndarray, config: TeacherConfig) -> float:
    """The same for photos with several labels, by mAP, which by guessing is the mean share of photos with a class, and
    by the NLL of all decisions."""
    shares = labels.mean(0)
    ranked = shares[(shares > 0) & (shares < 1)]
    if not len(ranked):
        raise TeacherError(
            "No class has val photos with and without it, so nothing can be chosen on val. Set more photos aside "
            "(--images.val-share), or add some to val."
        )
    score, guess = multilabel.mean_average_precision(logits, labels), float(ranked.mean())
    nll = MULTI_LABEL.nll_scaled(logits, labels)
    blind = float(-(ranked * np.log(ranked) + (1 - ranked) * np.log1p(-ranked)).sum() / len(shares))
    if config.min_gain and max((score - guess) / (1 - guess), 1 - nll / max(blind, 1e-9)) < config.min_gain:
        raise TeacherError(
            f"The teacher {name} has an mAP of {score:.1%} over {counted(len(ranked), 'class')} on "
            f"{counted(len(labels), 'val photo')}, where guessing has {guess:.1%}, and an NLL of {nll:.3f} per "
            f"decision, where the shares of the classes alone have {blind:.3f}. It has learned nothing that could be "
            "distilled.\n"
            f"  Are the labels in the table right? {_HINTS[config.external is not None]}\n"
            f"  --teacher.min-gain sets this limit ({config.min_gain:g}); 0 turns it off."
        )
    return MULTI_LABEL.accuracy(logits, labels)
