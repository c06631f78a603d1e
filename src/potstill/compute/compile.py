"""Whether `torch.compile` shortens the training of a student: tried only where trainings are long.

Compiling costs each training process about a minute on two cores, and on those gained nothing for MobileNet v1 × 0.25.
So short trainings do not even try. What is compiled must give the losses of the plain model, up to rounding.
"""

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from potstill.compute.machine import Machine
from potstill.compute.precision import Precision
from potstill.compute.selection import MAX_DIFFERENCE, MIN_SPEEDUP
from potstill.compute.timing import Workload, photos_per_second

LONG_SECONDS = 900.0
"""A training that takes less is not worth the try: a gain of a tenth would be eaten by compiling."""
STEPS = 3
"""Training steps whose losses are compared."""


def decide_compile(
    model: nn.Module, work: Workload, precision: Precision, machine: Machine, speed: float
) -> tuple[bool, dict[str, Any]]:
    """Whether to compile the trainings of this model.

    Args:
        speed: photos per second of the plain model, as measured by `photos_per_second`.
    Returns:
        The decision, and where compiling was tried `seconds`, `photos_per_second` and `same_losses`.
    """
    if machine.requested.compile != "auto":
        return machine.requested.compile == "on", {}
    if work.photos < LONG_SECONDS * speed or machine.processes > 1:
        return False, {}
    try:
        started = time.perf_counter()
        compiled: Any = torch.compile(copy.deepcopy(model))
        same = same_losses(model, compiled, work, precision)
        seconds = time.perf_counter() - started
        plain, _ = photos_per_second(model, work.size, precision, training=True, batch=work.batch)
        faster, _ = photos_per_second(compiled, work.size, precision, training=True, batch=work.batch)
    except (RuntimeError, OSError):  # no C++ compiler, or code of the model that torch cannot follow
        return False, {}
    saved = work.photos / plain - work.photos / faster - seconds
    trial = {"seconds": round(seconds, 1), "photos_per_second": round(faster, 1), "same_losses": same}
    return same and faster >= MIN_SPEEDUP * plain and saved > 0, trial


def same_losses(model: nn.Module, compiled: nn.Module, work: Workload, precision: Precision) -> bool:
    """Whether both give the same losses over a few training steps on noise. Neither is changed."""
    plain, other = (_losses(one, work, precision) for one in (model, compiled))
    return bool(torch.allclose(plain, other, rtol=MAX_DIFFERENCE, atol=1e-6))


def _losses(model: nn.Module, work: Workload, precision: Precision) -> Tensor:
    """(STEPS,) mean squares of the outputs while plain gradient descent reduces them."""
    noise = torch.randn(work.batch, work.size, work.size, 3, generator=torch.Generator().manual_seed(0))
    pixels = noise.to(precision.device).permute(0, 3, 1, 2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    was_training, found = model.training, []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    with torch.random.fork_rng(devices=[]):
        for _ in range(STEPS):
            torch.manual_seed(0)  # dropout
            with precision.autocast():
                loss = model(pixels).float().square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            found.append(loss.detach())
    model.load_state_dict(state)
    model.train(was_training)
    return torch.stack(found)
