"""A teacher whose whole network learns, once per fold: it never labels a photo that it learned from."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import TINY, context_of, label, make_photos, run_on, teach
from torch import Tensor

from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.folds import fold_of
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.unlike import used_rows
from potstill.data.views import Renderer, plain_pixels
from potstill.metrics import mean_probability_logits, softmax
from potstill.models.classifier import build, describe, load, normalize
from potstill.models.fold_heads import load_fold_heads
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.layout import teacher_networks, tuned_on_path
from potstill.teacher.finetune import FineTuning
from potstill.teacher.stage import _Member

NAME = TINY["teacher.model"][0]
FOLDS = 2
VIEWS = ViewsConfig()


def teacher_of(train: str, **settings: Any) -> TeacherConfig:
    given = {
        "size": 64,
        "probe_views": 2,
        "probe_min_steps": 60,
        "folds": 0,
        "min_gain": 0,
        "finetune_epochs": 1,
        "finetune_folds": FOLDS,
    }
    return TeacherConfig(model=(NAME,), weights="package", train=train, **{**given, **settings})


def taught(store: PixelStore, folder: Path, config: TeacherConfig) -> Run:
    """A run with the store's photos, its teacher trained."""
    run = run_on(store, folder)
    teach(config, VIEWS, context_of(run))
    return run


TUNED = teacher_of("finetune")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, packer: Callable[..., PixelStore]) -> PixelStore:
    folder = tmp_path_factory.mktemp("photos")
    return packer(make_photos(folder / "data", {"train": 12, "val": 4, "test": 2, "unlabeled": 4}), folder, size=80)


@pytest.fixture(scope="module")
def tuned(store: PixelStore, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = taught(store, tmp_path_factory.mktemp("tuned") / "run", TUNED)
    label(TUNED, VIEWS, 3, context_of(run))
    return run


def test_all_weights_and_norms_learn(tuned: Run) -> None:
    before = build(describe(NAME, ["a", "b", "c"], size=64), weights="package").state_dict()
    for folder in teacher_networks(tuned.teacher, TUNED.model)[0]:
        after = load(folder).state_dict()

        def moved(ending: str, after: dict[str, Tensor] = after) -> Tensor:
            return torch.stack([(after[n] - before[n]).abs().max() for n in before if n.endswith(ending)])

        assert (moved("running_mean") > 0).all()
        assert (moved("conv_pw.weight") > 0).all()


def test_each_network_labels_the_fold_that_it_has_not_seen(tuned: Run, store: PixelStore) -> None:
    soft = SoftLabels.open(tuned)
    unlabeled = soft.photos[~store.is_labeled(soft.photos)]
    assert np.load(tuned_on_path(tuned.teacher)).tolist() == unlabeled.tolist(), "the probe learned from them, too"
    fold = fold_of(store, soft.photos, FOLDS)
    for labeled in (True, False):
        assert set(fold[store.is_labeled(soft.photos) == labeled]) == {0, 1}
    every = np.arange(len(soft.photos))
    networks = [load(folder) for folder in teacher_networks(tuned.teacher, TUNED.model)[0]]
    logits = [_logits(network, store, soft, every, view=1) for network in networks]
    stored = softmax(soft.logits(every, np.ones(len(every), int)).astype(np.float32))
    own = np.where((fold == 0)[:, None], softmax(logits[0]), softmax(logits[1]))
    other = np.where((fold == 0)[:, None], softmax(logits[1]), softmax(logits[0]))
    assert np.abs(stored - own).max() < 0.01
    assert np.abs(stored - other).max() > 0.1


def test_photos_that_no_network_learned_from_get_the_mean_of_all(store: PixelStore, tmp_path: Path) -> None:
    config = teacher_of("finetune", unlabeled="ignore")
    run = taught(store, tmp_path / "run", config)
    label(config, VIEWS, 3, context_of(run))
    assert not tuned_on_path(run.teacher).exists()
    soft = SoftLabels.open(run)
    unknown = np.flatnonzero(store.labels(soft.photos) < 0)
    assert len(unknown)
    networks = [load(folder) for folder in teacher_networks(run.teacher, TUNED.model)[0]]
    mean = np.mean([softmax(_logits(network, store, soft, unknown, view=0)) for network in networks], axis=0)
    stored = softmax(soft.logits(unknown, np.zeros(len(unknown), int)).astype(np.float32))
    assert np.abs(stored - mean).max() < 0.01


def test_networks_learn_what_the_probe_believes_of_photos_without_labels(
    store: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def start(self: FineTuning, worthwhile: Callable[[np.ndarray], bool]) -> None:
        seen.update(photos=self.photos, beliefs=self.beliefs)

    monkeypatch.setattr(FineTuning, "run", start)
    run = taught(store, tmp_path / "run", teacher_of("finetune"))
    assert seen["photos"].tolist() == used_rows(run, store).tolist()
    known = store.is_labeled(seen["photos"])
    assert (seen["beliefs"][known] == store.targets(store.rows("train"), 3)).all()
    others = seen["photos"][~known]
    pixels = plain_pixels(store, others, 64)
    probe = load(run.teacher)
    with torch.inference_mode():
        expected = softmax(probe(normalize(torch.from_numpy(pixels), probe.info)).numpy())
    assert np.abs(seen["beliefs"][~known] - expected).max() < 0.01, "float16 features lie between the two"

    labeled = int(known.sum())
    monkeypatch.setattr("potstill.teacher.plan.MAX_FINETUNE_PHOTOS", labeled + 5)
    taught(store, tmp_path / "few", teacher_of("finetune"))
    assert store.is_labeled(seen["photos"]).sum() == labeled
    assert len(seen["photos"]) == labeled + 5


def _logits(network: Any, store: PixelStore, soft: SoftLabels, photos: np.ndarray, view: int) -> np.ndarray:
    pixels = Renderer(store, soft.photos, soft.views, 64)(photos, np.full(len(photos), view))
    with torch.inference_mode():
        return np.asarray(network(normalize(torch.from_numpy(pixels), network.info)).numpy())


def test_its_out_of_fold_predictions_are_stored(tuned: Run, store: PixelStore) -> None:
    with np.load(tuned.teacher / "out_of_fold.npz", allow_pickle=False) as stored:
        rows, logits, labels = stored["row"], stored["logits"], stored["labels"]
    assert rows.tolist() == store.rows("train").tolist()
    assert labels.tolist() == store.labels(rows).tolist()
    assert logits.shape == (len(rows), 3)


def test_a_network_that_is_there_is_not_trained_again(tmp_path: Path, tuned: Run) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(tuned.path, run.path)
    for name in ("done.json", "facts.json"):
        (run.teacher / name).unlink()
    shutil.rmtree(run.teacher / "fold-2")
    written = (run.teacher / "fold-1" / "model.safetensors").stat().st_mtime_ns
    teach(TUNED, VIEWS, context_of(run))
    assert (run.teacher / "fold-1" / "model.safetensors").stat().st_mtime_ns == written
    again, before = (folder.teacher / "fold-2" / "model.safetensors" for folder in (run, tuned))
    assert again.read_bytes() == before.read_bytes()


def test_auto_keeps_the_probe_where_fine_tuning_does_harm(
    store: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.teacher.stage.FEW_ERRORS", -1.0)  # never good enough not to try
    run = taught(store, tmp_path / "run", teacher_of("auto", finetune_lr=1.0))
    assert read_json(run.teacher / "facts.json")["method"] == "probe"
    assert not list(run.teacher.glob("fold-*")), "the first network shows it; the others are not trained"
    assert not tuned_on_path(run.teacher).exists()
    probed = taught(store, tmp_path / "probe", teacher_of("probe"))
    ours, others = (load(folder.teacher).state_dict() for folder in (run, probed))
    assert all(torch.equal(ours[name], others[name]) for name in ours)


def test_networks_that_val_does_not_choose_are_removed(
    store: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.teacher.stage.FEW_ERRORS", -1.0)
    monkeypatch.setattr("potstill.teacher.stage.CLEARLY", np.inf)  # all folds are trained, however bad
    run = taught(store, tmp_path / "run", teacher_of("auto", finetune_lr=1.0))
    assert read_json(run.teacher / "facts.json")["method"] == "probe"
    assert (run.teacher / "metrics.jsonl").read_text().count('"finetune"') > 1
    assert [len(group) for group in teacher_networks(run.teacher, (NAME,))] == [1]


def test_auto_does_not_try_where_the_probe_makes_few_errors(
    store: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.teacher.stage.FEW_ERRORS", 1.0)
    run = taught(store, tmp_path / "run", teacher_of("auto"))
    assert read_json(run.teacher / "facts.json")["method"] == "probe"
    assert not (run.teacher / "metrics.jsonl").read_text().count("finetune")


def test_auto_takes_the_fine_tuned_networks_where_they_are_better(
    store: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.teacher.stage.FEW_ERRORS", -1.0)
    run = taught(store, tmp_path / "run", teacher_of("auto", probe_epochs=0, finetune_epochs=3))
    assert read_json(run.teacher / "facts.json")["method"] == "finetune", "a head that learned nothing is beaten"
    assert not (run.teacher / "model.json").exists()
    assert [len(group) for group in teacher_networks(run.teacher, (NAME,))] == [FOLDS]


def test_both_together_are_the_mean_of_the_probe_and_of_the_networks(
    store: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.teacher.stage.FEW_ERRORS", -1.0)
    choose = _Member._choose

    def both(self: _Member, probed: Any, tuned: Any) -> tuple[str, np.ndarray]:
        choose(self, probed, tuned)
        return "probe+finetune", mean_probability_logits([probed.val_logits, tuned.val_logits])

    monkeypatch.setattr(_Member, "_choose", both)
    config = teacher_of("auto", folds=2, finetune_epochs=2, probe_epochs=0)
    run = taught(store, tmp_path / "run", config)
    label(config, VIEWS, 3, context_of(run))
    assert [len(group) for group in teacher_networks(run.teacher, (NAME,))] == [1, FOLDS]
    soft = SoftLabels.open(run)
    assert soft.features(np.array([0]), np.array([0])).shape[-1] == load(run.teacher).num_last_features, (
        "students learn the features of the frozen backbone"
    )
    (probe,), tuned = teacher_networks(run.teacher, (NAME,))
    unknown = np.flatnonzero(store.labels(soft.photos) < 0)
    fold = fold_of(store, soft.photos[unknown], FOLDS)
    parts = [softmax(_logits(load(folder), store, soft, unknown, view=2)) for folder in tuned]
    heads = load_fold_heads(probe)
    features = _features(load(probe), store, soft, unknown, view=2)
    with torch.inference_mode():
        probed = softmax(torch.stack([head(features) for head in heads]).mean(0).numpy())
    expected = (probed + np.where((fold == 0)[:, None], *parts)) / 2
    stored = softmax(soft.logits(unknown, np.full(len(unknown), 2)).astype(np.float32))
    assert np.abs(stored - expected).max() < 0.01


def _features(network: Any, store: PixelStore, soft: SoftLabels, photos: np.ndarray, view: int) -> Tensor:
    pixels = Renderer(store, soft.photos, soft.views, 64)(photos, np.full(len(photos), view))
    with torch.inference_mode():
        return network.features(normalize(torch.from_numpy(pixels), network.info))
