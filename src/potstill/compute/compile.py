"""Whether `torch.compile` makes a student's training sooner done: tried only where the training is long.

Compiling costs each training process about a minute on two cores, and on those gained nothing for MobileNet v1 × 0.25.
So short trainings do not even try. What is compiled must give the losses of the plain model, up to rounding.
"""

import copy
import time
from typing import Any

import torch
from torch import Tensor, nn

from potstill.compute.device import Machine
from potstill.compute.precision import Precision
from potstill.compute.selection import CLOSE, WORTH_IT
from potstill.compute.timing import photos_per_second

LONG_SECONDS = 900.0
"""A training that takes less is not worth the try: a gain of a tenth would be eaten by compiling."""
STEPS = 3
"""Training steps whose losses are compared."""


def decide_compile(
    model: nn.Module, size: int, precision: Precision, machine: Machine, *, batch: int, photos: int, speed: float
) -> dict[str, Any]:
    """Whether the trainings of this model are to be compiled, and what was measured to say so.

    Args:
        batch: photos per step.
        photos: that one training looks at, over all epochs.
        speed: photos per second of the plain model, as measured by `photos_per_second`.
    Returns:
        `compile`, and where it was tried `compile_seconds`, `compiled_photos_per_second` and `compile_same_losses`.
    """
    if machine.compile != "auto":
        return {"compile": machine.compile == "on"}
    if photos < LONG_SECONDS * speed:
        return {"compile": False}
    try:
        started = time.perf_counter()
        compiled: Any = torch.compile(copy.deepcopy(model))
        same = same_losses(model, compiled, size, precision, batch)
        seconds = time.perf_counter() - started
        plain, _ = photos_per_second(model, size, precision, training=True, batch=batch)
        faster, _ = photos_per_second(compiled, size, precision, training=True, batch=batch)
    except (RuntimeError, OSError):  # no C++ compiler, or code of the model that torch cannot follow
        return {"compile": False}
    saved = photos / plain - photos / faster - seconds
    return {
        "compile": same and faster >= WORTH_IT * plain and saved > 0,
        "compile_seconds": round(seconds, 1),
        "compiled_photos_per_second": round(faster, 1),
        "compile_same_losses": same,
    }


def same_losses(model: nn.Module, compiled: nn.Module, size: int, precision: Precision, batch: int) -> bool:
    """Whether a few training steps on noise lose the same in both forms. Neither is changed."""
    plain, other = (_losses(form, size, precision, batch) for form in (model, compiled))
    return bool(torch.allclose(plain, other, rtol=CLOSE, atol=1e-6))


def _losses(model: nn.Module, size: int, precision: Precision, batch: int) -> Tensor:
    """(STEPS,) mean squares of the answers while plain gradient descent makes them smaller."""
    noise = torch.randn(batch, size, size, 3, generator=torch.Generator().manual_seed(0))
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
