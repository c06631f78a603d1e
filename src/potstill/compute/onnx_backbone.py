"""A backbone in ONNX Runtime, which takes about half the time of torch for the same float32 features on a CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.compute.backend import Backend
from potstill.compute.fold_batchnorm import fold, same_features
from potstill.compute.precision import Precision
from potstill.models.classifier import Classifier
from potstill.run.files import replacing

FILE = "backbone.onnx"


def graph_model(model: Classifier, folder: Path, threads: int) -> Classifier | None:
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


class _GraphModel(Classifier):
    """Features from ONNX Runtime, logits from the model's own head."""

    def __init__(self, model: Classifier, path: Path, threads: int) -> None:
        import onnxruntime

        nn.Module.__init__(self)
        self.info, self._head, self._width = model.info, model.head, model.num_features
        self._last_width = model.num_last_features
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

    @property
    def num_last_features(self) -> int:
        return self._last_width

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


BACKEND = Backend(
    name="onnxruntime",
    title="ONNX Runtime",
    devices=("cpu",),
    packages=("onnx", "onnxscript", "onnxruntime"),
    install="pip install 'potstill[export]'",
    file=FILE,
    convert=graph_model,
)
