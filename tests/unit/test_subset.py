"""Trainings on a part of the photos see these photos, and nothing of the others."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import potstill
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import VIEW
from potstill.run.layout import model_folder
from potstill.students.batches import batches
from potstill.students.recipe import Job
from potstill.students.subset import draw_photos, views_within

LABELS = np.repeat([-1, 0, 1], [40, 80, 8])


def test_a_part_has_the_share_of_every_class_and_smaller_parts_lie_in_larger_ones() -> None:
    parts = [draw_photos(LABELS, share, 1.0, seed=3) for share in (0.125, 0.25, 0.5, 1.0)]
    assert [int(part[LABELS == 0].sum()) for part in parts] == [10, 20, 40, 80]
    assert [int(part[LABELS == 1].sum()) for part in parts] == [1, 2, 4, 8]
    assert all(part[LABELS == -1].all() for part in parts)
    for smaller, larger in itertools.pairwise(parts):
        assert not np.any(smaller & ~larger)
    assert int(draw_photos(LABELS, 1.0, 0.25, seed=3)[LABELS == -1].sum()) == 10
    assert np.any(parts[0] != draw_photos(LABELS, 0.125, 1.0, seed=4))


def test_views_blended_with_a_photo_outside_are_not_shown() -> None:
    views = np.zeros((3, 4), VIEW)
    views["partner"] = [[-1, 11, 12, -1], [10, 12, 12, 10], [-1, -1, -1, -1]]
    shown = views_within(views, np.array([10, 11, 12]), np.array([True, True, False]))
    assert shown.tolist() == [[0, 1, 3, 0], [0, 3, 0, 3], [-1, -1, -1, -1]]
    nothing = views_within(views[1:2], np.array([11]), np.array([True]))
    assert nothing.tolist() == [[-1, -1, -1, -1]], "all of its views are blended with photos outside"


@pytest.fixture
def job(tiny_run: "potstill.Result") -> Job:
    return Job.read(model_folder(tiny_run.run, tiny_run.students[0], 0, "alone"))


def test_batches_of_a_part_have_targets_of_its_photos_only(tiny_run: "potstill.Result", job: Job) -> None:
    run = tiny_run.run
    store, soft = PixelStore(run.images), SoftLabels.open(run)
    labels = store.labels(soft.photos)
    chosen = draw_photos(labels, 0.34, 1.0, job.seed)
    alike = {int(p) for p in np.flatnonzero(views_within(soft.views, soft.photos, chosen)[:, 0] >= 0)}
    batch = batches(replace(job, labeled_share=0.34), run, store, soft)
    seen = set()
    every = soft.logits(*np.unravel_index(np.arange(soft.views.size), soft.views.shape)).astype(np.float32)
    for step in range(40):
        for row in batch(step).teacher_logits.numpy():
            places = np.flatnonzero((every == row).all(1)) // soft.views.shape[1]
            assert set(places.tolist()) & alike, "a view of a photo outside the part"
            seen |= set(places.tolist()) & alike
    assert seen == alike


def test_a_share_changes_what_a_training_is_made_from_and_the_whole_does_not(job: Job) -> None:
    assert "labeled_share" not in job.inputs()
    assert replace(job, labeled_share=0.5).inputs()["labeled_share"] == 0.5
    assert replace(job, unlabeled_share=0.5).inputs() != job.inputs()
