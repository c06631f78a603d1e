"""Agreement with the teacher: on which views it is measured, and that the numbers are those of the stored models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.reports import edit
from tests.support import TINY, unseal

import potstill
from potstill.comparison import agreement
from potstill.comparison.agreement import TrainViews
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import render
from potstill.models.classifier import load, normalize
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.layout import model_folder


def test_train_views_are_unmixed_views_of_distinct_photos(tiny_run: "potstill.Result") -> None:
    soft = SoftLabels.open(tiny_run.run)
    views = TrainViews.of(soft)
    unmixed = soft.views["partner"] < 0
    assert len(set(views.photos.tolist())) == len(views.photos) == np.sum(unmixed.any(1)) > 0
    assert np.all(unmixed[views.photos, views.numbers])


def test_of_many_photos_a_sample_is_drawn_that_is_always_the_same(
    tiny_run: "potstill.Result", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "MAX_TRAIN_VIEWS", 7)
    first, second = (TrainViews.of(SoftLabels.open(tiny_run.run)) for _ in range(2))
    assert len(first.photos) == 7
    assert first.photos.tolist() == second.photos.tolist() != list(range(7))


def test_where_every_view_is_mixed_there_are_none(tiny_run: "potstill.Result") -> None:
    soft = SoftLabels.open(tiny_run.run)
    mixed = np.array(soft.views)
    mixed["partner"] = 0
    assert not len(TrainViews.of(replace(soft, views=mixed)).photos)


@pytest.mark.parametrize("arm", ["distilled", "alone"])
def test_the_shares_are_those_of_the_stored_models(tiny_run: "potstill.Result", arm: str) -> None:
    run, name = tiny_run.run, tiny_run.students[0]
    soft, store = SoftLabels.open(run), PixelStore(run.images)
    views = TrainViews.of(soft)
    teacher = soft.logits(views.photos, views.numbers).argmax(-1)
    teacher_on_val = np.load(run.soft_labels / "val_logits.npy").argmax(-1)
    shares: dict[str, list[float]] = {"train_views": [], "val": []}
    with np.load(run.comparison / "train_views.npz") as file:
        stored = file[f"{name}/{arm}"]
    for seed in range(2):
        folder = model_folder(run, name, seed, arm)
        model = load(folder)
        pixels = [
            render(store, int(soft.photos[photo]), soft.views[photo, number], model.info.size)
            for photo, number in zip(views.photos.tolist(), views.numbers.tolist(), strict=True)
        ]
        with torch.inference_mode():
            _, logits = model.both(normalize(torch.from_numpy(np.stack(pixels)), model.info))
        np.testing.assert_allclose(stored[seed], logits.numpy(), atol=1e-4)
        shares["train_views"].append(float(np.mean(stored[seed].argmax(-1) == teacher)))
        with np.load(folder / "val_predictions.npz") as file:
            shares["val"].append(float(np.mean(file["logits"].argmax(-1) == teacher_on_val)))
    found = tiny_run.comparison.student(name).arm(arm).agreement
    assert found.train_views == pytest.approx(np.mean(shares["train_views"]))
    assert found.val == pytest.approx(np.mean(shares["val"]))
    assert tiny_run.comparison.train_views == len(views.photos)


def test_the_difference_on_test_is_that_of_the_two_agreements(tiny_run: "potstill.Result") -> None:
    (student,) = tiny_run.comparison.students
    assert student.agreement_difference is not None
    expected = student.distilled.agreement.test - student.alone.agreement.test
    assert student.agreement_difference.value == pytest.approx(expected)


def test_a_comparison_of_an_earlier_format_is_made_again_from_its_predictions(
    photos: Path, tiny_run: "potstill.Result", run_copy: Run
) -> None:
    edit(run_copy.comparison / "comparison.json", lambda values: values.update(format=1))
    edit(run_copy.comparison / "done.json", lambda values: values["inputs"].pop("format"))
    (run_copy.comparison / "train_views.npz").unlink()
    unseal(run_copy.path)
    again = potstill.distill(photos, settings=TINY, run=run_copy.path, reporter=Reporter(quiet=True))
    assert again.comparison.students[0].distilled.agreement == tiny_run.comparison.students[0].distilled.agreement
    assert read_json(run_copy.comparison / "comparison.json")["format"] != 1
