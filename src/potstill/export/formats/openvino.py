"""OpenVINO, for Intel processors. Takes photos of the input size. Two files: NAME.xml and NAME.bin.

Its CPU runtime accepts an antialiased resize in the graph and silently skips the antialiasing: with photos of any size,
the predicted class of 2 % of our test photos changed. So the caller resizes.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from potstill.export.formats.base import ExportRequest, Format, Runner
from potstill.export.int8.quantization import Quantization

if TYPE_CHECKING:  # it imports torch, which the process that scores a file does not need
    from potstill.deploy.deployable import Deployable

METADATA = ["potstill", "texts"]
"""Where in the .xml the texts are, as one JSON value."""


def export_openvino(request: ExportRequest) -> None:
    """Write `path` (.xml) and the weights beside it (.bin): input (S, S, 3) uint8, output (1, C) float32.

    In float16, the weights are stored in 16 bits; the arithmetic is the runtime's choice.
    """
    import openvino as ov

    with tempfile.TemporaryDirectory() as folder:
        graph = _write_graph(request.deployable, (request.cache or Path(folder)) / "fixed.onnx")
        model = ov.convert_model(graph)
        if request.precision == "int8":
            assert request.quantization is not None
            model = _int8(model, graph, request.quantization)
    model.set_rt_info(json.dumps(request.texts), METADATA)
    request.path.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, request.path, compress_to_fp16=request.precision == "float16")


def open_openvino(path: Path) -> Runner:
    """The file as a function: (S, S, 3) uint8 → (C,) probabilities, on one thread, in float32 where not int8.

    Without the hint OpenVINO computes in bfloat16 on processors that have it, and differs visibly.
    """
    import openvino as ov

    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(path, "CPU", settings)

    def run(photo: np.ndarray) -> np.ndarray:
        return compiled(photo)[0][0]

    return run


def read_openvino_metadata(path: Path) -> dict[str, str]:
    """The texts in the file."""
    import openvino as ov

    return dict(json.loads(ov.Core().read_model(path).get_rt_info(METADATA).astype(str)))


def _write_graph(deployable: "Deployable", path: Path) -> Path:
    """The ONNX graph that OpenVINO reads, where it is not there yet. Returns `path`."""
    if not path.is_file():
        import torch

        from potstill.deploy.deployable import FixedSize

        photo = torch.zeros(deployable.size, deployable.size, 3, dtype=torch.uint8)
        torch.onnx.export(
            FixedSize(deployable).eval(), (photo,), str(path), dynamo=True, external_data=False, verbose=False
        )
    return path


def _int8(model: Any, graph: Path, how: Quantization) -> Any:
    import nncf
    import onnx

    weighted = [op for op in model.get_ordered_ops() if op.get_type_name() in ("Convolution", "GroupConvolution")]
    operations = [op.get_friendly_name() for op in model.get_ordered_ops()]
    before = operations[: operations.index(weighted[0].get_friendly_name())]
    kept = {node.name for node in onnx.load(graph).graph.node if len(node.input) > 1 and how.keeps(node.input[1])}
    # OpenVINO names an operation after the node that it read, and says where it took the bias off.
    floats = nncf.IgnoredScope(names=[*before, *(n for n in operations if n.removesuffix("/WithoutBiases") in kept)])
    # 7-bit weights everywhere, as in ONNX files: right on processors without VNNI, too.
    narrow = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    photos = nncf.Dataset(list(how.photos))
    return nncf.quantize(model, photos, subset_size=len(how.photos), ignored_scope=floats, advanced_parameters=narrow)


FORMAT = Format(
    name="openvino",
    title="OpenVINO",
    suffix=".xml",
    companion=".bin",
    export=export_openvino,
    open=open_openvino,
    read_metadata=read_openvino_metadata,
    extra="export-openvino",
    modules=("openvino", "nncf", "onnx", "onnxscript"),
    packages=("openvino", "nncf"),
    weight_steps=63,
    corrects_biases=True,
    any_size=False,
)
