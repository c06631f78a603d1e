"""What this machine has, and how a run uses it: device, arithmetic, threads. Chosen by timing, written down."""

import contextlib
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from potstill.config.schema import Auto, MachineConfig
from potstill.errors import ConfigError
from potstill.processes.cores import available_cores
from potstill.training.loop import Precision

PROBE_SECONDS = 1.0
WORTH_IT = 1.1
"""Faster by this factor, or exact arithmetic stays: a smaller lead is noise of the clock."""
CLOSE = 0.1
"""The answers' mean square to noise may differ by this share between arithmetics."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The decided use of this machine."""

    device: str
    cores: int
    jobs: int
    """Students trained at the same time."""
    precision: str = "auto"
    """Arithmetic of training and labelling as asked for: "auto", "float32" or "bfloat16"."""
    runtime: str = "auto"
    """What runs the teacher while it labels, as asked for: "auto", "torch" or "onnxruntime"."""
    compile: str = "auto"
    """`torch.compile` of students, as asked for: "auto", "on" or "off"."""
    label_batch: int | Auto = "auto"
    """Photos that the teacher looks at in one go, as asked for."""
    threads: int | Auto = "auto"
    """Of one student's training, as asked for."""

    def spare_threads(self, trainings: int) -> int:
        """Threads for each of so many trainings, so that no core has two: 1 where all cores have a training."""
        return max(1, self.cores // min(self.jobs, max(trainings, 1)))

    def torch_device(self) -> torch.device:
        return torch.device(self.device)


def decide(config: MachineConfig) -> Machine:
    """Fill in "auto" values. Raises ConfigError for a device that is not there."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"machine.device = {device!r} cannot be used here: {str(error).splitlines()[0]}\n"
            "  Use --machine.device cpu, or leave it at auto."
        ) from None
    cores = available_cores()
    jobs = config.jobs if config.jobs != "auto" else cores if device == "cpu" else 1
    if config.runtime == "onnxruntime" and (device != "cpu" or config.precision == "bfloat16"):
        raise ConfigError('machine.runtime = "onnxruntime" labels on the CPU and in float32 only. Leave it at "auto".')
    if config.runtime == "onnxruntime" and not has_onnxruntime():
        raise ConfigError("machine.runtime = \"onnxruntime\" needs: pip install 'potstill[export]'")
    return Machine(
        device, cores, jobs, config.precision, config.runtime, config.compile, config.label_batch, config.threads
    )


def has_onnxruntime() -> bool:
    """Whether graphs can be written and run here: the extra `export`."""
    return all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def fastest_precision(
    model: nn.Module, size: int, machine: Machine, *, training: bool, batch: int = 16
) -> tuple[Precision, dict[str, float]]:
    """The precision that was asked for; with "auto" the one that does more photos per second with this model here.

    Args:
        training: time forward and backward, on the thread that one of several trainings has, or as many as were asked
            for; else the forward pass alone, on all.
    Returns:
        The choice, and the measured photos per second by name.
    """
    device = machine.torch_device()
    speeds, answers = {}, {}
    of_training = 1 if machine.threads == "auto" else machine.threads
    threads = of_training if training and machine.device == "cpu" else torch.get_num_threads()
    for name in ("float32", "bfloat16") if machine.precision == "auto" else (machine.precision,):
        precision = Precision(device, getattr(torch, name))
        try:
            with torch_threads(threads):
                speeds[name], answers[name] = photos_per_second(model, size, precision, training, batch)
        except RuntimeError as error:  # an operation without this arithmetic
            if name == "float32":
                raise
            if machine.precision == name:
                raise ConfigError(
                    f"machine.precision = {name!r} cannot be used with this model here: {str(error).splitlines()[0]}\n"
                    '  Leave it at "auto".'
                ) from None
            speeds[name], answers[name] = 0.0, 0.0
    best = max(speeds, key=lambda name: speeds[name])
    if machine.precision == "auto":
        exact = answers["float32"]
        if speeds[best] < WORTH_IT * speeds["float32"] or abs(answers[best] - exact) > CLOSE * abs(exact):
            best = "float32"
    return Precision(device, getattr(torch, best)), {name: round(speed, 1) for name, speed in speeds.items()}


def fastest_threads(
    model: nn.Module, size: int, precision: Precision, machine: Machine, *, trainings: int, batch: int
) -> tuple[int, dict[str, float]]:
    """How many threads one training of this model should have.

    Small models gain little from a second one, and lose where two trainings spin for the same core. So there is one,
    or where cores would stand idle the fewest of 1, 2, 4 … that no more beat by a tenth.

    Args:
        trainings: that wait to be run.
    Returns:
        The number, and the photos per second by number where they were measured.
    """
    if machine.threads != "auto":
        return machine.threads, {}
    if machine.device != "cpu":  # what is left to the processor there may use all of it
        return torch.get_num_threads(), {}
    most = machine.spare_threads(trainings)
    if most == 1:
        return 1, {}
    chosen, speeds = 1, dict[int, float]()
    for number in sorted({2**n for n in range(most.bit_length())} | {most}):
        with torch_threads(number):
            speeds[number], _ = photos_per_second(model, size, precision, training=True, batch=batch)
        if speeds[number] > WORTH_IT * speeds[chosen]:
            chosen = number
    return chosen, {str(number): round(speed, 1) for number, speed in speeds.items()}


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """So many threads for torch while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def photos_per_second(
    model: nn.Module, size: int, precision: Precision, training: bool, batch: int = 16
) -> tuple[float, float]:
    """The speed, and the mean square of the answers to a batch of noise, for comparing arithmetics."""
    noise = torch.randn(batch, size, size, 3, generator=torch.Generator().manual_seed(0))
    pixels = noise.to(precision.device).permute(0, 3, 1, 2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    was_training = model.training
    model.train(training)

    def step() -> float:
        with torch.set_grad_enabled(training), precision.autocast():
            total = model(pixels).float().square().mean()
        if training:
            total.backward()
        return float(total.detach())  # waits for the device

    answer = step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < PROBE_SECONDS:
        step()
        steps += 1
    speed = steps * batch / (time.perf_counter() - started)
    model.zero_grad(set_to_none=True)
    model.load_state_dict(state)
    model.train(was_training)
    return speed, answer


def environment(machine: Machine) -> dict[str, Any]:
    """What environment.json says of the machine and the versions."""
    names = ("potstill", "torch", "timm", "numpy", "pillow", "safetensors")
    return {
        "machine": asdict(machine),
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  not a file on disk
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
