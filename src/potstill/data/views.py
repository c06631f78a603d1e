"""Views: which crop, mirror, colors, ops and mix-up partner view v of a photo is, and rendering it at a size.

A view is a row of numbers, drawn once from (seed, photo id, v) and stored. Teacher and student render the same row,
each at its own size, so the teacher labels exactly what the student sees ("function matching", Beyer et al. 2022,
arXiv:2106.05237), whatever the number of threads, the order, or the version of a library.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from potstill.config.schema import ViewsConfig
from potstill.data.ops import PER_VIEW, apply_ops, draw_ops
from potstill.data.pixels import PixelStore
from potstill.data.resize import fit

VIEW = np.dtype(
    [
        ("box", "<f4", (4,)),  # left, top, right, bottom, as shares of the photo's width and height
        ("flip", "u1"),  # 1 left to right, 2 upside down, 3 both
        ("color", "<f4", (3,)),  # factors of brightness, contrast, saturation; 1 changes nothing
        ("partner", "<i4"),  # row of the photo that is blended in, -1 for none
        ("weight", "<f4"),  # share of this photo in the blend; 1 without a partner
        ("ops", "u1", (PER_VIEW,)),  # stronger changes, 0 for none (view_ops)
        ("strengths", "<f4", (PER_VIEW,)),
    ]
)

_NUMBERS = 12
"""Uniform numbers per view, for all but the ops, which have a stream of their own: they can be turned on and off
without another crop."""

_GRAY = np.array([0.299, 0.587, 0.114])


def draw_views(store: PixelStore, rows: np.ndarray, count: int, config: ViewsConfig) -> np.ndarray:
    """Draw views for the photos `rows` of the store.

    Args:
        rows: (N,) positions in the store's index. Mix-up partners come from among them; labeled photos are mixed
            with labeled ones only, so that the twin never sees an unlabeled photo.
        count: V, views per photo. The first views of a photo do not depend on V, nor on the other photos, but for
            the partner.
    Returns:
        (N, V) of VIEW.
    """
    ids = store.index["id"][rows]
    numbers = np.empty((len(rows), count, _NUMBERS))
    for_ops = np.empty((len(rows), count, 1 + 2 * PER_VIEW))
    for n, photo_id in enumerate(ids.tolist()):
        stream = np.random.Philox(key=[config.seed, photo_id])
        for_ops[n] = np.random.Generator(stream.jumped()).random((count, 1 + 2 * PER_VIEW))
        numbers[n] = np.random.Generator(stream).random((count, _NUMBERS))
    sides = store.index["width"][rows].astype(float), store.index["height"][rows].astype(float)
    views = np.zeros((len(rows), count), VIEW)
    views["box"] = _boxes(numbers[..., 0:4], *sides, config)
    flips = {"none": (0, 0), "horizontal": (1, 0), "both": (1, 2)}[config.flip]
    views["flip"] = flips[0] * (numbers[..., 4] < 0.5) + flips[1] * (numbers[..., 5] < 0.5)
    views["color"] = 1 + config.color * (2 * numbers[..., 6:9] - 1)
    mixed = (numbers[..., 9] < config.mix) & (len(rows) > 1)
    views["partner"] = np.where(mixed, _partners(store, rows, numbers[..., 10]), -1)
    share = numbers[..., 11]
    views["weight"] = np.where(mixed, np.maximum(share, 1 - share), 1.0)
    views["ops"], views["strengths"] = draw_ops(config.ops, config.op_strength, for_ops)
    return views


def plain_views(store: PixelStore, rows: np.ndarray, crop: float = 1.0) -> np.ndarray:
    """(n,) of VIEW: the center square of each photo, unchanged, for a teacher. See also `plain_pixels`.

    Args:
        crop: share of the square's side that is kept, in (0, 1].
    """
    width, height = store.index["width"][rows].astype(float), store.index["height"][rows].astype(float)
    side = crop * np.minimum(width, height)
    views = np.zeros(len(rows), VIEW)
    views["box"] = np.stack(
        [(1 - side / width) / 2, (1 - side / height) / 2, (1 + side / width) / 2, (1 + side / height) / 2], axis=-1
    )
    views["color"], views["partner"], views["weight"] = 1.0, -1, 1.0
    return views


def plain_pixels(store: PixelStore, rows: np.ndarray, size: int, crop: float = 1.0, *, threads: int = 1) -> np.ndarray:
    """(n, size, size, 3) uint8: the photos as a deployed model is shown them, for val and test. See `fit`."""

    def one(row: int) -> np.ndarray:
        return fit(store.photo(row), size, crop)

    with ThreadPoolExecutor(threads) as pool:
        photos = list(pool.map(one, rows.tolist()))
    return np.stack(photos) if photos else np.empty((0, size, size, 3), np.uint8)


def mixed_labels(store: PixelStore, rows: np.ndarray, views: np.ndarray, classes: int) -> np.ndarray:
    """(N, V, C) float32: each view's label, blended with its partner's by the view's weight."""
    own = store.targets(rows, classes)[:, None]
    return _mix(own, store.targets(_partner_or_own(rows, views), classes), views["weight"])


def blended(values: np.ndarray, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
    """(N, V, C): what is believed of each view when `values` (N, C) are believed of the photos `rows` (N,).

    All partners must be among `rows`.
    """
    position = np.full(int(rows.max()) + 1, -1)
    position[rows] = np.arange(len(rows))
    return _mix(values[:, None], values[position[_partner_or_own(rows, views)]], views["weight"])


def _partner_or_own(rows: np.ndarray, views: np.ndarray) -> np.ndarray:
    """(N, V) rows of the partners. Where there is none, the photo itself, with weight 0: its labels are known as far as
    the own ones are."""
    return np.where(views["partner"] >= 0, views["partner"], rows[:, None])


def _mix(own: np.ndarray, partner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Views without a partner have weight 1."""
    return weight[..., None] * own + (1 - weight[..., None]) * partner


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """(…, C) float32, all zero for label -1."""
    return (labels[..., None] == np.arange(classes)).astype(np.float32)


def render(store: PixelStore, row: int, view: np.void, size: int, partner_view: np.void | None = None) -> np.ndarray:
    """One view as (size, size, 3) uint8.

    Args:
        row: the photo.
        view: its VIEW record.
        partner_view: the VIEW record of the partner photo, whose crop, mirror and colors are blended in; needed
            when `view` has a partner.
    """
    pixels = np.asarray(_render_one(store, row, view, size))
    if view["partner"] < 0:
        return pixels
    assert partner_view is not None
    other = np.asarray(_render_one(store, int(view["partner"]), partner_view, size))
    weight = round(float(view["weight"]) * 256)  # whole numbers: the same result on every machine
    blend = pixels.astype(np.uint16) * weight + other.astype(np.uint16) * (256 - weight)
    return (blend >> 8).astype(np.uint8)


class Renderer:
    """Renders views of a store at one size, many at a time."""

    def __init__(self, store: PixelStore, rows: np.ndarray, views: np.ndarray, size: int, *, threads: int = 1) -> None:
        """`rows` (N,), `views` (N, V) as drawn by `draw_views`; `size` in pixels."""
        self.store, self.rows, self.views, self.size = store, rows, views, size
        self._position = np.full(len(store), -1)
        self._position[rows] = np.arange(len(rows))
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

        self.chosen = np.arange(len(rows))
        """(n,) positions in `rows` of the photos to render; the others serve as partners only."""

    def only(self, chosen: np.ndarray) -> "Renderer":
        """One that renders these photos (n,) of `rows` only, and counts them from 0."""
        narrow = copy.copy(self)
        narrow.chosen = chosen
        return narrow

    @property
    def shape(self) -> tuple[int, int]:
        """Photos, and views of each."""
        return len(self.chosen), self.views.shape[1]

    def __call__(self, photos: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """(B, size, size, 3) uint8.

        Args:
            photos: (B,) positions in `chosen`.
            numbers: (B,) the view of each.
        """
        out = np.empty((len(photos), self.size, self.size, 3), np.uint8)

        def one(i: int) -> None:
            photo, number = int(self.chosen[photos[i]]), int(numbers[i])
            view = self.views[photo, number]
            partner = self._position[view["partner"]] if view["partner"] >= 0 else -1
            out[i] = render(
                self.store,
                int(self.rows[photo]),
                view,
                self.size,
                self.views[partner, number] if partner >= 0 else None,
            )

        if self._pool is None:
            for i in range(len(photos)):
                one(i)
        else:
            list(self._pool.map(one, range(len(photos))))
        return out


def _render_one(store: PixelStore, row: int, view: np.void, size: int) -> Image.Image:
    photo = store.photo(row)
    left, top, right, bottom = view["box"].astype(float).tolist()
    box = (left * photo.width, top * photo.height, right * photo.width, bottom * photo.height)
    box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(photo.width)), min(box[3], float(photo.height)))
    # Ops turn edges into stairs; at twice the size and then halved they are as smooth as the teacher saw them.
    changed = bool(view["ops"].any())
    finer = 2 if changed else 1
    image = photo.resize((size * finer, size * finer), Image.Resampling.BILINEAR, box=box)
    if view["flip"] & 1:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if view["flip"] & 2:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    brightness, contrast, saturation = view["color"].astype(float).tolist()
    if (brightness, contrast, saturation) != (1.0, 1.0, 1.0):
        image = image.convert("RGB", _color_matrix(brightness, contrast, saturation))
    return apply_ops(image, view["ops"], view["strengths"]).reduce(finer) if changed else image


def _color_matrix(brightness: float, contrast: float, saturation: float) -> tuple[float, ...]:
    """Saturation, then contrast about mid-gray, then brightness, as one 3 × 4 matrix, row by row."""
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * _GRAY[None, :])
    offset = np.full((3, 1), brightness * (1 - contrast) * 127.5)
    return tuple(np.hstack([matrix, offset]).ravel().tolist())


def _partners(store: PixelStore, rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(N, V) another photo for each view. `numbers` (N, V) uniform."""
    labeled = store.is_labeled(rows)
    partners = np.empty(numbers.shape, np.int64)
    for mine, pool in ((labeled, rows[labeled]), (~labeled, rows)):
        if not mine.any():
            continue
        own = np.searchsorted(pool, rows[mine]) if np.all(np.diff(pool) > 0) else np.flatnonzero(mine)
        step = 1 + (numbers[mine] * max(len(pool) - 1, 1)).astype(int)
        partners[mine] = pool[(own[:, None] + step) % len(pool)]
    return partners


def _boxes(numbers: np.ndarray, width: np.ndarray, height: np.ndarray, config: ViewsConfig) -> np.ndarray:
    """Crops with a random area and shape, all inside the photo (Szegedy et al. 2015, arXiv:1409.4842, section 6).

    Args:
        numbers: (N, V, 4) uniform: area, shape, left, top.
    Returns:
        (N, V, 4) left, top, right, bottom as shares.
    """
    area = config.min_scale + (1 - config.min_scale) * numbers[..., 0]
    aspect = np.exp((2 * numbers[..., 1] - 1) * np.log(config.max_aspect))
    photo_aspect = (width / height)[:, None]
    # In shares of the photo's sides the crop is w × h with w·h = area and (w·width) / (h·height) = aspect. What does
    # not fit is cut to the photo's side.
    w = np.minimum(np.sqrt(area * aspect / photo_aspect), 1.0)
    h = np.minimum(np.sqrt(area / aspect * photo_aspect), 1.0)
    left, top = numbers[..., 2] * (1 - w), numbers[..., 3] * (1 - h)
    return np.stack([left, top, left + w, top + h], axis=-1)
