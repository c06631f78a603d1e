"""torch.export, for PyTorch without Potstill, timm, or the source of the model. Takes photos of any size."""

import json
import tempfile
from pathlib import Path

import numpy as np

from potstill.export.formats.base import ExportRequest, Format, Runner
from potstill.export.formats.onnx import LARGEST, SMALLEST
from potstill.run.files import replacing

METADATA = "potstill.json"


def export_torch(request: ExportRequest) -> None:
    """Write one .pt2 file: input (H, W, 3) uint8, output (1, C) float32."""
    import torch

    assert request.precision != "int8"
    height = torch.export.Dim("height", min=SMALLEST, max=LARGEST)
    width = torch.export.Dim("width", min=SMALLEST, max=LARGEST)
    # The example is kept in the file, so it is as small as it may be.
    photo = torch.zeros(SMALLEST + 1, SMALLEST + 2, 3, dtype=torch.uint8)
    module = request.deployable.half_net() if request.precision == "float16" else request.deployable
    program = torch.export.export(module, (photo,), dynamic_shapes=({0: height, 1: width},))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of source files
    with replacing(request.path) as temporary, tempfile.TemporaryDirectory(dir=request.path.parent) as folder:
        named = Path(folder) / request.path.name  # torch insists on the suffix, and keeps the name inside
        torch.export.save(program, named, extra_files={METADATA: json.dumps(request.texts, ensure_ascii=False)})
        named.replace(temporary)


def open_torch(path: Path) -> Runner:
    """The file as a function: (H, W, 3) uint8 → (C,) probabilities, on one thread."""
    import torch

    torch.set_num_threads(1)
    # The guards say that the photo is upright or wide like the example. The graph holds for both, as scoring shows.
    module = torch.export.load(path).module(check_guards=False)

    def run(photo: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(photo))[0].numpy()

    return run


def read_torch_metadata(path: Path) -> dict[str, str]:
    """The texts in the file."""
    import torch

    extra = {METADATA: ""}
    torch.export.load(path, extra_files=extra)
    return dict(json.loads(extra[METADATA]))


FORMAT = Format(
    name="torch",
    title="torch.export",
    suffix=".pt2",
    export=export_torch,
    open=open_torch,
    read_metadata=read_torch_metadata,
    modules=("torch",),
    packages=("torch",),
    any_size=True,
    precisions=("float32", "float16"),
)
