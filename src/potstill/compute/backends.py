"""Inference at the highest speed of this machine with the same outputs: in torch, or in another backend.

A backend is used where its packages are installed, it is faster by timing, and there are enough views that converting
the model pays; its features are compared with the model's first. Otherwise torch runs the folded model, in float32 or
bfloat16 (`potstill.compute.fold_batchnorm`). A new backend is one module with a `Backend`, and its entry in `BACKENDS`.
"""

from dataclasses import replace
from pathlib import Path

import torch

from potstill.compute import onnx_backbone
from potstill.compute.backend import Backend
from potstill.compute.fold_batchnorm import fold
from potstill.compute.inference import BATCH, leaves_cores_free
from potstill.compute.machine import Machine
from potstill.compute.measured import Measured
from potstill.compute.precision import Precision
from potstill.compute.selection import MIN_SPEEDUP, fastest_precision
from potstill.compute.timing import photos_per_second
from potstill.config.schema import MachineConfig
from potstill.errors import ConfigError, did_you_mean
from potstill.models.classifier import Classifier
from potstill.models.onnx_classifier import OnnxClassifier

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (onnx_backbone.BACKEND,)}
"""By name, beside torch itself."""

MIN_SECONDS = 20.0
"""Shorter work does not pay for converting a model, which takes some ten seconds, nor for timing batches."""

BATCHES = (BATCH // 2, BATCH, 2 * BATCH)
"""Batch sizes that are tried."""

LARGE_BATCHES = (BATCH, 2 * BATCH, 4 * BATCH, 8 * BATCH)
"""Those that are tried on GPUs, which small batches do not fill."""


def check_runtime(config: MachineConfig, device: str) -> None:
    """Raise ConfigError for a `machine.runtime` that is unknown, not installed, or cannot be used on this device."""
    if config.runtime in ("auto", "torch"):
        return
    names = ["auto", "torch", *BACKENDS]
    if config.runtime not in BACKENDS:
        guess = did_you_mean(config.runtime, names)
        raise ConfigError(f"machine.runtime = {config.runtime!r} is none of {', '.join(names)}.{guess}")
    backend = BACKENDS[config.runtime]
    if device not in backend.devices or config.precision == "bfloat16":
        raise ConfigError(
            f'machine.runtime = "{backend.name}" runs on {", ".join(backend.devices)} and in float32 only. '
            'Leave it at "auto".'
        )
    if not backend.is_installed:
        raise ConfigError(f'machine.runtime = "{backend.name}" needs: {backend.install}')


def measure_inference(model: Classifier, folder: Path, machine: Machine, *, num_views: int) -> Measured:
    """The fastest arithmetic, runtime and batch for this model, by timing once; stored in its folder.

    Args:
        num_views: that the teacher's stage will process; labeling takes more.
    """
    known = Measured.read(folder)
    if known is not None:
        return known
    device = torch.device(machine.device)
    folded = fold(model, Precision(device))
    precision, speeds = fastest_precision(folded, model.info.size, machine, training=False)
    measured = Measured(dtype=precision.name, photos_per_second=speeds, batch=BATCH)
    long = num_views / measured.speed >= MIN_SECONDS
    for backend in _candidates(machine, long=long):
        measured = _with_backend(backend, model, folder, machine, measured)
    measured = _with_batch(model, folder, machine, measured, long=long)
    measured.write(folder)
    return measured


def _candidates(machine: Machine, *, long: bool) -> list[Backend]:
    """The backends to try: the requested one, or all that could be faster."""
    wanted = machine.requested
    if wanted.runtime in BACKENDS:
        return [BACKENDS[wanted.runtime]]
    if wanted.runtime != "auto" or wanted.precision == "bfloat16" or not long:
        return []
    return [backend for backend in BACKENDS.values() if machine.device in backend.devices and backend.is_installed]


def _with_backend(backend: Backend, model: Classifier, folder: Path, machine: Machine, measured: Measured) -> Measured:
    """In this backend where it gives the same features, and is faster or was requested."""
    converted = backend.convert(model, folder, machine.cores)
    if converted is None:
        return measured
    plain = Precision.on(machine.device)
    speed, _ = photos_per_second(converted, model.info.size, plain, training=False)
    speeds = {**measured.photos_per_second, backend.name: round(speed, 1)}
    if machine.requested.runtime == backend.name or speed > measured.speed:
        return replace(measured, dtype="float32", runtime=backend.name, photos_per_second=speeds)
    return replace(measured, photos_per_second=speeds)


def _with_batch(model: Classifier, folder: Path, machine: Machine, measured: Measured, *, long: bool) -> Measured:
    """With the requested batch, or the fastest of those that are tried."""
    if machine.requested.label_batch != "auto" or not long:
        batch = BATCH if machine.requested.label_batch == "auto" else machine.requested.label_batch
        return replace(measured, batch=batch)
    precision = measured.precision(machine.device)
    chosen = inference_model(model, precision, folder, threads=machine.cores)
    plain = replace(precision, runtime="torch")  # the model itself knows what it runs in
    speeds = dict[int, float]()
    for batch in LARGE_BATCHES if leaves_cores_free(precision.device) else BATCHES:
        try:
            speeds[batch], _ = photos_per_second(chosen, model.info.size, plain, training=False, batch=batch)
        except torch.OutOfMemoryError:
            break
    best = max(speeds, key=lambda number: speeds[number])
    if speeds[best] < MIN_SPEEDUP * speeds[BATCH]:
        best = BATCH
    rounded = {str(number): round(speed, 1) for number, speed in speeds.items()}
    return replace(measured, batch=best, batch_photos_per_second=rounded)


def title_of(precision: Precision) -> str:
    """Arithmetic and runtime for people: `float32 in ONNX Runtime`."""
    backend = BACKENDS.get(precision.runtime)
    return f"{precision.name} in {backend.title}" if backend else precision.name


def faster_backend(machine: Machine) -> bool:
    """Whether long labeling tries another backend than torch here."""
    return bool(_candidates(machine, long=True))


def install_hint(machine: Machine, seconds: float) -> str:
    """What to install to make labeling faster here, when it takes so many seconds; empty when nothing would."""
    if machine.requested.runtime != "auto" or seconds < MIN_SECONDS:
        return ""
    missing = [b for b in BACKENDS.values() if machine.device in b.devices and not b.is_installed]
    return f"Labeling may take half the time in {missing[0].title}: {missing[0].install}" if missing else ""


def fall_back_to_float32(folder: Path, measured: Measured) -> Measured:
    """The record with float32 instead of a faster arithmetic, in the fastest backend; stored."""
    speeds = measured.photos_per_second
    fastest = max(["float32", *(name for name in BACKENDS if name in speeds)], key=lambda name: speeds[name])
    runtime = "torch" if fastest == "float32" else fastest
    exact = replace(measured, dtype="float32", runtime=runtime, batch_photos_per_second={})
    exact.write(folder)
    return exact


def inference_model(model: Classifier, precision: Precision, folder: Path, *, threads: int) -> Classifier:
    """The model for inference only, in the arithmetic and backend of `precision`; in torch where converting fails."""
    if isinstance(model, OnnxClassifier):  # there is no other way to compute it
        return model
    backend = BACKENDS.get(precision.runtime)
    converted = backend.convert(model, folder, threads) if backend else None
    return converted or fold(model, precision)


def remove_files(folder: Path) -> None:
    """Remove what backends keep in a model's folder."""
    for backend in BACKENDS.values():
        (folder / backend.file).unlink(missing_ok=True)
