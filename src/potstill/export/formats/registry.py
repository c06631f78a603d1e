"""The formats: what each needs, takes and can do. Importing this imports none of their tools."""

import contextlib
import difflib
import importlib
import importlib.util
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement

from potstill.errors import ExportError

PRECISIONS = ("float32", "float16", "int8")

Runner = Callable[[np.ndarray], np.ndarray]
"""A photo as (H, W, 3) or (S, S, 3) uint8 → (C,) probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One format. Its module has `export_NAME`, `open_NAME` and `read_NAME_metadata`."""

    name: str
    title: str
    suffix: str
    extra: str
    """Of Potstill's package: `pip install 'potstill[EXTRA]'`."""
    modules: tuple[str, ...]
    """What must be importable."""
    packages: tuple[str, ...]
    """Whose versions are written down; the first one is the runtime."""
    any_size: bool
    """The file takes photos of any size; otherwise the caller cuts the center square and resizes it (`fit`)."""
    precisions: tuple[str, ...] = PRECISIONS
    weight_steps: int = 127
    """int8: steps of the weights on either side of 0, as its tool rounds them."""
    corrects_biases: bool = False
    """int8: its tool does what `potstill.export.int8.correction` does."""
    module: str = ""
    """Name of the module here, where it differs from the name."""

    @property
    def install(self) -> str:
        """The exact line that installs what is missing."""
        return f"pip install 'potstill[{self.extra}]'" if self.extra else "pip install potstill"

    @property
    def runs_here(self) -> bool:
        """Whether its runtime exists for this machine's system."""
        return self.name != "coreml" or platform.system() == "Darwin"

    @property
    def is_installed(self) -> bool:
        """Whether its tools are here, and are made for the torch that is here."""
        return all(importlib.util.find_spec(name) is not None for name in self.modules) and not self.conflict

    @property
    def conflict(self) -> str:
        """`X 1.0 wants torch<2, 2.6 is installed`; empty where nothing speaks against this torch."""
        for package in self.packages:
            with contextlib.suppress(PackageNotFoundError):
                for line in requires(package) or ():
                    wanted = Requirement(line)
                    if wanted.name != "torch" or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
                        continue
                    if not wanted.specifier.contains(version("torch"), prereleases=True):
                        return f"{package} {version(package)} wants {wanted}, {version('torch')} is installed"
        return ""

    def exporter(self) -> Callable[..., None]:
        """`export_NAME`."""
        return getattr(self._import(), f"export_{self.name}")

    def open(self, path: Path) -> Runner:
        """The file, loaded into its own runtime on one thread."""
        return getattr(self._import(), f"open_{self.name}")(path)

    def read_metadata(self, path: Path) -> dict[str, str]:
        """The texts that travel in the file."""
        return getattr(self._import(), f"read_{self.name}_metadata")(path)

    def _import(self) -> Any:
        return importlib.import_module(f"potstill.export.formats.{self.module or self.name}")


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            name="onnx",
            title="ONNX",
            suffix=".onnx",
            extra="export",
            modules=("onnx", "onnxruntime", "onnxscript"),
            packages=("onnxruntime", "onnx", "onnxscript"),
            weight_steps=64,
            any_size=True,
        ),
        Format(
            name="litert",
            title="LiteRT (TensorFlow Lite)",
            suffix=".tflite",
            extra="export-litert",
            modules=("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
            packages=("ai-edge-litert", "litert-torch", "ai-edge-quantizer"),
            any_size=False,
        ),
        Format(
            name="executorch",
            title="ExecuTorch",
            suffix=".pte",
            extra="export-executorch",
            modules=("executorch", "torchao"),
            packages=("executorch", "torchao"),
            any_size=False,
        ),
        Format(
            name="openvino",
            title="OpenVINO",
            suffix=".xml",
            extra="export-openvino",
            modules=("openvino", "nncf", "onnx", "onnxscript"),
            packages=("openvino", "nncf"),
            weight_steps=63,
            corrects_biases=True,
            any_size=False,
        ),
        Format(
            name="coreml",
            title="Core ML",
            suffix=".mlpackage",
            extra="export-coreml",
            modules=("coremltools",),
            packages=("coremltools",),
            any_size=False,
        ),
        Format(
            name="torch",
            title="torch.export",
            suffix=".pt2",
            extra="",
            modules=("torch",),
            packages=("torch",),
            any_size=True,
            precisions=("float32", "float16"),
            module="torch_export",
        ),
    )
}


def find_formats(names: Sequence[str], *, installed: bool = True) -> list[Format]:
    """The formats of these names.

    Args:
        installed: refuse formats whose tools are missing.
    Raises:
        ExportError: an unknown name, with the nearest valid one, or missing tools, with the line that installs them.
    """
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, 1, 0.4)
            guess = f" Did you mean {near[0]}?" if near else ""
            raise ExportError(f"There is no format {name!r}.{guess} There are: {', '.join([*FORMATS, 'web'])}.")
    formats = [FORMATS[name] for name in dict.fromkeys(names)]
    missing = [f for f in formats if not f.is_installed] if installed else []
    if missing:
        clashes = [f"{f.title}: {f.conflict}." for f in missing if f.conflict]
        if clashes:
            raise ExportError(
                "\n  ".join(clashes) + "\n  Add --isolated: Potstill keeps them in an environment of their own."
            )
        extras = ",".join(f.extra for f in missing)
        raise ExportError(
            f"The tools for {', '.join(f.title for f in missing)} are not installed. Install them:\n"
            f"    pip install 'potstill[{extras}]'\n"
            "  or add --isolated, and Potstill keeps them in an environment of their own."
        )
    return formats


def format_of(path: Path) -> Format:
    """The format of a file, by its suffix. Raises ExportError."""
    for candidate in FORMATS.values():
        if path.suffix == candidate.suffix:
            return candidate
    raise ExportError(f"{path} is none of {', '.join('*' + f.suffix for f in FORMATS.values())}.")
