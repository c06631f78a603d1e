"""What a format is: its name, what it needs, and the three functions of its module. Imports none of the tools."""

import contextlib
import importlib.util
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from packaging.requirements import Requirement

if TYPE_CHECKING:  # it imports torch, which the process that scores a file does not need
    from potstill.deploy.deployable import Deployable
    from potstill.export.int8.quantization import Quantization

PRECISIONS = ("float32", "float16", "int8")

Runner = Callable[[np.ndarray], np.ndarray]
"""A photo as (H, W, 3) or (S, S, 3) uint8 → (C,) probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """One file to write."""

    deployable: "Deployable"
    path: Path
    labels: Sequence[str]
    """Class names, in the order of the output."""
    metadata: dict[str, str]
    """Further texts to keep in the file."""
    precision: str = "float32"
    quantization: "Quantization | None" = None
    """For int8."""
    cache: Path | None = None
    """A folder for what several files of the same student have in common; must belong to that student."""

    @property
    def texts(self) -> dict[str, str]:
        """The metadata, with the labels as a JSON list under `labels`."""
        return {"labels": json.dumps(list(self.labels), ensure_ascii=False), **self.metadata}


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One format."""

    name: str
    title: str
    suffix: str
    export: Callable[[ExportRequest], None]
    """Write the file. What it raises becomes an ExportError."""
    open: Callable[[Path], Runner]
    """Load the file into the format's own runtime, on one thread."""
    read_metadata: Callable[[Path], dict[str, str]]
    """`ExportRequest.texts`, read back from the file."""
    extra: str = ""
    """Of Potstill's package: `pip install 'potstill[EXTRA]'`."""
    modules: tuple[str, ...]
    """What must be importable."""
    packages: tuple[str, ...]
    """Whose versions are written down; the first one is the runtime."""
    any_size: bool
    """The file takes photos of any size; otherwise the caller cuts the center square and resizes it (`fit`)."""
    any_thread: bool = False
    """Whether an opened file may be run by several threads at once."""
    precisions: tuple[str, ...] = PRECISIONS
    companion: str = ""
    """Suffix of a second file that belongs to the first."""
    weight_steps: int = 127
    """int8: steps of the weights on either side of 0, as its tool rounds them."""
    corrects_biases: bool = False
    """int8: its tool does what `potstill.export.int8.correction` does."""
    apple_only: bool = False
    """Its runtime exists for Apple machines only."""
    in_process: bool = False
    """Score in this process: for a format defined in a script or notebook, which a child process cannot import."""

    @property
    def install(self) -> str:
        """The exact line that installs what is missing."""
        return f"pip install 'potstill[{self.extra}]'" if self.extra else "pip install potstill"

    @property
    def runs_here(self) -> bool:
        """Whether its runtime exists for this machine's system."""
        return not self.apple_only or platform.system() == "Darwin"

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

    def file_name(self, precision: str) -> str:
        """`student.onnx`, `student-int8.onnx`."""
        return f"student{'' if precision == 'float32' else f'-{precision}'}{self.suffix}"
