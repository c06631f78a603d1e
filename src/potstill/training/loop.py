"""The one training loop, for teachers and students. Killed at any step, it resumes and ends with the same weights.

A batch is a pure function of the step number, so there is no iterator whose place could be lost; everything else that
a step depends on (weights, averages, optimizer, random numbers) is in the checkpoint.
"""

import contextlib
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from potstill.compute.memory import keep_freed_memory
from potstill.compute.precision import Precision
from potstill.errors import DamageError, PotstillError
from potstill.run.files import replacing

Batch = TypeVar("Batch")

WARMUP_SHARE = 0.05
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long and how fast."""

    steps: int
    lr: float
    """Highest learning rate: linear warm-up over the first 5 % of the steps, then cosine to 0."""
    weight_decay: float
    ema: float = 0.0
    """Weight averaging; 0 for none. Early on it averages over less: the share of the past is at most
    (1 + step) / (10 + step)."""
    lr_factors: dict[str, float] = field(default_factory=dict)
    """Factors for parameters whose name begins with a key."""

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step`, counted from 0."""
        warmup = max(1, round(WARMUP_SHARE * self.steps))
        if step < warmup:
            return self.lr * (step + 1) / warmup
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Task(Generic[Batch]):
    """What is trained, on what."""

    trained: nn.ModuleDict
    """Every module with weights to learn, by name."""
    batch: Callable[[int], Batch]
    """Makes the batch of a step; runs one step ahead in another thread."""
    loss: Callable[[Batch], Tensor]
    """Of a batch, one value per photo (B,); calls the modules."""
    frozen: Sequence[nn.Module] = ()
    """Modules that stay in evaluation mode, such as norms that keep their statistics."""

    def train_mode(self) -> None:
        """All in training mode but the frozen ones."""
        self.trained.train()
        for module in self.frozen:
            module.eval()


@dataclass(frozen=True, kw_only=True, slots=True)
class Callbacks:
    """What is called while the training runs."""

    after_step: Callable[[int, float], None] = lambda step, loss: None
    """With the number of finished steps and the step's mean loss."""
    evaluate: Callable[[int], None] = lambda step: None
    """With the number of finished steps, at those in `evaluate_at`, while the modules hold the averaged weights in
    evaluation mode."""
    evaluate_at: frozenset[int] = frozenset()


def fit(
    task: Task[Batch],
    schedule: Schedule,
    precision: Precision,
    *,
    checkpoint: Path,
    callbacks: Callbacks = Callbacks(),
) -> None:
    """Train the task's modules in place; at the end they hold the averaged weights, if there is averaging.

    Args:
        checkpoint: where to keep the state while training; removed at the end by the caller, when the result is safe.
    Raises:
        PotstillError: the loss is no longer finite.
    """
    keep_freed_memory()
    trained = task.trained
    optimizer = _optimizer(trained, schedule)
    average = _Average(trained, schedule.ema)
    start = _restore(checkpoint, trained, average, optimizer)
    saved = time.monotonic()
    task.train_mode()
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(task.batch, start) if start < schedule.steps else None
        for step in range(start, schedule.steps):
            assert ahead is not None
            data = ahead.result()
            ahead = reader.submit(task.batch, step + 1) if step + 1 < schedule.steps else None
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(step) * group["factor"]
            with precision.autocast():
                loss = task.loss(data).mean()
            value = _finite(loss, step)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(step)
            callbacks.after_step(step + 1, value)
            if step + 1 in callbacks.evaluate_at:
                with average.in_place():
                    trained.eval()
                    callbacks.evaluate(step + 1)
                task.train_mode()
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(checkpoint, trained, average, optimizer, step + 1)
                saved = time.monotonic()
    _save(checkpoint, trained, average, optimizer, schedule.steps)
    average.take_over()
    trained.eval()


def _finite(loss: Tensor, step: int) -> float:
    """The value of a step's loss."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise PotstillError(
            f"The loss became {value} at step {step + 1}. Try a third of the learning rate (--student.lr), or "
            "--machine.precision float32."
        )
    return value


def _optimizer(trained: nn.ModuleDict, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW; biases and norms without decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = schedule.weight_decay if parameter.ndim > 1 else 0.0
        factor = next((f for prefix, f in schedule.lr_factors.items() if name.startswith(prefix)), 1.0)
        groups.setdefault((decay, factor), []).append(parameter)
    parts: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "factor": factor, "lr": schedule.lr * factor}
        for (decay, factor), parameters in groups.items()
    ]
    return torch.optim.AdamW(parts, lr=schedule.lr, fused=True)


class _Average:
    """Exponential moving average of all weights and of the running statistics of norms."""

    def __init__(self, trained: nn.ModuleDict, decay: float) -> None:
        self.decay = decay
        self.live = {n: t for n, t in trained.state_dict(keep_vars=False).items() if t.is_floating_point()}
        self.kept = {n: t.clone() for n, t in self.live.items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        if self.kept:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.kept.values()), [self.live[n] for n in self.kept], 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While the block runs, the model holds the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def take_over(self) -> None:
        for name, tensor in self.kept.items():
            self.live[name].copy_(tensor)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, tensor in self.kept.items():
            live = self.live[name].clone()
            self.live[name].copy_(tensor)
            tensor.copy_(live)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _save(path: Path, trained: nn.ModuleDict, average: _Average, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"model.{n}": t for n, t in trained.state_dict().items()}
    tensors |= {f"average.{n}": t for n, t in average.kept.items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        tensors |= {f"optimizer.{number}.{n}": t for n, t in optimizer.state.get(parameter, {}).items()}
    tensors["random"] = torch.get_rng_state()
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(flat, temporary, metadata={"state": json.dumps({"step": step, "checksum": _checksum(flat)})})


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of all values: a safetensors file does not notice a changed byte."""
    crc = 0
    for name in sorted(tensors):
        values = tensors[name].reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(values.data, zlib.crc32(name.encode(), crc))
    return crc


def _restore(path: Path, trained: nn.ModuleDict, average: _Average, optimizer: torch.optim.Optimizer) -> int:
    """Take up an interrupted training. Returns the number of finished steps."""
    if not path.is_file():
        return 0
    tensors, step = _read_checkpoint(path)
    trained.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    for name, tensor in average.kept.items():
        tensor.copy_(tensors[f"average.{name}"])
    for number, parameter in enumerate(_parameters(optimizer)):
        prefix = f"optimizer.{number}."
        state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        if state:
            optimizer.state[parameter] = {n: _laid_out_as(parameter, t) if n != "step" else t for n, t in state.items()}
    torch.set_rng_state(tensors["random"])
    return step


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors and the number of finished steps. Raises DamageError."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
            state = json.loads(file.metadata()["state"])
        whole, step = state["checksum"] == _checksum(tensors), int(state["step"])
    except (SafetensorError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise DamageError(f"{path} is damaged. Remove it and run again: this training then starts anew.")
    return tensors, step


def _laid_out_as(parameter: nn.Parameter, values: Tensor) -> Tensor:
    """The values on its device and in its memory order: fused AdamW pairs elements by their place in memory."""
    return torch.empty_like(parameter, requires_grad=False).copy_(values)
