"""How fast a model is on this machine: photos per second, with a number of threads, forward or training."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from potstill.compute.memory import keep_freed_memory
from potstill.compute.precision import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The trainings of one model, as far as speed depends on them."""

    size: int
    """Input side in pixels."""
    batch: int
    """Photos per step."""
    photos: int
    """That one training processes, over all epochs."""
    trainings: int
    """That wait to be run."""


PROBE_SECONDS = 1.0


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
    """The speed, and the mean square of the outputs for a batch of noise, for comparing arithmetics."""
    keep_freed_memory()
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

    square = step()
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < PROBE_SECONDS:
        step()
        steps += 1
    speed = steps * batch / (time.perf_counter() - started)
    model.zero_grad(set_to_none=True)
    model.load_state_dict(state)
    model.train(was_training)
    return speed, square
