"""ExecuTorch, for phones and embedded devices that run PyTorch's own runtime. Takes photos of the input size."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from potstill.export.formats.base import ExportRequest, Format, Runner
from potstill.export.int8.quantization import Quantization
from potstill.run.files import replacing

METADATA = "potstill"
"""The file's second method: it takes nothing and returns the texts, as JSON in bytes."""


def export_executorch(request: ExportRequest) -> None:
    """Write one .pte file for the XNNPACK backend: input (S, S, 3) uint8, output (1, C) float32."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from potstill.deploy.deployable import FixedSize

    deployable = request.deployable
    photo = torch.zeros(deployable.size, deployable.size, 3, dtype=torch.uint8)
    module = FixedSize(deployable.half_net() if request.precision == "float16" else deployable).eval()
    program = torch.export.export(module, (photo,))
    if request.precision == "int8":
        assert request.quantization is not None
        program = torch.export.export(_int8(program, request.quantization), (photo,))
    encoded = torch.frombuffer(bytearray(json.dumps(request.texts, ensure_ascii=False).encode()), dtype=torch.uint8)
    lowered = to_edge_transform_and_lower(
        program, partitioner=[XnnpackPartitioner()], constant_methods={METADATA: encoded}
    ).to_executorch()
    with replacing(request.path) as temporary, temporary.open("wb") as file:
        lowered.write_to_file(file)


def open_executorch(path: Path) -> Runner:
    """The file as a function: (S, S, 3) uint8 → (C,) probabilities, on one thread."""
    import torch
    from executorch.runtime import Runtime

    torch.set_num_threads(1)
    method = Runtime.get().load_program(path).load_method("forward")
    assert method is not None

    def run(photo: np.ndarray) -> np.ndarray:
        return method.execute([torch.from_numpy(photo)])[0][0].numpy()

    return run


def read_executorch_metadata(path: Path) -> dict[str, str]:
    """The texts in the file."""
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method(METADATA)
    assert method is not None
    return dict(json.loads(bytes(method.execute([])[0].numpy())))


def _int8(program: Any, how: Quantization) -> Any:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    module = program.module()
    if how.float_layers:
        weighted = [n for n in module.graph.nodes if getattr(n.target, "overloadpacket", None) in _weighted()]
        kept = {node.name for node in weighted if how.keeps(str(node.args[1].target))}
        quantizer.set_filter_function(lambda node: node.name not in kept)
    prepared = prepare_pt2e(module, quantizer)
    with torch.no_grad():
        for photo in how.photos:
            prepared(torch.from_numpy(photo))
    return convert_pt2e(prepared)


def _weighted() -> tuple[Any, ...]:
    """The operations that have weights."""
    import torch

    aten = torch.ops.aten
    return aten.conv2d, aten.convolution, aten.linear


FORMAT = Format(
    name="executorch",
    title="ExecuTorch",
    suffix=".pte",
    export=export_executorch,
    open=open_executorch,
    read_metadata=read_executorch_metadata,
    extra="export-executorch",
    modules=("executorch", "torchao"),
    packages=("executorch", "torchao"),
    any_size=False,
)
