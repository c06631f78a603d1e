"""Photos without labels that resemble none of the labeled photos: found by the teacher's features, and left out.

What shows none of the classes has no right label to be given: it wastes training steps, and misleads the graph that
spreads labels. A photo's similarity to the labeled photos is compared with the one that labeled photos have to other
labeled photos; what lies below nearly all of these is left out. Features are compared as they are: standardized by all
photos, one photo's similarity would depend on what else is in the folder.
"""

from pathlib import Path

import numpy as np
import torch

from potstill.compute.inference import store_features
from potstill.compute.precision import Precision
from potstill.context import Context
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.unlike import write_unlike
from potstill.data.views import Renderer, plain_views
from potstill.models.classifier import Classifier
from potstill.run.files import is_sealed, remove_sealed
from potstill.wording import counted

NEIGHBORS = 5
"""Labeled photos that a photo is compared with: the nearest ones."""
QUANTILE = 0.02
"""Share of the labeled photos that resemble the others less than a photo must to be used."""

_PLAIN = "plain.npy"
"""The last features of the plain views, kept only until it is known which photos are used."""
_BLOCK = 1024


def leave_out_unlike(backbone: Classifier, folder: Path, precision: Precision, context: Context) -> None:
    """Look once at every photo, and write `unlike.csv`: the photos without labels that are not used.

    Only then are the views of the photos drawn, so that none is blended with one that is left out.

    Args:
        backbone: the teacher's model, whose last features say what is similar.
        folder: its folder, where its features are kept until all are there.
    """
    store = PixelStore(context.run.images)
    labeled, pool = store.rows("train"), store.rows("unlabeled")
    photos = np.concatenate([labeled, pool])
    positions, similarity = find_unlike(_plain_features(backbone, photos, folder, precision, context), len(labeled))
    write_unlike(context.run, photos[positions], similarity)
    remove_sealed(folder / _PLAIN)
    context.reporter.info(
        f"{counted(len(pool), 'photo')} without labels: {len(pool) - len(positions):,} used, {len(positions):,} "
        "unlike any of the labeled photos (2_teacher/unlike.csv)"
    )


def _plain_features(
    backbone: Classifier, photos: np.ndarray, folder: Path, precision: Precision, context: Context
) -> np.ndarray:
    """(N, W) float16 last features of the plain views."""
    path, width = folder / _PLAIN, backbone.num_last_features
    if not is_sealed(path):
        store, threads = PixelStore(context.run.images), context.machine.cores
        renderer = Renderer(store, photos, plain_views(store, photos)[:, None], backbone.info.size, threads=threads)
        writer = RowWriter(path, (len(photos), 1, width), np.float16)
        label = "Comparing the photos without labels with the labeled ones"
        with context.reporter.bar(label, len(photos), unit="photo", part="unlike photos") as update:
            store_features(backbone, renderer, writer, precision, update, lambda found, _: found[..., :width])
        writer.close()
    return np.load(path, mmap_mode="r", allow_pickle=False)[:, 0]


def similarities(features: np.ndarray, labeled: int) -> np.ndarray:
    """(N,) the mean cosine of each photo to the `NEIGHBORS` nearest labeled photos other than itself.

    Args:
        features: (N, D), the labeled photos first.
        labeled: how many of them have a label, at least 2.
    """
    flat = torch.nn.functional.normalize(torch.from_numpy(features.astype(np.float32)), dim=-1)
    near = min(NEIGHBORS, labeled - 1)
    found = torch.empty(len(flat))
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK] @ flat[:labeled].T
        own = torch.arange(start, max(start, min(start + _BLOCK, labeled)))
        block[own - start, own] = -torch.inf  # nobody is their own neighbor
        found[start : start + _BLOCK] = block.topk(near).values.mean(-1)
    return found.numpy()


def find_unlike(features: np.ndarray, labeled: int) -> tuple[np.ndarray, np.ndarray]:
    """The photos without labels that resemble none of the labeled ones.

    Args:
        features, labeled: as in `similarities`.
    Returns:
        positions: (K,) among all photos, the least similar first.
        similarity: (K,) of each.
    """
    similarity = similarities(features, labeled)
    limit = np.quantile(similarity[:labeled], QUANTILE)
    positions = labeled + np.flatnonzero(similarity[labeled:] < limit)
    positions = positions[np.argsort(similarity[positions], kind="stable")]
    return positions, similarity[positions]
