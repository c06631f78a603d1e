"""Views are data: drawn per photo, inside the photo, rendered to one picture at every size, in every order."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter
from tests.support import CLASSES, draw_photo, make_photos

from potstill.config.schema import ViewsConfig
from potstill.data.ops import OPS
from potstill.data.pixels import PixelStore
from potstill.data.resize import fit
from potstill.data.views import Renderer, draw_views, mixed_labels, plain_views, render

CONFIG = ViewsConfig(ops=0.3)


def test_the_first_views_do_not_depend_on_how_many_are_drawn(store: PixelStore) -> None:
    rows = store.rows("train")
    few, many = draw_views(store, rows, 3, CONFIG), draw_views(store, rows, 11, CONFIG)
    assert (few == many[:, :3]).all()
    assert len(np.unique(many["box"].reshape(-1, 4), axis=0)) == many.size, "every view is another one"


def test_a_view_does_not_depend_on_the_other_photos_but_for_the_partner(store: PixelStore) -> None:
    rows = store.rows("train")
    alone, among = draw_views(store, rows[5:9], 4, CONFIG), draw_views(store, rows, 4, CONFIG)[5:9]
    for field in ("box", "flip", "color", "weight", "ops", "strengths"):
        assert (alone[field] == among[field]).all(), field
    assert ((alone["partner"] < 0) == (among["partner"] < 0)).all()


def test_another_seed_draws_other_views(store: PixelStore) -> None:
    rows = store.rows("train")
    one, other = draw_views(store, rows, 2, CONFIG), draw_views(store, rows, 2, replace(CONFIG, seed=1))
    assert not (one["box"] == other["box"]).all(-1).any()


def test_boxes_lie_inside_the_photo_and_keep_to_area_and_shape(store: PixelStore) -> None:
    rows = store.rows("train")
    views = draw_views(store, rows, 200, replace(CONFIG, min_scale=0.3, max_aspect=1.5))
    left, top, right, bottom = np.moveaxis(views["box"].astype(float), -1, 0)
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= 1 + 1e-6).all()
    assert (bottom <= 1 + 1e-6).all()
    area = (right - left) * (bottom - top)
    assert area.max() <= 1 + 1e-6
    assert area.min() >= 0.3 / 1.5 - 1e-6, "only what does not fit is cut"
    aspect = (right - left) * 96 / ((bottom - top) * 80)
    assert aspect.min() > 1 / 1.5 - 1e-6
    assert aspect.max() < 1.5 * 1.2 + 1e-6


def test_partners_are_other_photos_and_shares_are_at_least_half(store: PixelStore) -> None:
    rows = store.rows("train")
    views = draw_views(store, rows, 100, replace(CONFIG, mix=1.0))
    assert (views["partner"] >= 0).all()
    assert (views["partner"] != rows[:, None]).all()
    assert np.isin(views["partner"], rows).all()
    assert set(np.unique(views["partner"])) == set(rows.tolist()), "everyone can be a partner"
    assert views["weight"].min() >= 0.5
    assert views["weight"].max() <= 1.0


def test_share_of_mixed_and_flipped_views_is_as_set(store: PixelStore) -> None:
    rows = store.rows("train")
    views = draw_views(store, rows, 200, replace(CONFIG, mix=0.3, flip="both"))
    assert abs((views["partner"] >= 0).mean() - 0.3) < 0.03
    assert np.allclose([(views["flip"] == k).mean() for k in range(4)], 0.25, atol=0.03)
    changed = draw_views(store, rows, 200, replace(CONFIG, ops=0.4, op_strength=0.5))
    assert abs((changed["ops"] > 0).all(-1).mean() - 0.4) < 0.03
    assert ((changed["ops"] > 0).all(-1) == (changed["ops"] > 0).any(-1)).all(), "both or none"
    assert len(np.unique(changed["ops"])) == 1 + len(OPS)
    assert 0.49 < np.abs(changed["strengths"]).max() <= 0.5
    none = draw_views(store, rows, 5, replace(CONFIG, mix=0.0, flip="none", color=0.0, ops=0.0))
    assert (none["partner"] == -1).all()
    assert (none["weight"] == 1).all()
    assert (none["flip"] == 0).all()
    assert (none["color"] == 1).all()
    assert (none["ops"] == 0).all()
    assert (none["strengths"] == 0).all()
    same = draw_views(store, rows, 200, replace(CONFIG, ops=0.0))
    assert (same["box"] == changed["box"]).all(), "ops are drawn beside the rest"


@pytest.fixture(scope="module")
def with_unlabeled(tmp_path_factory: pytest.TempPathFactory, packer) -> PixelStore:
    folder = tmp_path_factory.mktemp("unlabeled")
    return packer(make_photos(folder / "data", {"train": 8, "val": 1, "test": 1, "unlabeled": 6}), folder, size=40)


def test_labeled_photos_are_never_mixed_with_unlabeled_ones(with_unlabeled: PixelStore) -> None:
    store = with_unlabeled
    rows = np.concatenate([store.rows("train"), store.rows("unlabeled")])
    assert len(store.rows("unlabeled")) == 18
    views = draw_views(store, rows, 60, replace(CONFIG, mix=1.0))
    labeled = store.labels(rows) >= 0
    assert (store.labels(views["partner"][labeled]) >= 0).all(), "or the twin would see unlabeled photos"
    assert (store.labels(views["partner"][~labeled]) < 0).any(), "unlabeled photos may meet anyone"
    assert (views["partner"] != rows[:, None]).all()
    # The twin's views are the same ones whether or not unlabeled photos are about.
    without = draw_views(store, store.rows("train"), 60, replace(CONFIG, mix=1.0))
    assert (views[labeled] == without).all()


def test_mixed_labels_are_blended_as_the_pictures_are(store: PixelStore) -> None:
    rows = store.rows("train")
    views = draw_views(store, rows, 30, CONFIG)
    targets = mixed_labels(store, rows, views, 3)
    assert np.allclose(targets.sum(-1), 1)
    n, v = np.argwhere((views["partner"] >= 0) & (store.labels(rows)[:, None] != store.labels(views["partner"])))[0]
    own, other = store.labels(rows)[n], store.labels(views["partner"][n, v])
    assert targets[n, v, own] == pytest.approx(views["weight"][n, v])
    assert targets[n, v, other] == pytest.approx(1 - views["weight"][n, v])
    plain = views["partner"] < 0
    assert (targets[plain].max(-1) == 1).all()


def _renderer(store: PixelStore, size: int, **options: int) -> Renderer:
    rows = store.rows("train")
    return Renderer(store, rows, draw_views(store, rows, 4, CONFIG), size, **options)


def _every(renderer: Renderer) -> tuple[np.ndarray, np.ndarray]:
    photos, count = renderer.views.shape
    return np.repeat(np.arange(photos), count), np.tile(np.arange(count), photos)


def test_threads_order_and_batches_do_not_matter(store: PixelStore) -> None:
    one, four = _renderer(store, 48), _renderer(store, 48, threads=4)
    photos, numbers = _every(one)
    together = one(photos, numbers)
    assert (together == four(photos, numbers)).all()
    shuffled = np.random.default_rng(0).permutation(len(photos))
    assert (one(photos[shuffled], numbers[shuffled]) == together[shuffled]).all()
    assert (one(photos[7:8], numbers[7:8]) == together[7:8]).all()


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory, packer) -> PixelStore:
    """Smooth photos of 240 × 200 pixels, so that views are shrunk, as those of real photos are, not enlarged."""
    folder = tmp_path_factory.mktemp("large")
    for split, count in (("train", 8), ("val", 1), ("test", 1)):
        for name in CLASSES:
            (folder / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                seed = number + 100 * ("train", "val", "test").index(split)
                photo = draw_photo(name, seed, width=240, height=200).filter(ImageFilter.GaussianBlur(2))
                photo.save(folder / "data" / split / name / f"{number}.png")
    return packer(folder / "data", folder, size=200)


@pytest.mark.parametrize(("teacher_size", "student_size"), [(96, 32), (96, 64)])
def test_the_student_sees_what_the_teacher_saw(large_store: PixelStore, teacher_size: int, student_size: int) -> None:
    """Each view, mixed ones too, rendered at the teacher's size and shrunk, is the view at the student's size."""
    teacher, student = _renderer(large_store, teacher_size), _renderer(large_store, student_size)
    photos, numbers = _every(teacher)
    large, small = teacher(photos, numbers), student(photos, numbers).astype(float)
    size = (student_size, student_size)
    shrunk = np.stack(
        [np.asarray(Image.fromarray(view).resize(size, Image.Resampling.BILINEAR)) for view in large]
    ).astype(float)
    same = np.sqrt(np.mean((shrunk - small) ** 2, axis=(1, 2, 3)))
    # What another view of the same photo looks like, for scale: the test must tell them apart.
    other = np.sqrt(np.mean((shrunk - np.roll(small, 1, axis=0)) ** 2, axis=(1, 2, 3)))
    assert same.max() < 12
    assert same.mean() < 5
    assert np.median(other) > 25
    mixed = student.views["partner"].ravel() >= 0
    assert 0.2 < mixed.mean() < 0.8, "both kinds are in the test"


def test_crop_flip_and_blend_pixel_by_pixel(store: PixelStore) -> None:
    """A view without resampling: its pixels are the photo's own."""
    row, other = (int(r) for r in store.rows("train")[:2])
    view = plain_views(store, np.array([row]))[0]
    view["box"] = (8 / 96, 0, 88 / 96, 1)
    photo, partner = np.asarray(store.photo(row)), np.asarray(store.photo(other))
    assert (render(store, row, view, 80) == photo[:, 8:88]).all()
    view["flip"] = 3
    assert (render(store, row, view, 80) == photo[::-1, 87:7:-1]).all()
    view["flip"], view["partner"], view["weight"] = 0, other, 0.75
    partner_view = plain_views(store, np.array([other]))[0]
    blend = render(store, row, view, 80, partner_view).astype(int)
    expected = 0.75 * photo[:, 8:88] + 0.25 * partner[:, 8:88]
    assert np.abs(blend - expected).max() <= 1


def test_a_plain_view_is_what_a_deployed_model_is_shown(store: PixelStore) -> None:
    row = store.rows("train")[:1]
    photo = store.photo(int(row[0]))
    for crop in (1.0, 0.875, 0.5):
        view = plain_views(store, row, crop)[0]
        difference = render(store, int(row[0]), view, 40).astype(int) - fit(photo, 40, crop)
        assert np.abs(difference).mean() < 1, "bytes are rounded twice, and at the rim the filter sees beyond it"


def test_colors_change_as_written(store: PixelStore) -> None:
    row = int(store.rows("train")[0])
    view = plain_views(store, np.array([row]))[0]
    plain = render(store, row, view, 32).astype(float)
    view["color"] = (0.5, 1, 1)
    assert np.abs(render(store, row, view, 32) - 0.5 * plain).max() <= 1.0
    view["color"] = (1, 1, 0)
    gray = render(store, row, view, 32).astype(float)
    assert np.abs(gray - (plain @ [0.299, 0.587, 0.114])[..., None]).max() <= 1.5
    view["color"] = (1, 0.5, 1)
    assert np.abs(render(store, row, view, 32) - (127.5 + 0.5 * (plain - 127.5))).max() <= 1.0


@pytest.mark.parametrize("number", range(len(OPS)))
def test_every_op_changes_the_photo_alike_at_every_size(large_store: PixelStore, number: int) -> None:
    """Changed and then shrunk, or shrunk and then changed: nearly one picture, and another than the plain one."""
    row = int(large_store.rows("train")[0])
    view = plain_views(large_store, np.array([row]))[0]
    plain = render(large_store, row, view, 48).astype(float)
    view["ops"][0], view["strengths"][0] = 1 + number, -0.9
    large, small = render(large_store, row, view, 144), render(large_store, row, view, 48).astype(float)
    shrunk = np.asarray(Image.fromarray(large).resize((48, 48), Image.Resampling.BILINEAR)).astype(float)
    changed = np.sqrt(np.mean((plain - small) ** 2))
    apart = np.sqrt(np.mean((shrunk - small) ** 2))
    assert changed > 1
    assert apart < max(0.6 * changed, 4)


def test_an_op_of_no_strength_leaves_the_photo(large_store: PixelStore) -> None:
    photo = large_store.photo(int(large_store.rows("train")[0]))
    before = np.asarray(photo).astype(int)
    for op in OPS:
        assert np.abs(np.asarray(op(photo, 0.0)).astype(int) - before).max() <= 1, op.__name__


def test_plain_view_is_the_center_square(store: PixelStore) -> None:
    row = int(store.rows("val")[0])
    view = plain_views(store, np.array([row]))[0]
    assert (render(store, row, view, 80) == np.asarray(store.photo(row))[:, 8:88]).all()


def test_the_partner_is_blended_in_as_its_own_view_of_the_same_number(store: PixelStore) -> None:
    rows = store.rows("train")
    views = draw_views(store, rows, 3, ViewsConfig(mix=1.0))
    shown = Renderer(store, rows, views, 24)(np.zeros(3, int), np.arange(3))
    for number, view in enumerate(views[0]):
        (partner,) = np.flatnonzero(rows == view["partner"])
        own, other = view.copy(), views[partner, number].copy()
        own["partner"] = other["partner"] = -1
        one, two = (render(store, int(rows[n]), v, 24).astype(float) for n, v in ((0, own), (partner, other)))
        expected = view["weight"] * one + (1 - view["weight"]) * two
        assert np.abs(shown[number] - expected).max() <= 2, "but for the rounding of the weight"
