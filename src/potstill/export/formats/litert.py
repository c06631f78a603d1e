"""LiteRT (TensorFlow Lite), for Android, microprocessors and boards. Takes photos of the input size."""

import json
import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from potstill.export.formats.base import ExportRequest, Format, Runner
from potstill.export.int8.quantization import Quantization
from potstill.run.files import replacing

if TYPE_CHECKING:  # it imports torch, which the process that scores a file does not need
    from potstill.deploy.deployable import Deployable

METADATA_FILE = "potstill.json"
"""Texts are appended to the file as a zip, as TensorFlow Lite's own metadata does it: `unzip` lists them."""


def export_litert(request: ExportRequest) -> None:
    """Write one .tflite file: input (S, S, 3) uint8, output (1, C) float32.

    In float16, the weights are 16 bits; the arithmetic is the runtime's choice.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = _write_plain(request.deployable, (request.cache or Path(folder)) / "plain.tflite")
        data = plain.read_bytes()
        if request.precision == "float16":
            data = _half(plain)
        elif request.precision == "int8":
            assert request.quantization is not None
            data = _int8(plain, request.quantization)
    with replacing(request.path) as temporary:
        temporary.write_bytes(data)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr("labels.txt", "\n".join(request.labels) + "\n")
            archive.writestr(METADATA_FILE, json.dumps(request.metadata, ensure_ascii=False))


def open_litert(path: Path) -> Runner:
    """The file as a function: (S, S, 3) uint8 → (C,) probabilities, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    image, output = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(photo: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(image, photo)
        interpreter.invoke()
        return interpreter.get_tensor(output)[0]

    return run


def read_litert_metadata(path: Path) -> dict[str, str]:
    """The texts in the file."""
    with zipfile.ZipFile(path) as archive:
        labels = archive.read("labels.txt").decode().splitlines()
        return {"labels": json.dumps(labels, ensure_ascii=False), **json.loads(archive.read(METADATA_FILE))}


def _write_plain(deployable: "Deployable", path: Path) -> Path:
    """The float32 file as the converter writes it, where it is not there yet. Returns `path`."""
    if not path.is_file():
        import litert_torch
        import torch

        from potstill.deploy.deployable import FixedSize

        photo = torch.zeros(deployable.size, deployable.size, 3, dtype=torch.uint8)
        litert_torch.convert(FixedSize(deployable).eval(), (photo,)).export(str(path))
    return path


def _half(path: Path) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer

    tool = quantizer.Quantizer(str(path))
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        tool.update_quantization_recipe(".*", qtyping.TFLOperationName[name], config, "float_casting")
    return bytes(tool.quantize().quantized_model)


def _int8(path: Path, how: Quantization) -> bytes:
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(path))
    tool.load_quantization_recipe(recipe.static_wi8_ai8())
    for operation, scope in _float_operations(how):
        tool.update_quantization_recipe(scope, operation, algorithm_key="no_quantize")
    ranges = tool.calibrate({"serving_default": [{"args_0": photo} for photo in how.photos]})
    return bytes(tool.quantize(ranges).quantized_model)


def _float_operations(how: Quantization) -> list[tuple[Any, str]]:
    """Operations that stay float, each with a pattern of its scope: input, softmax, and layers that are asked for."""
    from ai_edge_quantizer.qtyping import TFLOperationName as Name

    always = [(name, ".*") for name in (Name.INPUT, Name.OUTPUT, Name.SOFTMAX, Name.TRANSPOSE, Name.SUB, Name.DIV)]
    if not how.float_layers:
        return always
    pattern = scope_pattern(how.float_layers)
    return always + [(name, pattern) for name in (Name.CONV_2D, Name.DEPTHWISE_CONV_2D, Name.FULLY_CONNECTED)]


def scope_pattern(layers: Sequence[str]) -> str:
    """What to search for in a scope, a path of `CLASS_NAME` for each module on the way, to find these layers.

    The tool searches every name, once per operation and photo: with `.*` around it that takes minutes.
    """
    paths = ["".join(f"/[^/;]*_{re.escape(part)}" for part in ("net", *layer.split("."))) for layer in layers]
    return f"(?:{'|'.join(paths)});"


FORMAT = Format(
    name="litert",
    title="LiteRT (TensorFlow Lite)",
    suffix=".tflite",
    export=export_litert,
    open=open_litert,
    read_metadata=read_litert_metadata,
    extra="export-litert",
    modules=("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    packages=("ai-edge-litert", "litert-torch", "ai-edge-quantizer"),
    any_size=False,
)
