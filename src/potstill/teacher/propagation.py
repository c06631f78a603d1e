"""Labels for photos that have none, from the photos that look like them.

A few labels flow along the edges between photos that are near in the features of a backbone (Zhou et al. 2004,
"Learning with Local and Global Consistency"). The graph's beliefs are then combined with the predictions of a
head trained on the labeled photos alone: the two err on different photos.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from potstill import metrics

NEIGHBORS = 10
FLOW = 0.95
"""Share of its belief that a photo takes from its neighbors in every round; the rest is its own label."""
ROUNDS = 50
SHARPNESS = 3
"""The weight of an edge is the cosine to this power."""
MAX_NODES = 20_000
"""Photos in a graph: comparing all pairs of these takes seconds, of ten times as many minutes."""

_FLOOR = 1e-3
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Graph:
    """Which photos are near to each other."""

    ends: Tensor
    """(2, E): every edge in both directions; two photos that are each other's neighbors have two."""
    weights: Tensor
    """(E,) scaled by the degrees: D^(-1/2) W D^(-1/2)."""

    @classmethod
    def of(cls, features: np.ndarray) -> "Graph":
        """The graph of the `NEIGHBORS` nearest.

        Args:
            features: (N, D) of at least 2 photos, standardized.
        """
        count = len(features)
        flat = torch.nn.functional.normalize(torch.from_numpy(features.astype(np.float32)), dim=-1)
        near = min(NEIGHBORS, count - 1)
        cosines, others = torch.empty(count, near), torch.empty(count, near, dtype=torch.int64)
        for start in range(0, count, _BLOCK):
            block = flat[start : start + _BLOCK] @ flat.T
            rows = torch.arange(len(block))
            block[rows, start + rows] = -torch.inf  # nobody is their own neighbor
            cosines[start : start + _BLOCK], others[start : start + _BLOCK] = block.topk(near)
        one_way = torch.stack([torch.arange(count).repeat_interleave(near), others.flatten()])
        ends = torch.cat([one_way, one_way.flip(0)], dim=1)
        weights = cosines.clamp(min=0).pow(SHARPNESS).flatten().repeat(2)
        scale = torch.zeros(count).index_add_(0, ends[0], weights).clamp(min=1e-8).rsqrt()
        return cls(ends, weights * scale[ends[0]] * scale[ends[1]])

    def propagate(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """(N, C) float32, rows of sum 1: what the graph believes of every photo.

        Args:
            labels: (N,) the class of a photo, or -1 for those to find out. Photos that no label reaches get
                equal shares.
        """
        own = torch.from_numpy((labels[:, None] == np.arange(classes)).astype(np.float32))
        belief = own.clone()
        for _ in range(ROUNDS):
            passed = self.weights[:, None] * belief[self.ends[1]]
            belief = FLOW * torch.zeros_like(own).index_add_(0, self.ends[0], passed) + (1 - FLOW) * own
        belief = belief + 1e-12
        return (belief / belief.sum(-1, keepdim=True)).numpy()


def joined(graph: np.ndarray, head: np.ndarray) -> np.ndarray:
    """(N, C) the normalized product of two beliefs, neither of which can rule a class out alone."""
    return metrics.softmax(np.log(graph + _FLOOR) + np.log(head + _FLOOR)).astype(np.float32)
