"""A model that answers through ONNX Runtime: the same float32 features as in torch, on CPUs in about half the time.

It is used where the extra `export` is installed, timing says that it is faster, and there is enough to answer that
writing the graph pays. What the graph says is compared with the model before it is used.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.fused import fused, same_features
from potstill.models import Classifier
from potstill.run import replacing
from potstill.training import Precision

MIN_LOOKS = 1000
"""Fewer photos to answer are answered sooner than the graph is written, which takes some ten seconds."""

FILE = "backbone.onnx"
"""In the teacher's folder until the soft labels are stored."""


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


def answering(model: Classifier, precision: Precision, folder: Path, *, threads: int) -> Classifier:
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
    """Any number of photos, (B, 3, S, S) float32 normalised pixels → (B, D)."""
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
