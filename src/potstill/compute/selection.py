"""Choosing arithmetic and threads for a model by timing it on this machine."""

import torch
from torch import nn

from potstill.compute.device import Machine
from potstill.compute.precision import Precision
from potstill.compute.timing import photos_per_second, torch_threads
from potstill.errors import ConfigError

WORTH_IT = 1.1
"""Faster by this factor, or exact arithmetic stays: a smaller lead is noise of the clock."""


CLOSE = 0.1
"""The answers' mean square to noise may differ by this share between arithmetics."""


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
