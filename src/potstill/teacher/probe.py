"""The linear probe: heads of a frozen backbone, learned on the stored features of all views.

`learn` uses the labeled photos, `learn_folds` each time without a fold of them; `corrected` is a probe without the
labels that then turn out to be wrong. Where there are photos without labels, `learn_from_all` goes on from there: they
get the classes that photos like them have (`potstill.teacher.propagation`), and a new head learns from all.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor, nn

from potstill import metrics
from potstill.config.schema import TeacherConfig
from potstill.data.arrays import RowReader, save_arrays
from potstill.data.folds import fold_of
from potstill.data.label_errors import FILE as OUT_OF_FOLD
from potstill.data.label_errors import check_labels
from potstill.data.pixels import PixelStore
from potstill.data.views import blended, one_hot
from potstill.metrics.classification import Classification
from potstill.models.classifier import Classifier
from potstill.monitoring.progress import Reporter
from potstill.run.files import replacing
from potstill.teacher.heads import HeadData, apply_head, fit_head, moments
from potstill.teacher.propagation import MAX_NODES, Graph, joined
from potstill.wording import counted

HEADS_FROM_ALL = 2
MAX_STEPS = 2000
"""Of a head from all photos: soft targets are learned quickly, and there may be very many photos without labels."""

_BLOCK = 1024


def save_out_of_fold(folder: Path, row: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
    """`out_of_fold.npz`: what models that were trained without them predict for the plain train photos.

    Args:
        row: (N,) of the store.
        logits: (N, C).
        labels: (N,) as given.
    """
    save_arrays(folder / OUT_OF_FOLD, row=row, logits=logits, labels=labels)


@dataclass(frozen=True, slots=True)
class FoldHeads:
    """Heads that were each trained without one fold of the labeled photos."""

    tensors: dict[str, Tensor]
    """`FOLD.LAYER.weight` and `FOLD.LAYER.bias`."""
    logits: np.ndarray
    """(n, C) of the plain labeled photos, each by the head that was trained without it."""


@dataclass(frozen=True)
class Probe:
    """What the heads of one model learn from."""

    model: Classifier
    folder: Path
    config: TeacherConfig
    store: PixelStore
    photos: np.ndarray
    """(N,) rows of the store: the train photos, then those without labels, if they take part."""
    features: RowReader
    """(N, 1 + P, D): the plain view first."""
    views: np.ndarray
    """(N, P) of VIEW: the others."""
    targets: np.ndarray
    """(N, C) what is learned of the labeled photos: their labels or, where these are suspect, what was predicted."""
    suspect: np.ndarray
    """(N,) bool: the photos whose label is probably wrong."""
    log: list[dict[str, Any]]

    def corrected(self, logits: np.ndarray) -> "Probe":
        """A probe that learns what is predicted out of fold, `logits` (n, C) of the labeled photos, where it says that
        the label is wrong."""
        probabilities = metrics.softmax(logits)
        found, _ = check_labels(probabilities, self.labels[self.known])
        positions = np.flatnonzero(self.known)[found]
        targets, suspect = self.targets.copy(), np.zeros(len(self.photos), bool)
        targets[positions], suspect[positions] = probabilities[found], True
        return replace(self, targets=targets, suspect=suspect)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) -1 for photos without one."""
        return self.store.labels(self.photos)

    @cached_property
    def known(self) -> np.ndarray:
        """(N,) bool: the photos with labels."""
        return self.store.is_labeled(self.photos)

    @property
    def classes(self) -> int:
        return len(self.model.info.classes)

    def learn(self, name: str, known: np.ndarray) -> nn.Module:
        """A head from the labels of the photos `known` (N,) bool."""
        return self._fit(name, self.targets, known)

    def learn_from_all(self, name: str, known: np.ndarray, head: nn.Module) -> nn.Module:
        """A head from those labels, and from the beliefs about other photos that the graph and a first `head` give.

        Twice: the second time with the better head's beliefs.
        """
        labels = np.where(known & ~self.suspect, self.labels, -1)
        graph = self._graph.propagate(labels[self._in_graph], self.classes)
        unknown = labels[self._in_graph] < 0
        others = np.zeros(len(self.photos), bool)
        others[self._in_graph] = ~self.known[self._in_graph]
        for number in range(HEADS_FROM_ALL):
            probabilities = metrics.softmax(self._logits(head, self._in_graph))
            belief = one_hot(labels, self.classes)
            belief[self._in_graph[unknown]] = joined(graph, probabilities)[unknown]
            head = self._fit(f"{name}-all-{number}", belief, known | others, MAX_STEPS)
        return head

    def beliefs(self, head: nn.Module) -> np.ndarray:
        """(N, C) float32: what is learned of the labeled photos, and the probabilities of a head for the others."""
        found = self.targets.copy()
        others = np.flatnonzero(~self.known)
        found[others] = metrics.softmax(self._logits(head, others))
        return found

    def shares(self, head: nn.Module) -> np.ndarray:
        """(C,) of the classes in the targets that a head from all photos learned from, which are those of its own mean
        probabilities: its bias is free."""
        found = metrics.softmax(self._logits(head, np.arange(len(self.photos)))).sum(0)
        return np.maximum(found, 0.5) / np.maximum(found, 0.5).sum()

    def learn_folds(self, reporter: Reporter, *, from_all: bool = False) -> FoldHeads:
        """A head for each fold of the labeled photos, trained without it."""
        folds = self.config.folds
        fold = np.full(len(self.photos), -1)
        fold[self.known] = fold_of(self.store, self.photos[self.known], folds)
        logits = np.zeros((len(self.photos), self.classes), np.float32)
        tensors: dict[str, Tensor] = {}
        label = f"Teacher: training {folds} more heads, each to label the photos that it has not seen"
        with reporter.bar(label, folds, unit="head", part="fold heads") as update:
            for number in range(folds):
                rest = self.known & (fold != number)
                head = self.learn(f"fold-{number}", rest)
                if from_all:
                    head = self.learn_from_all(f"fold-{number}", rest, head)
                logits[fold == number] = self._logits(head, np.flatnonzero(fold == number))
                linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
                tensors |= {
                    f"{number}.{n}.{k}": t for n, layer in enumerate(linear) for k, t in layer.state_dict().items()
                }
                update(number + 1)
        return FoldHeads(tensors, logits[self.known])

    def save_folds(self, heads: FoldHeads, reporter: Reporter) -> None:
        """`fold_heads.safetensors` and `out_of_fold.npz`: their logits for the plain photos."""
        with replacing(self.folder / "fold_heads.safetensors") as temporary:
            save_file(heads.tensors, temporary)
        rows, labels = self.photos[self.known], self.labels[self.known]
        kind = Classification.of(self.store.several_labels)
        if not kind.several_labels:  # likely wrong labels are found for photos with one each
            save_out_of_fold(self.folder, row=rows, logits=heads.logits, labels=labels)
        reporter.info(
            f"Teacher, out of fold: {kind.score_title} {kind.score(heads.logits, labels):.1%} on "
            f"{counted(len(rows), 'train photo')}"
        )

    def _fit(self, name: str, belief: np.ndarray, allowed: np.ndarray, max_steps: int | None = None) -> nn.Module:
        """Each view's target is blended from the beliefs (N, C) as the view is from the photos.

        A view takes part where its photo is `allowed` (N,), and so is the one that is blended into it: a head that must
        not see a fold gets neither its pixels nor its labels by way of a blend.
        """
        targets = np.concatenate([belief[:, None], blended(belief, self.photos, self.views)], 1)
        views = np.concatenate([allowed[:, None], self._allowed_views(allowed)], 1)
        data = HeadData(self.features, targets, views, self.store.several_labels)
        head, facts = fit_head(data, self.config, self.folder / f"{name}.checkpoint", max_steps=max_steps)
        self.log.append({"phase": name, **facts})
        return head

    def _allowed_views(self, allowed: np.ndarray) -> np.ndarray:
        """(N, P) bool."""
        by_row = np.zeros(len(self.store), bool)
        by_row[self.photos] = allowed
        partner = self.views["partner"]
        return allowed[:, None] & ((partner < 0) | by_row[np.maximum(partner, 0)])

    def _logits(self, head: nn.Module, photos: np.ndarray) -> np.ndarray:
        """(n, C) logits of the plain photos at the positions (n,)."""
        parts = [np.zeros((0, self.classes), np.float32)]
        for start in range(0, len(photos), _BLOCK):
            block = photos[start : start + _BLOCK]
            parts.append(apply_head(head, self.features(block, np.zeros(len(block), int))))
        return np.concatenate(parts)

    def sample(self, most: int) -> np.ndarray:
        """(n,) positions of the labeled photos, and of others, drawn where all together are more than `most`."""
        others = np.flatnonzero(~self.known)
        room = max(most - int(self.known.sum()), 0)
        kept = others if len(others) <= room else np.random.default_rng(0).choice(others, room, replace=False)
        return np.sort(np.concatenate([np.flatnonzero(self.known), kept]))

    @cached_property
    def _in_graph(self) -> np.ndarray:
        """Positions of the labeled photos and, where there are very many others, of a sample of these."""
        return self.sample(MAX_NODES)

    @cached_property
    def _graph(self) -> Graph:
        """Of the mean over each photo's views, in the backbone's last features: which photos show the same thing."""
        mean, std = moments(self.features, np.arange(len(self.photos)))
        count, last = self.features.shape[1], self.model.num_last_features
        views = np.arange(count)
        means = [self.features(np.full(count, n), views)[:, :last].astype(np.float32).mean(0) for n in self._in_graph]
        return Graph.of((np.stack(means) - mean[:last]) / std[:last])
