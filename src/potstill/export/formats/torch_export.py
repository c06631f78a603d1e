"""torch.export, for PyTorch without Potstill, timm, or the source of the model. Takes photos of any size."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from potstill.deploy.deployable import Deployable
from potstill.export.formats.onnx import LARGEST, SMALLEST
from potstill.export.int8.quantization import Quantization
from potstill.run.files import replacing

METADATA = "potstill.json"


def export_torch(
    deployable: Deployable,
    path: Path,
    *,
    labels: Sequence[str],
    metadata: dict[str, str],
    precision: str = "float32",
    quantization: Quantization | None = None,
    cache: Path | None = None,
) -> None:
    """Write one .pt2 file: input (H, W, 3) uint8, output (1, C) float32. Arguments as of `export_onnx`."""
    import torch

    assert precision != "int8"
    height = torch.export.Dim("height", min=SMALLEST, max=LARGEST)
    width = torch.export.Dim("width", min=SMALLEST, max=LARGEST)
    # The example is kept in the file, so it is as small as it may be.
    photo = torch.zeros(SMALLEST + 1, SMALLEST + 2, 3, dtype=torch.uint8)
    module = deployable.half_net() if precision == "float16" else deployable
    program = torch.export.export(module, (photo,), dynamic_shapes=({0: height, 1: width},))
    texts = {"labels": json.dumps(list(labels), ensure_ascii=False), **metadata}
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of source files
    with replacing(path) as temporary, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        named = Path(folder) / path.name  # torch insists on the suffix, and keeps the name inside
        torch.export.save(program, named, extra_files={METADATA: json.dumps(texts, ensure_ascii=False)})
        named.replace(temporary)


def open_torch(path: Path) -> Callable[[np.ndarray], np.ndarray]:
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
