"""How a model answers fastest on this machine, the same answers: in torch or, on CPUs, through ONNX Runtime.

ONNX Runtime takes about half the time of torch for the same float32 features. It is used where the extra `export` is
installed, timing says that it is faster, and there is enough to answer that writing the graph pays; what the graph
says is compared with the model before it is used. Else torch answers, folded, in float32 or bfloat16
(`potstill.compute.fold_batchnorm`).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.compute.device import Machine, has_onnxruntime
from potstill.compute.fold_batchnorm import fused, same_features
from potstill.compute.inference import BATCH
from potstill.compute.precision import Precision
from potstill.compute.selection import WORTH_IT, fastest_precision
from potstill.compute.timing import photos_per_second
from potstill.models.classifier import Classifier
from potstill.run.files import read_json, replacing, write_json

MIN_SECONDS = 20.0
"""Work that torch has done sooner is not worth a graph, which takes some ten seconds to write, nor the timing of
batches."""

BATCHES = (BATCH // 2, BATCH, 2 * BATCH)
"""Photos in one go that are tried."""

FILE = "backbone.onnx"
"""In the teacher's folder until the soft labels are stored."""


def choose_precision(
    model: Classifier, folder: Path, machine: Machine, *, looks: int
) -> tuple[Precision, dict[str, float]]:
    """The arithmetic and runtime to answer in, chosen by timing once, and the photos per second of each.

    `looks` is the number of views that this stage will have answered; labeling them all has more.
    """
    path, device = folder / "precision.json", machine.torch_device()
    if not path.is_file():
        precision, speeds = fastest_precision(fused(model, Precision(device)), model.info.size, machine, training=False)
        long = looks / speeds[precision.name] >= MIN_SECONDS
        if _may_use_graph(machine, long=long):
            form = graph_form(model, folder, threads=machine.cores)
            if form is not None:
                speed, _ = photos_per_second(form, model.info.size, Precision(device), training=False)
                speeds["onnxruntime"] = round(speed, 1)
                asked = machine.runtime == "onnxruntime"
                if asked or speed > speeds[precision.name]:
                    precision = Precision(device, runtime="onnxruntime")
        precision, batches = _choose_batch(model, folder, precision, machine, long=long)
        _write_precision(folder, precision, speeds, batches)
    facts = read_json(path)
    precision = Precision(device, getattr(torch, facts["dtype"]), facts["runtime"], facts.get("batch", BATCH))
    return precision, facts["photos_per_second"]


def _choose_batch(
    model: Classifier, folder: Path, precision: Precision, machine: Machine, *, long: bool
) -> tuple[Precision, dict[str, float]]:
    """How many photos to answer in one go, and the photos per second of each number that was tried."""
    if machine.label_batch != "auto" or not long:
        batch = BATCH if machine.label_batch == "auto" else machine.label_batch
        return replace(precision, batch=batch), {}
    form = form_for(model, precision, folder, threads=machine.cores)
    plain = replace(precision, runtime="torch")  # the form itself knows what it runs in
    speeds = {
        number: photos_per_second(form, model.info.size, plain, training=False, batch=number)[0] for number in BATCHES
    }
    best = max(speeds, key=lambda number: speeds[number])
    if speeds[best] < WORTH_IT * speeds[BATCH]:
        best = BATCH
    return replace(precision, batch=best), {str(number): round(speed, 1) for number, speed in speeds.items()}


def _may_use_graph(machine: Machine, *, long: bool) -> bool:
    on_cpu = machine.device == "cpu" and machine.precision != "bfloat16" and has_onnxruntime()
    return machine.runtime == "onnxruntime" or (machine.runtime == "auto" and on_cpu and long)


def advice(machine: Machine, seconds: float) -> str:
    """What would make labeling faster here, when it takes so many seconds; empty when nothing would."""
    slow = machine.device == "cpu" and machine.runtime == "auto" and seconds >= MIN_SECONDS and not has_onnxruntime()
    return "On a CPU the teacher may answer twice as fast: pip install 'potstill[export]'" if slow else ""


def keep_exact(folder: Path, speeds: dict[str, float], quick: Precision) -> Precision:
    """float32 after all, instead of `quick`, in the faster runtime; written down."""
    graph = speeds.get("onnxruntime", 0.0) > speeds["float32"]
    precision = Precision(quick.device, runtime="onnxruntime" if graph else "torch", batch=quick.batch)
    _write_precision(folder, precision, speeds, {})
    return precision


def _write_precision(folder: Path, precision: Precision, speeds: dict[str, float], batches: dict[str, float]) -> None:
    facts = {
        "dtype": precision.name,
        "runtime": precision.runtime,
        "photos_per_second": speeds,
        "batch": precision.batch,
        "batch_photos_per_second": batches,
    }
    write_json(folder / "precision.json", facts)


def graph_form(model: Classifier, folder: Path, *, threads: int) -> Classifier | None:
    """The model with its backbone as a graph; None where it cannot be written, or says something else.

    Args:
        model: on the CPU.
        folder: keeps the graph; one of other weights is replaced.
    """
    path = folder / FILE
    if path.is_file():
        form = _GraphForm(model, path, threads)
        if same_features(model, form, torch.device("cpu")):
            return form
    try:
        _write(model, path)
    except (RuntimeError, TypeError, ValueError, AttributeError, torch.onnx.OnnxExporterError):
        return None  # code of the model that the exporter cannot follow
    form = _GraphForm(model, path, threads)
    return form if same_features(model, form, torch.device("cpu")) else None


def form_for(model: Classifier, precision: Precision, folder: Path, *, threads: int) -> Classifier:
    """The form of a model that answers as `precision` says; in torch where the graph fails."""
    form = graph_form(model, folder, threads=threads) if precision.runtime == "onnxruntime" else None
    return form or fused(model, precision)


class _GraphForm(Classifier):
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
    backbone = _Backbone(fused(model, Precision(torch.device("cpu")))).to(memory_format=torch.contiguous_format)
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
