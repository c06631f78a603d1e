"""What this machine has: device, cores, installed runtimes, and a description of it for the record."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from potstill.compute.backends import check_runtime
from potstill.compute.machine import Machine
from potstill.config.schema import MachineConfig
from potstill.errors import ConfigError
from potstill.processes.cores import available_cores


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
    processes = 1 if config.processes_per_training == "auto" else config.processes_per_training
    _check_processes(config, device, processes)
    jobs = config.jobs if config.jobs != "auto" else max(1, cores // processes) if device == "cpu" else 1
    check_runtime(config, device)
    return Machine(device, cores, jobs, config, processes=processes)


def _check_processes(config: MachineConfig, device: str, processes: int) -> None:
    """Raise ConfigError where so many processes cannot train a model together here."""
    if processes == 1:
        return
    asked = f"machine.processes_per_training = {processes}"
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"{asked} needs several GPUs, or CPU cores; machine.device = {device!r} is a single device.")
    if device == "cuda" and config.engine == "local" and processes > torch.cuda.device_count():
        raise ConfigError(f"{asked}, but the number of GPUs here is {torch.cuda.device_count()}.")
    if config.compile == "on":
        raise ConfigError(f'{asked} cannot be combined with machine.compile = "on". Leave one of them out.')


def environment(machine: Machine) -> dict[str, Any]:
    """The content of environment.json: the machine and the versions."""
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
