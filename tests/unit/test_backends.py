"""A backbone that runs in ONNX Runtime says what torch says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support import context_of, label, run_on, teach

from potstill.compute import backends, onnx_backbone
from potstill.compute.backends import inference_model, measure_inference
from potstill.compute.device import decide
from potstill.compute.inference import outputs, store_features
from potstill.compute.machine import Machine
from potstill.compute.onnx_backbone import FILE, graph_model
from potstill.compute.precision import Precision
from potstill.config.schema import MachineConfig, TeacherConfig, ViewsConfig
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer, draw_views
from potstill.errors import ConfigError
from potstill.models.classifier import Classifier, build, describe
from potstill.run.files import read_json

GRAPH = Precision(torch.device("cpu"), runtime="onnxruntime")
MANY = 1_000_000
TEACHER = TeacherConfig(
    train="probe",
    model=("efficientnet_lite0",),
    weights="package",
    size=64,
    probe_views=1,
    probe_epochs=5,
    probe_min_steps=60,
    folds=0,
    min_gain=0,
)


def model_of(seed: int) -> Classifier:
    return build(describe("mobilenetv1_025", ["a", "b", "c"], size=64), seed=seed).eval()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


def test_the_graph_says_what_torch_says_for_any_number_of_photos(tmp_path: Path, pixels: np.ndarray) -> None:
    model = model_of(1)
    form = graph_model(model, tmp_path, 1)
    assert form is not None
    assert form.num_features == model.num_features
    assert form.num_last_features == model.num_last_features
    for count in (1, 2, 5):
        for exact, graph in zip(
            outputs(model, pixels[:count], GRAPH), outputs(form, pixels[:count], GRAPH), strict=True
        ):
            assert graph.dtype == np.float32
            assert np.abs(exact - graph).max() < 1e-4 * max(np.abs(exact).max(), 1)


@pytest.mark.slow
def test_a_stored_graph_is_used_again_but_not_for_other_weights(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = model_of(1), model_of(2)
    assert graph_model(first, tmp_path, 1)
    written = (tmp_path / FILE).read_bytes()
    form = graph_model(second, tmp_path, 1)
    assert form is not None
    assert (tmp_path / FILE).read_bytes() != written
    assert outputs(form, pixels, GRAPH)[0] == pytest.approx(outputs(second, pixels, GRAPH)[0], abs=1e-4)
    monkeypatch.setattr(onnx_backbone, "_write", lambda model, path: pytest.fail("the graph was there"))
    assert graph_model(second, tmp_path, 1)


def test_what_the_exporter_cannot_follow_answers_in_torch(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: Classifier, path: Path) -> None:
        raise torch.onnx.OnnxExporterError("no such operation")

    monkeypatch.setattr(onnx_backbone, "_write", write)
    model = model_of(1)
    form = inference_model(model, GRAPH, tmp_path, threads=1)
    assert outputs(form, pixels, GRAPH)[0] == pytest.approx(outputs(model, pixels, GRAPH)[0], abs=1e-4)


def labeled(store: PixelStore, folder: Path, runtime: str) -> tuple[dict, np.ndarray]:
    """What a run's stages 2 and 3 measured, and the features of the second view of all photos."""
    run = run_on(store, folder)
    context = context_of(run, runtime=runtime)
    teach(TEACHER, ViewsConfig(), context)
    label(TEACHER, ViewsConfig(), 2, context)
    assert not (run.teacher / FILE).exists(), "the graph has done its work"
    soft = SoftLabels.open(run)
    rows = np.arange(len(soft.photos))
    features = soft.features(rows, np.ones(len(rows), int)).astype(np.float32)
    return read_json(run.teacher / "precision.json"), features


@pytest.mark.slow
def test_soft_labels_are_the_same_in_both(store: PixelStore, tmp_path: Path) -> None:
    in_torch, exact = labeled(store, tmp_path / "torch", "torch")
    in_graph, others = labeled(store, tmp_path / "graph", "onnxruntime")
    assert (in_torch["runtime"], in_graph["runtime"]) == ("torch", "onnxruntime")
    assert set(in_graph["photos_per_second"]) - set(in_torch["photos_per_second"]) == {"onnxruntime"}
    assert np.abs(exact - others).max() < 5e-3 * np.abs(exact).max()  # stored in half precision


def test_small_work_stays_in_torch(store: PixelStore, tmp_path: Path) -> None:
    facts, _ = labeled(store, tmp_path / "run", "auto")
    assert facts["runtime"] == "torch"


@pytest.mark.parametrize(("lead", "chosen"), [(1.2, 16), (1.05, 32)])
def test_another_number_of_photos_in_one_go_must_be_clearly_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lead: float, chosen: int
) -> None:
    def timed(form: Classifier, size: int, precision: Precision, training: bool, batch: int) -> tuple[float, float]:
        return (100 * lead if batch == 16 else 100.0), 0.0

    monkeypatch.setattr(backends, "photos_per_second", timed)
    machine = Machine("cpu", 1, 1, MachineConfig(precision="float32", runtime="torch"))
    for _ in range(2):  # the second time it is read
        precision = measure_inference(model_of(1), tmp_path, machine, num_views=MANY).precision("cpu")
        assert precision.batch == chosen
    assert read_json(tmp_path / "precision.json")["batch_photos_per_second"] == {"16": 100 * lead, "32": 100, "64": 100}


def test_the_number_of_photos_in_one_go_can_be_set_and_changes_nothing(store: PixelStore, tmp_path: Path) -> None:
    asked = Machine("cpu", 1, 1, MachineConfig(precision="float32", runtime="torch", label_batch=5))
    precision = measure_inference(model_of(1), tmp_path, asked, num_views=MANY).precision("cpu")
    assert precision.batch == 5
    rows = store.rows("train")
    views, form = draw_views(store, rows, 2, ViewsConfig()), model_of(1)
    stored = []
    for batch in (5, 32):
        writer = RowWriter(tmp_path / f"{batch}.npy", (*views.shape, form.num_features), np.float16)
        store_features(form, Renderer(store, rows, views, 64), writer, replace(precision, batch=batch), lambda n: None)
        writer.close()
        stored.append(np.load(tmp_path / f"{batch}.npy").astype(np.float32))
    assert stored[0] == pytest.approx(stored[1], abs=2e-3 * float(np.abs(stored[0]).max()))


def test_who_could_be_faster_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("cpu", 2, 2)
    assert not backends.install_hint(machine, 10_000)
    monkeypatch.setattr("potstill.compute.backend.find_spec", lambda name: None)
    assert "pip install 'potstill[export]'" in backends.install_hint(machine, 10_000)
    assert not backends.install_hint(machine, 10)
    assert not backends.install_hint(Machine("cuda", 2, 1), 10_000)


def test_an_unknown_runtime_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"is none of auto, torch, onnxruntime\. Did you mean 'onnxruntime'\?"):
        decide(MachineConfig(device="cpu", runtime="onnx_runtime"))


def test_what_cannot_be_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="float32 only"):
        decide(MachineConfig(device="cpu", precision="bfloat16", runtime="onnxruntime"))
    monkeypatch.setattr("potstill.compute.backend.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'potstill\[export\]'"):
        decide(MachineConfig(device="cpu", runtime="onnxruntime"))
