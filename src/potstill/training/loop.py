"""The one training loop, for teachers and students. Killed at any step, it resumes and ends with the same weights.

A batch is a pure function of the step number, so there is no iterator whose place could be lost, and so are the random
numbers of a step; everything else that a step depends on (weights, averages, optimizer) is in the checkpoint.

On a GPU nothing waits for a step to end: batches are copied while the step before is computed, and losses are read some
steps later.
"""

import contextlib
import json
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from potstill.compute.inference import leaves_cores_free, one_ahead, pinned
from potstill.compute.memory import keep_freed_memory
from potstill.compute.precision import Precision
from potstill.errors import DamageError, PotstillError
from potstill.run.files import replacing
from potstill.training.ranks import ALONE, Part, Ranks, SharedNorms

Batch = TypeVar("Batch", bound=tuple[Tensor, ...])

WARMUP_SHARE = 0.05
CHECKPOINT_SECONDS = 30.0

_PLACE = "place"
"""Among the tensors of a checkpoint, while it is handed to other processes: the step and the seed."""

STEPS_AHEAD = 20
"""Steps after which a GPU's losses are read: reading waits for the GPU, and a waiting processor gives it no work."""


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
    """Makes the batch of a step, tensors in the processor's memory; runs one step ahead in another thread."""
    loss: Callable[[Batch], Tensor]
    """Of a batch on the device, one value per photo (B,); calls the modules."""
    frozen: Sequence[nn.Module] = ()
    """Modules that stay in evaluation mode, such as norms that keep their statistics."""
    part: Part | None = None
    """Where several processes train together: the part of each batch that `batch` makes here."""

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return ALONE if self.part is None else self.part.ranks

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
    trained, ranks = task.trained, task.ranks
    optimizer = _optimizer(trained, schedule)
    average = _Average(trained, schedule.ema)
    state = _State(checkpoint, trained, average, optimizer, ranks)
    start, seed = state.restore()
    mean_loss = _mean_loss(task)
    losses = _Losses(ranks, start, callbacks.after_step)
    reading = STEPS_AHEAD if leaves_cores_free(precision.device) else 1
    task.train_mode()

    def read(step: int) -> Batch:
        return _each(task.batch(step), lambda tensor: pinned(tensor, precision.device))

    steps = range(start, schedule.steps)
    for step, data in zip(steps, one_ahead(read, steps), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step) * group["factor"]
        torch.manual_seed(_seed_of(seed, step, ranks.rank))
        with precision.autocast():
            loss = mean_loss(_moved(data, precision.device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(step)
        losses.add(loss)
        evaluates = step + 1 in callbacks.evaluate_at
        if evaluates or (step + 1) % reading == 0 or step + 1 == schedule.steps:
            is_due = losses.read(state.is_due)
            if evaluates:
                with average.in_place():
                    trained.eval()
                    callbacks.evaluate(step + 1)
                task.train_mode()
            if is_due:
                state.save(step + 1, seed)
    state.save(schedule.steps, seed)
    torch.manual_seed(_seed_of(seed, schedule.steps, 0))  # what comes after depends on no step either
    average.take_over()
    trained.eval()


class _Mean(nn.Module):
    """The loss as a module that holds all weights, which is what DistributedDataParallel needs."""

    def __init__(self, task: Task[Any], part: Part) -> None:
        super().__init__()
        self.weights = nn.ParameterList(task.trained.parameters())  # not the statistics of norms, which are shared
        self.loss, self.part = task.loss, part

    def forward(self, data: tuple[Tensor, ...]) -> Tensor:
        """This process's share of the mean over the batch, times the number of processes: the gradients are averaged,
        and parts may be of unequal size."""
        with SharedNorms(self.part.ranks):
            return self.loss(data).sum() * (self.part.ranks.count / self.part.photos)


def _mean_loss(task: Task[Batch]) -> Callable[[Batch], Tensor]:
    """The mean loss of a batch, from whose `backward` all processes get the same gradients."""
    if task.part is None or task.ranks.count == 1:
        return lambda data: task.loss(data).mean()
    # Gradients are added in an order that depends on how they are packed. With this option they are packed in the same
    # way from the first step on, so that a training that is resumed ends with the very same weights.
    return DistributedDataParallel(_Mean(task, task.part), find_unused_parameters=True)


def _seed_of(seed: int, step: int, rank: int) -> int:
    """Of the random numbers of a step, on whatever device: no two steps or processes have the same."""
    return (seed + (step << 16) + rank) % (1 << 63)


def _moved(data: Batch, device: torch.device) -> Batch:
    """The batch on a device; a GPU copies it when it gets there."""
    return _each(data, lambda tensor: tensor.to(device, non_blocking=True))


def _each(data: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    make = getattr(data, "_make", type(data))
    return make([change(tensor) for tensor in data])


class _Losses:
    """The losses of the last steps, which stay on their device until they are read."""

    def __init__(self, ranks: Ranks, start: int, after_step: Callable[[int, float], None]) -> None:
        self.ranks, self.step, self.after_step = ranks, start, after_step
        self._waiting: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """The loss of the next step, as this process has it."""
        self._waiting.append(loss.detach())

    def read(self, is_due: Callable[[], bool]) -> bool:
        """Hand over the losses since the last time. Returns whether it is time for something, by the clock of the
        first process: the others must do it in the same step.

        Raises:
            PotstillError: one is not finite.
        """
        due = float(self.ranks.is_first and is_due())
        values = torch.stack(self._waiting).double()
        *found, due = self.ranks.sum(torch.cat([values / self.ranks.count, values.new_tensor([due])])).tolist()
        self._waiting.clear()
        for value in found:
            self.step += 1
            if not math.isfinite(value):
                raise PotstillError(
                    f"The loss became {value} at step {self.step}. Try a third of the learning rate (--student.lr), or "
                    "--machine.precision float32."
                )
            self.after_step(self.step, value)
        return due > 0


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


class _State:
    """All that a training needs to go on, in a file that the first process writes and reads: on a network's file
    system, others may see an earlier one for a while."""

    def __init__(
        self,
        path: Path,
        trained: nn.ModuleDict,
        average: _Average,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
    ) -> None:
        self.path, self.trained, self.average, self.optimizer, self.ranks = path, trained, average, optimizer, ranks
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved > CHECKPOINT_SECONDS

    def save(self, step: int, seed: int) -> None:
        """Keep the state after so many steps."""
        self._saved = time.monotonic()
        if not self.ranks.is_first:
            return
        tensors = {f"model.{n}": t for n, t in self.trained.state_dict().items()}
        tensors |= {f"average.{n}": t for n, t in self.average.kept.items()}
        for number, parameter in enumerate(_parameters(self.optimizer)):
            tensors |= {f"optimizer.{number}.{n}": t for n, t in self.optimizer.state.get(parameter, {}).items()}
        flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        facts = {"step": step, "seed": seed, "checksum": _checksum(flat)}
        with replacing(self.path) as temporary:
            save_file(flat, temporary, metadata={"state": json.dumps(facts)})

    def restore(self) -> tuple[int, int]:
        """Take up an interrupted training. Returns the number of finished steps, and the seed of its random numbers."""
        step, seed, tensors = 0, int(torch.randint(1 << 40, ())), dict[str, Tensor]()
        if self.ranks.is_first and self.path.is_file():
            tensors, step, seed = _read_checkpoint(self.path)
        tensors = self.ranks.from_first({**tensors, _PLACE: torch.tensor([step, seed])})
        step, seed = tensors.pop(_PLACE).tolist()
        if not tensors:
            return step, seed
        self.trained.load_state_dict(_without_prefix(tensors, "model."))
        for name, tensor in self.average.kept.items():
            tensor.copy_(tensors[f"average.{name}"])
        for number, parameter in enumerate(_parameters(self.optimizer)):
            if state := _without_prefix(tensors, f"optimizer.{number}."):
                self.optimizer.state[parameter] = {
                    n: _laid_out_as(parameter, t) if n != "step" else t.to(parameter.device) for n, t in state.items()
                }
        return step, seed


def _without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 of all values: a safetensors file does not notice a changed byte."""
    crc = 0
    for name in sorted(tensors):
        values = tensors[name].reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(values.data, zlib.crc32(name.encode(), crc))
    return crc


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], int, int]:
    """The tensors, the number of finished steps and the seed. Raises DamageError."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
            state = json.loads(file.metadata()["state"])
        whole, step, seed = state["checksum"] == _checksum(tensors), int(state["step"]), int(state["seed"])
    except (SafetensorError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise DamageError(
            f"{path} is damaged, or from another version. Remove it and run again: this training then starts over."
        )
    return tensors, step, seed


def _laid_out_as(parameter: nn.Parameter, values: Tensor) -> Tensor:
    """The values on its device and in its memory order: fused AdamW pairs elements by their place in memory."""
    return torch.empty_like(parameter, requires_grad=False).copy_(values)
