"""One training in several processes, its ranks: each has a part of every batch, and all have the same weights.

Gradients are averaged by torch's DistributedDataParallel. What else depends on the whole batch is shared here: the
statistics of batch norms, and losses that compare photos with each other. So the weights are those of one process, up
to the rounding of sums that are added in another order.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from potstill.errors import ConfigError, LostProcessError
from potstill.processes.group import Meeting

TIMEOUT = timedelta(minutes=30)
"""A process that waits longer for another gives up: longer than any of them is busy alone."""

_LOST = ("Connection closed", "Connection reset", "Broken pipe", "Timed out", "timed out", "Connection refused")
"""In errors of torch that mean that another process is gone."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that train one model, and which of them this one is."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Of this process."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def part_of(self, total: int) -> slice:
        """The part of so many items that is this process's; all parts together are all items, in their order."""
        return slice(total * self.rank // self.count, total * (self.rank + 1) // self.count)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, on the same device; without a gradient."""
        if self.count == 1:
            return tensor
        total = tensor.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(tensor.device)

    def from_first(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the first process has, in the processor's memory, whatever the others have."""
        if self.count == 1:
            return tensors
        described = [{name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}]
        dist.broadcast_object_list(described, src=0)
        found = {}
        for name, (shape, dtype) in described[0].items():
            empty = torch.empty(shape, dtype=dtype, device=self.device)
            tensor = tensors[name].to(self.device).contiguous() if self.is_first else empty
            dist.broadcast(tensor, src=0)
            found[name] = tensor.cpu()
        return found


ALONE = Ranks()
"""One process."""


@dataclass(frozen=True, slots=True)
class Part:
    """This process's part of every batch of a training."""

    ranks: Ranks
    photos: int
    """In a whole batch."""

    def __post_init__(self) -> None:
        if self.photos < self.ranks.count:
            raise ConfigError(
                f"A training step has {self.photos} photos only, too few for {self.ranks.count} processes. "
                "Lower --machine.processes-per-training, or raise --student.batch-size."
            )

    @property
    def rows(self) -> slice:
        """Of the batch."""
        return self.ranks.part_of(self.photos)

    @property
    def share(self) -> float:
        """Of the photos."""
        return (self.rows.stop - self.rows.start) / self.photos

    def whole(self, own: Tensor) -> Tensor:
        """(B, …) the values of the whole batch, from those (b, …) of each process; with gradients."""
        return own if self.ranks.count == 1 else _Whole.apply(own, self)


@contextlib.contextmanager
def joined(meeting: Meeting, rank: int, count: int, device: torch.device) -> Iterator[Ranks]:
    """The ranks of a training, from the moment all are there until the block ends.

    Raises:
        LostProcessError: another process has ended.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            meeting.host,
            meeting.port,
            is_master=rank == 0,
            timeout=TIMEOUT,
            wait_for_workers=False,
            master_listen_fd=meeting.listener if rank == 0 else None,
        )
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
        yield Ranks(rank, count, device)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(words in str(error) for words in _LOST):
            raise LostProcessError(f"Lost contact with another process of this training: {error}") from None
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


class _Whole(torch.autograd.Function):
    """Puts the parts of a batch together. A part gets the gradients of what every process makes of the whole."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, part: Part) -> Tensor:
        ctx.rows = part.rows
        whole = own.new_zeros(part.photos, *own.shape[1:])
        whole[part.rows] = own
        dist.all_reduce(whole)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[ctx.rows], None


class SharedNorms(TorchFunctionMode):
    """While it is entered, batch norms in training mode take the mean and deviation of the whole batch.

    torch's SyncBatchNorm does so on GPUs only, and in place of the modules, of which timm has kinds of its own.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        values: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As `torch.nn.functional.batch_norm`."""
        if not training:
            return F.batch_norm(values, running_mean, running_var, weight, bias, False, momentum, eps)
        mean, var, count = _statistics(values.detach(), self.ranks)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * (count / (count - 1)), momentum)
        channels = values.shape[1]
        weight = weight if weight is not None else mean.new_ones(channels)
        bias = bias if bias is not None else mean.new_zeros(channels)
        return _Norm.apply(values, weight, bias, mean, var, count, eps)


def _statistics(values: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,) and variance (C,) of the values (b, C, …) of all processes, and how many there are of each channel."""
    values = values if values.dtype == torch.float64 else values.float()
    own_var, own_mean = torch.var_mean(values, dim=[0, *range(2, values.ndim)], correction=0)
    own_count = own_mean.new_full((1,), values.numel() // values.shape[1])
    every = own_mean.new_zeros(ranks.count, 2 * len(own_mean) + 1, dtype=torch.float64)
    every[ranks.rank] = torch.cat([own_mean, own_var, own_count])
    dist.all_reduce(every)
    means, variances, counts = torch.split(every, [len(own_mean), len(own_mean), 1], dim=1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    var = (counts * (variances + (means - mean).square())).sum(0) / count
    return mean.to(own_mean.dtype), var.to(own_mean.dtype), count.to(own_mean.dtype)


class _Norm(torch.autograd.Function):
    """Batch norm with the given mean and variance, which are those of the values of all processes."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, count: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(values, weight, mean, var, count)
        ctx.eps = eps
        return F.batch_norm(values, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, mean, var, count = ctx.saved_tensors
        fixed, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        # `fixed` is the gradient for a fixed mean and variance; both depend on every value, by these two sums.
        sums = torch.cat([bias_gradient, weight_gradient])
        dist.all_reduce(sums)
        of_gradient, of_product = (sums / count).chunk(2)
        deviation = (var + ctx.eps).rsqrt()
        slope = -(weight * deviation.square() * of_product)
        shift = -(weight * deviation * of_gradient) - slope * mean
        shape = (1, -1, *[1] * (values.ndim - 2))
        through_statistics = values * slope.view(shape).to(values.dtype) + shift.view(shape).to(values.dtype)
        return fixed + through_statistics, weight_gradient, bias_gradient, None, None, None, None
