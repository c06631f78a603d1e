"""ONNX, for ONNX Runtime on servers, desktops, phones and in the browser. Takes photos of any size."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from potstill.export.formats.base import ExportRequest, Format, Runner
from potstill.export.int8.quantization import Quantization
from potstill.run.files import replacing

if TYPE_CHECKING:  # it imports torch, which the process that scores a file does not need
    from potstill.deploy.deployable import Deployable

SMALLEST, LARGEST = 16, 8192
"""Sides of photos that the file takes, in pixels."""


def export_onnx(request: ExportRequest) -> None:
    """Write one ONNX file: input `image` (H, W, 3) uint8, output `probabilities` (1, C) float32.

    In float16, weights and arithmetic of the network are 16 bits; the preprocessing stays float32.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        if request.precision == "float16":
            result = write_graph(request.deployable, Path(folder) / "half.onnx", half=True)
        else:
            result = write_graph(request.deployable, (request.cache or Path(folder)) / "plain.onnx")
        if request.precision == "int8":
            assert request.quantization is not None
            result = _quantize(result, Path(folder) / "int8.onnx", request.quantization)
        model = onnx.load(result)
    _forget_sources(model)
    _shorten(model)
    onnx.helper.set_model_props(model, request.texts)
    with replacing(request.path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def open_onnx(path: Path) -> Runner:
    """The file as a function: (H, W, 3) uint8 → (C,) probabilities, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(photo: np.ndarray) -> np.ndarray:
        return session.run(None, {"image": photo})[0][0]

    return run


def read_onnx_metadata(path: Path) -> dict[str, str]:
    """The texts in the file. The runtime reads them, which must be loaded anyway to run the file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(session.get_modelmeta().custom_metadata_map)


def write_graph(deployable: "Deployable", path: Path, *, half: bool = False) -> Path:
    """The graph as torch writes it, where it is not there yet. Returns `path`."""
    if path.is_file():
        return path
    import torch

    height = torch.export.Dim("height", min=SMALLEST, max=LARGEST)
    width = torch.export.Dim("width", min=SMALLEST, max=LARGEST)
    torch.onnx.export(
        deployable.half_net() if half else deployable,
        (torch.zeros(240, 320, 3, dtype=torch.uint8),),
        str(path),
        dynamo=True,
        external_data=False,  # one file
        verbose=False,
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_shapes=({0: height, 1: width},),
    )
    return path


def _quantize(plain: Path, path: Path, how: Quantization) -> Path:
    """Static int8 of everything between the first convolution and the softmax; the preprocessing stays as it is."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Photos(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(how.photos)

        def get_next(self) -> dict[str, np.ndarray] | None:
            photo = next(self.rest, None)
            return None if photo is None else {"image": photo}

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(str(plain), str(prepared))
    percentile = {"calibrate_method": CalibrationMethod.Percentile, "extra_options": {"CalibPercentile": 99.999}}
    quantize_static(
        str(prepared),
        str(path),
        Photos(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,  # signed activations are up to four times slower on x86
        # x86 processors without VNNI add pairs of 8-bit products in 16 bits and cut what is too large: with 7-bit
        # weights nothing is, so the file says the same on every processor.
        reduce_range=True,
        nodes_to_exclude=_float_nodes(onnx.load(prepared), how),
        **(percentile if how.percentile else {}),
    )
    return path


def _float_nodes(model: Any, how: Quantization) -> list[str]:
    """Names of the nodes that stay float: preprocessing, softmax, and the layers that are asked for."""
    nodes = list(model.graph.node)  # in topological order
    weighted = [i for i, node in enumerate(nodes) if node.op_type in ("Conv", "Gemm", "MatMul")]
    first, last = weighted[0], weighted[-1]
    asked_for = [i for i in weighted if how.keeps(nodes[i].input[1])]
    return [nodes[i].name for i in (*range(first), *asked_for, *range(last + 1, len(nodes)))]


def _forget_sources(model: Any) -> None:
    """Remove the paths of source files that torch writes into every node."""
    graph = model.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def _shorten(model: Any) -> None:
    """Names of one or two letters, no shapes that a runtime works out itself, and no zero points that are zero.

    In the int8 file of a network with 0.2 million weights those are a fifth of all bytes.
    """
    import onnx

    graph = model.graph
    values = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 3 and not np.any(values.get(node.input[2], 1)):
            del node.input[2]
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    outside = {item.name for item in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {}
    for node in graph.node:
        node.ClearField("name")
        for tensors in (node.input, node.output):
            for i, name in enumerate(tensors):
                if name not in outside:
                    tensors[i] = names.setdefault(name, f"{len(names):x}")
    for item in graph.initializer:
        item.name = names[item.name]


FORMAT = Format(
    name="onnx",
    title="ONNX",
    suffix=".onnx",
    export=export_onnx,
    open=open_onnx,
    read_metadata=read_onnx_metadata,
    extra="export",
    modules=("onnx", "onnxruntime", "onnxscript"),
    packages=("onnxruntime", "onnx", "onnxscript"),
    weight_steps=64,
    any_size=True,
    any_thread=True,
)
