"""One conversion, of a stored student to one file: in this process, or by the Python of another environment."""

import contextlib
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from potstill.errors import ExportError
from potstill.export.formats.registry import FORMATS
from potstill.export.int8.quantization import Quantization
from potstill.run.files import read_json, write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What to convert, into what, and where to."""

    student: str
    """Folder with model.json and model.safetensors."""
    format: str
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
    if python is not None:
        _convert_elsewhere(conversion, python)
        return
    from potstill.deploy.deployable import Deployable
    from potstill.models.classifier import load

    model = load(Path(conversion.student))
    quantization = None
    if conversion.precision == "int8":
        photos = np.load(conversion.calibration, allow_pickle=False)
        layers = tuple(conversion.float_layers)
        quantization = Quantization(photos=photos, percentile=conversion.percentile, float_layers=layers)
    try:
        with _quiet():
            FORMATS[conversion.format].exporter()(
                Deployable(model, temperature=float(model.info.trained.get("temperature", 1.0))).eval(),
                Path(conversion.path),
                labels=model.info.classes,
                metadata=conversion.metadata,
                precision=conversion.precision,
                quantization=quantization,
                cache=Path(conversion.cache),
            )
    except ExportError:
        raise
    except Exception as error:  # whatever a tool raises, it is the tool that failed
        text = str(error).strip().splitlines() or [""]
        raise ExportError(
            f"{FORMATS[conversion.format].title} could not convert it: {type(error).__name__}: {text[0][:300]}"
        ) from error


def _convert_elsewhere(conversion: Conversion, python: str) -> None:
    job = Path(conversion.path).with_name("conversion.json")
    write_json(job, asdict(conversion))
    done = subprocess.run(
        [python, "-m", "potstill.export.convert", str(job)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    job.unlink()
    if done.returncode != 0:
        told = next((line for line in done.stdout.splitlines() if line.startswith("POTSTILL ")), None)
        raise ExportError(json.loads(told[9:]) if told else f"The conversion failed:\n{done.stderr[-1500:]}")


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


def main(job: str) -> None:
    """Convert in this process, for `_convert_elsewhere`."""
    try:
        convert(Conversion(**read_json(Path(job))))
    except ExportError as error:
        print("POTSTILL " + json.dumps(str(error)))
        sys.exit(2)


if __name__ == "__main__":
    main(*sys.argv[1:])
