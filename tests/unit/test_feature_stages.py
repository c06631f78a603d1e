"""A head that sees more of the backbone than its last features."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import context_of, label, run_on, teach
from torch import nn

from potstill.compute.fold_batchnorm import fold, same_features
from potstill.compute.onnx_backbone import graph_model
from potstill.compute.precision import Precision
from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.errors import ModelError
from potstill.models import classifier as models
from potstill.models.classifier import Classifier, build, describe, load, load_info, save
from potstill.models.fold_heads import load_fold_heads
from potstill.models.zoo import construct
from potstill.run.files import read_json, write_json
from potstill.run.trained import Trained
from potstill.teacher.heads import apply_head

CPU = torch.device("cpu")
LITE = "efficientnet_lite0"


def of(name: str, feature_stages: int, size: int = 64) -> Classifier:
    return build(describe(name, ["a", "b", "c"], size=size, feature_stages=feature_stages), seed=1).eval()


def some_pixels(size: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "own", "seen"),
    [
        (LITE, 1280, 1280 + 2 * (24 + 40 + 112 + 320)),
        ("mobilenetv1_025", 256, 256 + 2 * (32 + 64 + 128 + 256)),
        ("resnet18", 512, 512 + 2 * (64 + 128 + 256 + 512)),
        ("densenet121", 1024, 1024 + 2 * (256 + 512 + 1024 + 1024)),
        ("vit_tiny_patch16_224", 192, 192 + 2 * 4 * 192),  # every third of twelve
        ("convnext_atto", 320, 320 + 2 * (40 + 80 + 160 + 320)),
        # Six maps, four of them; half a gigabyte of weights.
        pytest.param("vgg11", 4096, 4096 + 2 * (128 + 256 + 512 + 512), marks=pytest.mark.slow),
    ],
)
@torch.inference_mode()
def test_the_last_features_come_first_and_the_maps_follow(name: str, own: int, seen: int) -> None:
    size = 64 if "vgg" not in name else 224
    model, plain = of(name, 4, size), of(name, 0, size)
    features = model.features(some_pixels(size))
    assert features.shape == (2, seen)
    assert (model.num_features, model.num_last_features) == (seen, own)
    assert (plain.num_features, plain.num_last_features) == (own, own)
    assert torch.equal(features[:, :own], plain.features(some_pixels(size)))
    assert model(some_pixels(size)).shape == (2, 3)


@torch.inference_mode()
def test_a_map_is_told_by_the_mean_and_deviation_of_its_channels() -> None:
    model = of(LITE, 1)
    maps: list[torch.Tensor] = []
    model.net.get_submodule("blocks.6").register_forward_hook(lambda _module, _inputs, out: maps.append(out))
    told = model.features(some_pixels())[:, 1280:]
    expected = np.concatenate([maps[0].numpy().mean((2, 3)), maps[0].numpy().std((2, 3))], -1)
    assert told.numpy() == pytest.approx(expected, abs=0.01 * float(expected.std()))


@torch.inference_mode()
def test_a_model_that_shows_no_maps_has_its_last_features(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.delattr(timm.models.efficientnet.EfficientNet, "forward_intermediates")
    model = of(LITE, 4)
    assert model.num_features == 1280
    assert model.features(some_pixels()).shape == (2, 1280)


@torch.inference_mode()
def test_a_model_that_tells_other_widths_than_it_has_has_its_last_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def telling_wrong(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
        net = construct(architecture, arguments)
        net.feature_info = [{**stage, "num_chs": 7} for stage in net.feature_info]
        return net

    monkeypatch.setattr(models, "construct", telling_wrong)
    model = of(LITE, 4)
    assert model.info.feature_stages == 0
    assert model(some_pixels()).shape == (2, 3)


@pytest.mark.slow
def test_every_form_of_it_says_the_same(tmp_path: Path) -> None:
    model = of(LITE, 4)
    assert same_features(model, fold(model, Precision(CPU)), CPU)
    graph = graph_model(model, tmp_path, 1)
    assert graph is not None, "ONNX Runtime can have it"
    assert graph.num_features == model.num_features


@torch.inference_mode()
def test_it_is_stored_and_loaded_and_older_files_have_none(tmp_path: Path) -> None:
    model = of(LITE, 3)
    save(model, tmp_path / "new", Trained(role="teacher"))
    assert torch.equal(load(tmp_path / "new")(some_pixels()), model(some_pixels()))
    save(of(LITE, 0), tmp_path / "old", Trained(role="teacher"))
    content = read_json(tmp_path / "old" / "model.json")
    del content["feature_stages"]
    write_json(tmp_path / "old" / "model.json", {**content, "format": 2})
    assert load_info(tmp_path / "old").feature_stages == 0
    assert load(tmp_path / "old")(some_pixels()).shape == (2, 3)


@pytest.mark.parametrize("folds", [0, 2])
def test_its_head_sees_all_and_students_learn_the_last_features(folds: int, store: PixelStore, tmp_path: Path) -> None:
    config = TeacherConfig(
        train="probe",
        model=(LITE,),
        weights="package",
        size=64,
        probe_views=2,
        probe_epochs=5,
        probe_min_steps=60,
        folds=folds,
        min_gain=0,
    )
    run, views = run_on(store, tmp_path / "run"), ViewsConfig()
    teach(config, views, context_of(run))
    label(config, views, 2, context_of(run))
    soft = SoftLabels.open(run)
    seen = np.load(run.teacher / "features.npy")
    assert seen.shape[-1] == load(run.teacher).num_features == 2272
    rows = np.arange(len(soft.photos))
    view = np.ones(len(rows), int)
    assert np.array_equal(soft.features(rows, view), seen[:, 2, :1280])
    heads = load_fold_heads(run.teacher) or [load(run.teacher).head]
    said = np.stack([apply_head(head, seen[:, 2]) for head in heads])
    told = soft.logits(rows, view).astype(np.float32)
    assert np.abs(said - told).max(-1).min(0) == pytest.approx(0, abs=0.02), "each photo by one of the heads"


@pytest.mark.slow
@pytest.mark.long
def test_a_larger_penalty_makes_smaller_weights(store: PixelStore, tmp_path: Path) -> None:
    sizes = []
    for penalty in (0.0, 0.02, 0.5):
        config = TeacherConfig(
            train="probe",
            model=(LITE,),
            weights="package",
            size=64,
            probe_views=1,
            folds=0,
            min_gain=0,
            head_l2=penalty,
        )
        run = run_on(store, tmp_path / f"run-{penalty}")
        teach(config, ViewsConfig(), context_of(run))
        head = load(run.teacher).head
        seen = np.load(run.teacher / "features.npy").astype(np.float32).reshape(-1, 2272)
        sizes.append(float(np.square(head.weight.detach().numpy() * seen.std(0)).sum()))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 0.8 * sizes[0]


def test_the_description_says_how_many_before_anything_is_built() -> None:
    info = describe(LITE, ["a", "b"], feature_stages=2)
    assert info.feature_stages == 2
    assert dataclasses.replace(info, feature_stages=0) == describe(LITE, ["a", "b"])


@pytest.mark.parametrize("name", ["levit_128s", "sequencer2d_s"])
def test_a_model_without_features_and_head_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name} cannot be used: Potstill puts a new head"):
        build(describe(name, ["a", "b"]))
