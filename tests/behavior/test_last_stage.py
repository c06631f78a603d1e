"""The last stage of a distilled student: labeled photos only, undone where val is not surer for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.behavior.test_twin import DISTILLED, job

from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.metrics.choice import Metric
from potstill.run.folder import Run
from potstill.students import job as student_job
from potstill.students.batches import LabeledViews
from potstill.students.job import LAST_CHECKPOINT, train_job
from potstill.training.loop import Schedule, Task, fit

PLAIN = replace(DISTILLED, epochs=2)
WITH_LAST = replace(PLAIN, last_epochs=2)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def trained(run: Run, folder: Path, recipe: Any) -> Path:
    train_job(job(folder, recipe), run, "cpu", lambda step: None)
    return folder


def test_it_shows_labeled_photos_with_their_labels_and_no_blends(run_copy: Run, tmp_path: Path) -> None:
    soft, store = SoftLabels.open(run_copy), PixelStore(run_copy.images)
    views = LabeledViews.of(job(tmp_path / "distilled", WITH_LAST), soft, store)
    for step in range(5):
        photo, view, label = views.of_step(step, 8)
        assert (soft.views[photo, view]["partner"] < 0).all()
        assert (label == store.labels(soft.photos[photo])).all()
        assert (label >= 0).all()


def test_it_changes_the_student_where_val_is_surer_and_is_undone_elsewhere(
    run_copy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = weights(trained(run_copy, tmp_path / "plain" / "distilled", PLAIN))
    losses = iter([1.0, 0.5])  # of val, before and after; of crops, all the same
    monkeypatch.setattr(Metric, "loss", lambda metric, logits, labels: next(losses, 0.0))
    assert weights(trained(run_copy, tmp_path / "better" / "distilled", WITH_LAST)) != plain
    losses = iter([0.5, 1.0])
    assert weights(trained(run_copy, tmp_path / "worse" / "distilled", WITH_LAST)) == plain


def test_interrupted_it_ends_with_the_same_weights(
    run_copy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(trained(run_copy, tmp_path / "whole" / "distilled", WITH_LAST))

    def killed(task: Task[Any], schedule: Schedule, *others: Any, **named: Any) -> None:
        if named["checkpoint"].name == LAST_CHECKPOINT:
            raise KeyboardInterrupt
        fit(task, schedule, *others, **named)

    folder = tmp_path / "killed" / "distilled"
    with monkeypatch.context() as patch:
        patch.setattr(student_job, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(run_copy, folder, WITH_LAST)
    assert weights(trained(run_copy, folder, WITH_LAST)) == whole
    assert not np.any([path.suffix == ".safetensors" for path in folder.iterdir() if path.name != "model.safetensors"])
