"""One conversion, of a stored student to one file: in this process, or by the Python of another environment."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from potstill.errors import ExportError
from potstill.export.formats.base import ExportRequest
from potstill.export.formats.registry import format_named
from potstill.export.int8.quantization import Quantization
from potstill.processes import child
from potstill.run.files import read_json, write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What to convert, into what, and where to."""

    student: str
    """Folder with model.json and model.safetensors."""
    format: str
    module: str
    """That registers the format."""
    precision: str
    path: str
    metadata: dict[str, str]
    calibration: str = ""
    """For int8: an .npy file, see `Quantization.photos`."""
    percentile: bool = False
    float_layers: tuple[str, ...] = ()
    cache: str
    """Folder for what several files of this student have in common."""


def convert(conversion: Conversion, python: str | None = None) -> None:
    """Write the file.

    Args:
        python: the interpreter of another environment; None converts in this process.
    Raises:
        ExportError: the tool fails; the message is the tool's own.
    """
    if python is None:
        _convert_here(conversion)
        return
    job = Path(conversion.path).with_name("conversion.json")
    write_json(job, asdict(conversion))
    try:
        child.run("potstill.export.convert", job, python=python)
    except child.ChildCrashError as error:
        raise ExportError(f"The conversion failed:\n{error}") from None
    finally:
        job.unlink()


def work(job: Path) -> None:
    """Convert in a child process."""
    _convert_here(Conversion(**read_json(job)))


def _convert_here(conversion: Conversion) -> None:
    format = format_named(conversion.format, conversion.module)
    request = _request(conversion)
    try:
        with _quiet():
            format.export(request)
    except ExportError:
        raise
    except Exception as error:  # whatever a tool raises, it is the tool that failed
        text = str(error).strip().splitlines() or [""]
        raise ExportError(f"{format.title} could not convert it: {type(error).__name__}: {text[0][:300]}") from error


def _request(conversion: Conversion) -> ExportRequest:
    from potstill.deploy.deployable import Deployable
    from potstill.models.classifier import load

    model = load(Path(conversion.student))
    quantization = None
    if conversion.precision == "int8":
        photos = np.load(conversion.calibration, allow_pickle=False)
        layers = tuple(conversion.float_layers)
        quantization = Quantization(photos=photos, percentile=conversion.percentile, float_layers=layers)
    return ExportRequest(
        deployable=Deployable(model, temperature=model.info.trained.temperature).eval(),
        path=Path(conversion.path),
        labels=model.info.classes,
        metadata=conversion.metadata,
        precision=conversion.precision,
        quantization=quantization,
        cache=Path(conversion.cache),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The tools warn and print about themselves; nothing of it is for the user of Potstill."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
