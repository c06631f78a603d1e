"""Choosing arithmetic and threads for a model by timing it on this machine."""

import torch
from torch import nn

from potstill.compute.machine import Machine
from potstill.compute.precision import Precision, has_bfloat16
from potstill.compute.timing import Workload, photos_per_second, torch_threads
from potstill.errors import ConfigError

MIN_SPEEDUP = 1.1
"""A faster choice must be faster by this factor: a smaller lead is noise of the clock."""

MAX_DIFFERENCE = 0.1
"""By this share the mean square of the outputs may differ between arithmetics."""


def fastest_precision(
    model: nn.Module, size: int, machine: Machine, *, training: bool, batch: int = 16
) -> tuple[Precision, dict[str, float]]:
    """The requested precision; with "auto" the one with more photos per second for this model on this machine.

    bfloat16 is not tried on a processor that only emulates it: one batch would take as long as the whole timing.

    Args:
        training: time forward and backward with the threads of one training; else the forward pass with all.
    Returns:
        The choice, and the measured photos per second by name.
    """
    device = torch.device(machine.device)
    speeds, squares = {}, {}
    of_training = 1 if machine.requested.threads == "auto" else machine.requested.threads
    threads = of_training if training and machine.device == "cpu" else torch.get_num_threads()
    candidates: tuple[str, ...] = (machine.requested.precision,)
    if candidates == ("auto",):
        candidates = ("float32", "bfloat16") if has_bfloat16(machine.device) else ("float32",)
    for name in candidates:
        precision = Precision(device, getattr(torch, name))
        try:
            with torch_threads(threads):
                speeds[name], squares[name] = photos_per_second(model, size, precision, training, batch)
        except RuntimeError as error:  # an operation without this arithmetic
            if name == "float32":
                raise
            if machine.requested.precision == name:
                raise ConfigError(
                    f"machine.precision = {name!r} cannot be used with this model here: {str(error).splitlines()[0]}\n"
                    '  Leave it at "auto".'
                ) from None
            speeds[name], squares[name] = 0.0, 0.0
    best = max(speeds, key=lambda name: speeds[name])
    if machine.requested.precision == "auto":
        exact = squares["float32"]
        if speeds[best] < MIN_SPEEDUP * speeds["float32"] or abs(squares[best] - exact) > MAX_DIFFERENCE * abs(exact):
            best = "float32"
    return Precision(device, getattr(torch, best)), {name: round(speed, 1) for name, speed in speeds.items()}


def fastest_threads(
    model: nn.Module, work: Workload, precision: Precision, machine: Machine
) -> tuple[int, dict[str, float]]:
    """How many threads one training of this model should have.

    Small models gain little from a second thread, and lose where two trainings compete for a core. So it is one
    thread, or where cores would be idle the smallest of 1, 2, 4 … that no larger number beats by a tenth.

    Returns:
        The number, and the photos per second by number where they were measured.
    """
    if machine.requested.threads != "auto":
        return machine.requested.threads, {}
    most = machine.spare_threads(work.trainings)
    if most == 1 or machine.device != "cpu":  # where the cores do nothing but render views
        return most, {}
    chosen, speeds = 1, dict[int, float]()
    for number in sorted({2**n for n in range(most.bit_length())} | {most}):
        with torch_threads(number):
            speeds[number], _ = photos_per_second(model, work.size, precision, training=True, batch=work.batch)
        if speeds[number] > MIN_SPEEDUP * speeds[chosen]:
            chosen = number
    return chosen, {str(number): round(speed, 1) for number, speed in speeds.items()}
