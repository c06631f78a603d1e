"""Inference at the highest speed of this machine with the same outputs: in torch or, on CPUs, in ONNX Runtime.

ONNX Runtime takes about half the time of torch for the same float32 features. It is used where the extra `export` is
installed, it is faster by timing, and there are enough views that exporting the graph pays; the graph's features are
compared with the model's before it is used. Otherwise torch runs the folded model, in float32 or bfloat16
(`potstill.compute.fold_batchnorm`)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.compute.device import has_onnxruntime
from potstill.compute.fold_batchnorm import fold, same_features
from potstill.compute.inference import BATCH
from potstill.compute.machine import Machine
from potstill.compute.measured import Measured
from potstill.compute.precision import Precision
from potstill.compute.selection import MIN_SPEEDUP, fastest_precision
from potstill.compute.timing import photos_per_second
from potstill.models.classifier import Classifier
from potstill.run.files import replacing

MIN_SECONDS = 20.0
"""Shorter work does not pay for exporting a graph, which takes some ten seconds, nor for timing batches."""

BATCHES = (BATCH // 2, BATCH, 2 * BATCH)
"""Batch sizes that are tried."""

FILE = "backbone.onnx"
"""In the teacher's folder until the soft labels are stored."""


def measure_inference(model: Classifier, folder: Path, machine: Machine, *, num_views: int) -> Measured:
    """The fastest arithmetic, runtime and batch for this model, by timing once; stored in its folder.

    Args:
        num_views: that the teacher's stage will process; labeling takes more.
    """
    known = Measured.read(folder)
    if known is not None:
        return known
    device = torch.device(machine.device)
    folded = fold(model, Precision(device))
    precision, speeds = fastest_precision(folded, model.info.size, machine, training=False)
    measured = Measured(dtype=precision.name, photos_per_second=speeds, batch=BATCH)
    long = num_views / measured.speed >= MIN_SECONDS
    if _may_use_graph(machine, long=long):
        measured = _with_graph(model, folder, machine, measured)
    measured = _with_batch(model, folder, machine, measured, long=long)
    measured.write(folder)
    return measured


def _with_graph(model: Classifier, folder: Path, machine: Machine, measured: Measured) -> Measured:
    """In ONNX Runtime where it gives the same features, and is faster or was requested."""
    graph = graph_model(model, folder, threads=machine.cores)
    if graph is None:
        return measured
    plain = Precision(torch.device(machine.device))
    speed, _ = photos_per_second(graph, model.info.size, plain, training=False)
    speeds = {**measured.photos_per_second, "onnxruntime": round(speed, 1)}
    if machine.requested.runtime == "onnxruntime" or speed > measured.speed:
        return replace(measured, dtype="float32", runtime="onnxruntime", photos_per_second=speeds)
    return replace(measured, photos_per_second=speeds)


def _with_batch(model: Classifier, folder: Path, machine: Machine, measured: Measured, *, long: bool) -> Measured:
    """With the requested batch, or the fastest of `BATCHES`."""
    if machine.requested.label_batch != "auto" or not long:
        batch = BATCH if machine.requested.label_batch == "auto" else machine.requested.label_batch
        return replace(measured, batch=batch)
    precision = measured.precision(machine.device)
    chosen = inference_model(model, precision, folder, threads=machine.cores)
    plain = replace(precision, runtime="torch")  # the model itself knows what it runs in
    speeds = {n: photos_per_second(chosen, model.info.size, plain, training=False, batch=n)[0] for n in BATCHES}
    best = max(speeds, key=lambda number: speeds[number])
    if speeds[best] < MIN_SPEEDUP * speeds[BATCH]:
        best = BATCH
    rounded = {str(number): round(speed, 1) for number, speed in speeds.items()}
    return replace(measured, batch=best, batch_photos_per_second=rounded)


def _may_use_graph(machine: Machine, *, long: bool) -> bool:
    wanted = machine.requested
    on_cpu = machine.device == "cpu" and wanted.precision != "bfloat16" and has_onnxruntime()
    return wanted.runtime == "onnxruntime" or (wanted.runtime == "auto" and on_cpu and long)


def install_hint(machine: Machine, seconds: float) -> str:
    """What to install to make labeling faster here, when it takes so many seconds; empty when nothing would."""
    slow = machine.device == "cpu" and machine.requested.runtime == "auto" and seconds >= MIN_SECONDS
    if not slow or has_onnxruntime():
        return ""
    return "On a CPU labeling may take half the time with ONNX Runtime: pip install 'potstill[export]'"


def fall_back_to_float32(folder: Path, measured: Measured) -> Measured:
    """The record with float32 instead of a faster arithmetic, in the faster runtime; stored."""
    speeds = measured.photos_per_second
    graph = speeds.get("onnxruntime", 0.0) > speeds["float32"]
    exact = replace(
        measured,
        dtype="float32",
        runtime="onnxruntime" if graph else "torch",
        batch_photos_per_second={},
    )
    exact.write(folder)
    return exact


def graph_model(model: Classifier, folder: Path, *, threads: int) -> Classifier | None:
    """The model with its backbone as an ONNX graph; None where it cannot be exported, or gives other features.

    Args:
        model: on the CPU.
        folder: keeps the graph; one of other weights is replaced.
    """
    path = folder / FILE
    if path.is_file():
        graph = _GraphModel(model, path, threads)
        if same_features(model, graph, torch.device("cpu")):
            return graph
    try:
        _write(model, path)
    except (RuntimeError, TypeError, ValueError, AttributeError, torch.onnx.OnnxExporterError):
        return None  # code of the model that the exporter cannot follow
    graph = _GraphModel(model, path, threads)
    return graph if same_features(model, graph, torch.device("cpu")) else None


def inference_model(model: Classifier, precision: Precision, folder: Path, *, threads: int) -> Classifier:
    """The model in the form that `precision` names, for inference only; in torch where the graph fails."""
    graph = graph_model(model, folder, threads=threads) if precision.runtime == "onnxruntime" else None
    return graph or fold(model, precision)


class _GraphModel(Classifier):
    """Features from ONNX Runtime, logits from the model's own head."""

    def __init__(self, model: Classifier, path: Path, threads: int) -> None:
        import onnxruntime

        nn.Module.__init__(self)
        self.info, self._head, self._width = model.info, model.head, model.num_features
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Spinning threads would take the processor from whoever renders the next photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    @property
    def head(self) -> nn.Module:
        return self._head

    @property
    def num_features(self) -> int:
        return self._width

    def features(self, pixels: Tensor) -> Tensor:
        values: np.ndarray = self._session.run(None, {"pixels": pixels.float().contiguous().numpy()})[0]
        return torch.from_numpy(values)


class _Backbone(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.features(pixels)


def _write(model: Classifier, path: Path) -> None:
    """Any number of photos, (B, 3, S, S) float32 normalized pixels → (B, D)."""
    size = model.info.size
    backbone = _Backbone(fold(model, Precision(torch.device("cpu")))).to(memory_format=torch.contiguous_format)
    batch: Any = torch.export.Dim("batch", min=1, max=4096)
    with replacing(path) as temporary:
        torch.onnx.export(
            backbone.eval(),
            (torch.zeros(2, 3, size, size),),
            str(temporary),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["pixels"],
            output_names=["features"],
            dynamic_shapes=({0: batch},),
        )
