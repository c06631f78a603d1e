"""A teacher whose backbone learns too: it starts from what the probe knew."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support import TINY, context_of, label, run_on, teach
from torch import Tensor

from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.models.classifier import build, describe, load
from potstill.run.files import read_json
from potstill.run.folder import Run

pytestmark = pytest.mark.usefixtures("short_heads")

NAME = TINY["teacher.model"][0]


def teacher_of(train: str, **settings: float) -> TeacherConfig:
    return TeacherConfig(
        model=(NAME,), weights="package", size=64, probe_views=2, folds=0, min_gain=0, train=train, **settings
    )


def taught(store: PixelStore, folder: Path, config: TeacherConfig) -> Run:
    """A run with the store's photos, its teacher trained."""
    run = run_on(store, folder)
    teach(config, ViewsConfig(), context_of(run))
    return run


TUNED = teacher_of("finetune", finetune_epochs=2)


@pytest.fixture(scope="module")
def tuned(store: PixelStore, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return taught(store, tmp_path_factory.mktemp("tuned") / "run", TUNED)


def steps_of(run: Run) -> list[float]:
    lines = [json.loads(line) for line in (run.teacher / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["phase"] == "finetune"]


def test_its_first_loss_is_that_of_the_probe(tuned: Run) -> None:
    assert steps_of(tuned)[0] < np.log(3), "a head that knows nothing has ln 3"


def test_weights_learn_and_norms_keep_their_statistics(tuned: Run) -> None:
    before = build(describe(NAME, ["a", "b", "c"], size=64), weights="package").state_dict()
    after = load(tuned.teacher).state_dict()

    def moved(ending: str) -> Tensor:
        return torch.stack([(after[n] - before[n]).abs().max() for n in before if n.endswith(ending) and n in after])

    assert (moved("running_mean") == 0).all()
    assert (moved("running_var") == 0).all()
    assert (moved("conv_pw.weight") > 0).all()


def test_its_soft_labels_are_its_own(tuned: Run) -> None:
    label(TUNED, ViewsConfig(), 3, context_of(tuned))
    soft = SoftLabels.open(tuned)
    rows = np.arange(len(soft.photos))
    last = load(tuned.teacher).num_last_features
    known = np.load(tuned.teacher / "features.npy", mmap_mode="r")[:, 1, :last].astype(np.float32)
    assert np.abs(soft.features(rows, np.zeros(len(rows), int)) - known).max() > 0.01, "not those of the probe"


def test_auto_keeps_the_probe_where_fine_tuning_does_harm(store: PixelStore, tmp_path: Path) -> None:
    run = taught(store, tmp_path / "run", teacher_of("auto", finetune_epochs=1, finetune_lr=0.3))
    facts = read_json(run.teacher / "facts.json")
    assert facts["method"] == "probe"
    probed = taught(store, tmp_path / "probe", teacher_of("probe"))
    ours, others = (load(folder.teacher).state_dict() for folder in (run, probed))
    assert all(torch.equal(ours[name], others[name]) for name in ours)
