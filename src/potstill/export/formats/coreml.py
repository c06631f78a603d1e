"""Core ML, for iPhones, iPads and Macs. Takes images of the input size. It runs on Apple machines only."""

import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import ExportError
from potstill.export.formats.base import ExportRequest, Format, Runner


def export_coreml(request: ExportRequest) -> None:
    """Write an .mlpackage folder: a classifier with an RGB image input of the input size.

    In int8, only the weights are 8 bits: the tool calibrates activations by running Core ML, on Apple machines.
    """
    import coremltools as ct
    import torch

    class Image(torch.nn.Module):
        """Core ML hands an image over as (1, 3, S, S) floats in 0…255."""

        def __init__(self) -> None:
            super().__init__()
            self.deployable = request.deployable

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.deployable.probabilities(image)

    size = request.deployable.size
    program = torch.export.export(Image().eval(), (torch.zeros(1, 3, size, size),)).run_decompositions({})
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT32 if request.precision == "float32" else ct.precision.FLOAT16,
        inputs=[ct.ImageType(name="image", shape=(1, 3, size, size), color_layout=ct.colorlayout.RGB)],
        classifier_config=ct.ClassifierConfig(list(request.labels)),
        skip_model_load=True,
    )
    if request.precision == "int8":
        from coremltools.optimize.coreml import OpLinearQuantizerConfig, OptimizationConfig, linear_quantize_weights

        config = OptimizationConfig(global_config=OpLinearQuantizerConfig(mode="linear_symmetric"))
        model = linear_quantize_weights(model, config)
    model.user_defined_metadata.update(request.texts)
    model.license = request.metadata.get("license", "")
    request.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=request.path.parent, prefix=".part-") as folder:
        package = Path(folder) / request.path.name
        model.save(str(package))
        check_coreml(package, size, request.labels)
        package.replace(request.path)


def open_coreml(path: Path) -> Runner:
    """The file as a function: (S, S, 3) uint8 → (C,) probabilities. Raises ExportError on other than Apple machines."""
    if platform.system() != "Darwin":
        raise ExportError("Core ML runs on Apple machines only.")
    import coremltools as ct
    from PIL import Image

    model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)
    labels = json.loads(model.user_defined_metadata["labels"])

    def run(photo: np.ndarray) -> np.ndarray:
        outputs: dict[str, Any] = model.predict({"image": Image.fromarray(photo)})
        by_label = next(value for value in outputs.values() if isinstance(value, dict))
        return np.array([by_label[label] for label in labels], np.float32)

    return run


def check_coreml(path: Path, size: int, labels: Sequence[str]) -> None:
    """Raise ExportError unless the package is a classifier of these labels with an RGB image input of this size."""
    import coremltools as ct

    spec = ct.utils.load_spec(str(path))
    image = spec.description.input[0].type.imageType
    found = _class_labels(spec)
    if (image.width, image.height) != (size, size):
        raise ExportError(f"{path} takes {image.width} × {image.height} images, not {size} × {size}.")
    if found != list(labels):
        raise ExportError(f"{path} has the classes {found}, not {list(labels)}.")


def read_coreml_metadata(path: Path) -> dict[str, str]:
    """The texts in the file."""
    import coremltools as ct

    return dict(ct.utils.load_spec(str(path)).description.metadata.userDefined)


def _class_labels(spec: Any) -> list[str]:
    """The labels of the `classify` operation at the end of the program."""
    block = next(iter(next(iter(spec.mlProgram.functions.values())).block_specializations.values()))
    for operation in reversed(block.operations):
        if operation.type == "classify":
            values = operation.inputs["classes"].arguments[0].value.immediateValue.list.values
            return [value.immediateValue.tensor.strings.values[0] for value in values]
    return []


FORMAT = Format(
    name="coreml",
    title="Core ML",
    suffix=".mlpackage",
    export=export_coreml,
    open=open_coreml,
    read_metadata=read_coreml_metadata,
    extra="export-coreml",
    modules=("coremltools",),
    packages=("coremltools",),
    any_size=False,
    apple_only=True,
)
