"""Image classifiers in ONNX files, from anywhere: what they take and give, checked before anything is run, and running
them by ONNX Runtime.

A file has one input of photos, one output of classes, and all its weights inside: nothing else is read from the disk.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.errors import ModelError
from potstill.wording import counted

MAX_BYTES = 2**31 - 1
"""Of an ONNX file with its weights inside: what protobuf allows."""

PACKAGES = "pip install 'potstill[export]'"

_LABEL_KEYS = ("labels", "classes", "class_names", "names")
"""Names that exporters give to the metadata with the names of the classes."""

_FLOATS = {1: np.float32, 10: np.float16}
_UINT8 = 2
"""Of onnx.TensorProto.DataType."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What an ONNX classifier takes and gives."""

    layout: str
    """"NCHW" or "NHWC"; "HWC": one photo."""
    dtype: str
    """Of the input: "float32", "float16" or "uint8", which means gray levels 0 to 255."""
    size: int | None
    """Side of the input in pixels; None where the file takes any."""
    batch: int | None
    """Photos in one call; None where the file takes any number."""
    outputs: int | None
    """K; None where the file does not tell."""

    @property
    def takes_gray_levels(self) -> bool:
        """Whether the file normalizes the pixels itself."""
        return self.dtype == "uint8"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """An ONNX file that was read and checked."""

    data: bytes
    signature: Signature
    texts: Mapping[str, str]
    """Its metadata."""
    parameters: int

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its classes, where the metadata has them."""
        return _labels(self.texts)


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX classifier and check what it takes and gives. Nothing in it is run.

    Raises:
        ModelError: there is no such file, ONNX is not installed, it is too large or damaged, it has weights in other
            files, or its inputs and outputs are not those of an image classifier.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError:
        raise ModelError(f"{path} needs onnx and onnxruntime: {PACKAGES}") from None
    if not path.is_file():
        raise ModelError(f"There is no ONNX file {path}.")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ModelError(f"{path} has {size:,} bytes; an ONNX file can have {MAX_BYTES:,}.")
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own errors have no base but this one
        raise ModelError(f"{path} is not an ONNX file: {error}.") from None
    if not model.graph.node:
        raise ModelError(f"{path} is not an ONNX file: it holds no operations.")
    if name := next((t.name for t in _tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL), None):
        raise ModelError(
            f"{path} keeps weights ({name}) in another file, which is not read. Save it as one file:\n"
            "  python -c \"import onnx; onnx.save_model(onnx.load('MODEL.onnx'), 'WHOLE.onnx')\""
        )
    signature = _signature(model.graph, path)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    # Numbers of 64 bits are shapes and axes.
    weights = [tensor for tensor in model.graph.initializer if tensor.data_type != onnx.TensorProto.INT64]
    parameters = sum(int(np.prod(tensor.dims)) for tensor in weights)
    return OnnxFile(data, signature, texts, parameters)


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor that a file holds, wherever it may stand."""
    yield from _tensors_of(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _tensors_in(node)


def _tensors_of(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_in(node)


def _tensors_in(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            if graph.node or graph.initializer or graph.sparse_initializer:
                yield from _tensors_of(graph)


def _signature(graph: Any, path: Path) -> Signature:
    """Of a graph. Raises ModelError for one that is not that of an image classifier."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    for what, values in (("input", inputs), ("output", graph.output)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise ModelError(f"{path} has {counted(len(values), what)} ({names}); a classifier has one {what}.")
    (image,), (scores,) = inputs, graph.output
    kind, shape = _type_of(image)
    wanted = "photos as (N, 3, H, W) or (N, H, W, 3), or one photo as (H, W, 3)"
    if kind not in (*_FLOATS, _UINT8):
        raise ModelError(f"{path}: the input {image.name} is not of floats or uint8; it must be {wanted}.")
    dtype = "uint8" if kind == _UINT8 else np.dtype(_FLOATS[kind]).name
    layout = _layout(shape)
    if layout is None:
        raise ModelError(f"{path}: the input {image.name} has the shape {_shown(shape)}; it must be {wanted}.")
    height, width = (shape[layout.index(axis)] for axis in "HW")
    if height != width and height and width:
        raise ModelError(f"{path} takes photos of {width} x {height} pixels; only square ones can be given.")
    output_kind, output_shape = _type_of(scores)
    if output_kind not in _FLOATS:
        raise ModelError(f"{path}: the output {scores.name} is not of floats; it must be one number for each class.")
    if len(output_shape) != 2:
        raise ModelError(
            f"{path}: the output {scores.name} has the shape {_shown(output_shape)}; it must be (N, classes)."
        )
    batch = shape[0] if layout != "HWC" else 1
    return Signature(layout=layout, dtype=dtype, size=height or width, batch=batch, outputs=output_shape[1])


def _type_of(value: Any) -> tuple[int, tuple[int | None, ...]]:
    """Element type and shape; None for sizes that are open, no sizes for no shape."""
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(
        int(axis.dim_value) if axis.HasField("dim_value") and axis.dim_value > 0 else None for axis in tensor.shape.dim
    )


def _layout(shape: Sequence[int | None]) -> str | None:
    """Where the three colors are."""
    if len(shape) == 3 and shape[2] == 3:
        return "HWC"
    if len(shape) == 4 and shape[1] == 3:
        return "NCHW"
    return "NHWC" if len(shape) == 4 and shape[3] == 3 else None


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join('?' if side is None else str(side) for side in shape)})"


def _labels(texts: Mapping[str, str]) -> tuple[str, ...]:
    """Class names in the metadata: a list, or a mapping from numbers, in JSON or as Python writes it."""
    text = next((texts[key] for key in _LABEL_KEYS if key in texts), "")
    for parse in (json.loads, ast.literal_eval):
        try:
            values = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(values, dict):
            try:
                values = [values[key] for key in sorted(values, key=int)]
            except (TypeError, ValueError):
                return ()
        if isinstance(values, list | tuple) and all(isinstance(value, str) for value in values):
            return tuple(values)
    return ()


class OnnxSession:
    """An ONNX file, ready to run. It is loaded at the first call, for as many threads as torch has then."""

    def __init__(self, data: bytes, signature: Signature, name: str) -> None:
        """`name` is what messages call the file."""
        self.signature, self.name = signature, name
        self._data: bytes | None = data
        self._session: Any = None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(B, 3, S, S) normalized pixels, or gray levels where the file takes these → (B, K) float32.

        Raises:
            ModelError: ONNX Runtime refuses the file or these pixels, or gives another number of rows.
        """
        signature = self.signature
        values = np.round(pixels).clip(0, 255) if signature.takes_gray_levels else pixels
        values = values.astype(signature.dtype)
        if signature.layout != "NCHW":
            values = values.transpose(0, 2, 3, 1)
        at_once = signature.batch or len(values)
        return np.concatenate([self._run(values[i : i + at_once]) for i in range(0, len(values), at_once)])

    def _run(self, values: np.ndarray) -> np.ndarray:
        """(n, K) of as many photos as one call takes, or of fewer."""
        count, batch = len(values), self.signature.batch
        if batch and count < batch:
            values = np.concatenate([values, np.zeros((batch - count, *values.shape[1:]), values.dtype)])
        if self.signature.layout == "HWC":
            values = values[0]
        session = self._opened()
        try:
            (found,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(values)})
        except Exception as error:  # ONNX Runtime's errors have no base but this one
            raise ModelError(f"{self.name} cannot be run on photos: {_first_line(error)}") from None
        if found.ndim != 2 or len(found) < count:
            raise ModelError(f"{self.name} gives outputs of the shape {found.shape} for {counted(count, 'photo')}.")
        return found[:count].astype(np.float32)

    def _opened(self) -> Any:
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
            options.log_severity_level = 3
            # Spinning threads would take the processor from whoever renders the next photos.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                self._session = onnxruntime.InferenceSession(self._data, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # as above
                raise ModelError(
                    f"{self.name} cannot be loaded by ONNX Runtime, without libraries of custom operations: "
                    f"{_first_line(error)}"
                ) from None
            self._data = None
        return self._session


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]


def num_macs(data: bytes, size: int) -> int:
    """Multiply-accumulates of an ONNX file's convolutions and matrix products for one photo of this side; those whose
    shapes cannot be inferred do not count."""
    import onnx

    model = onnx.load_model_from_string(data)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    image = next(value for value in model.graph.input if value.name not in weights)
    axes = image.type.tensor_type.shape.dim
    if len(axes) == 4:
        axes[0].dim_value = 1
    for axis in axes:
        if not (axis.HasField("dim_value") and axis.dim_value > 0):
            axis.dim_value = size
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: _type_of(v)[1] for v in (*inferred.value_info, *inferred.output, *inferred.input)}
    shapes |= weights
    return sum(_macs(node, shapes) for node in inferred.node)


def _macs(node: Any, shapes: dict[str, tuple[int | None, ...]]) -> int:
    output = [side or 1 for side in shapes.get(node.output[0], ())]
    if node.op_type == "Conv" and (kernel := shapes.get(node.input[1])):
        return int(np.prod(output) * np.prod([side or 1 for side in kernel[1:]]))
    if node.op_type in ("MatMul", "Gemm") and (left := shapes.get(node.input[0])):
        swapped = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
        return int(np.prod(output) * ((left[0] if swapped else left[-1]) or 1))
    return 0
