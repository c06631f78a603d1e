"""The training loop: interrupted anywhere it goes on to the very same weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from potstill.compute.precision import Precision
from potstill.errors import PotstillError
from potstill.training import loop as training
from potstill.training.loop import Callbacks, Schedule, Task, fit

STEPS = 6
SCHEDULE = Schedule(steps=STEPS, lr=1e-2, weight_decay=0.1, ema=0.9)
CPU = Precision(torch.device("cpu"))


class _KilledError(Exception):
    pass


def model() -> nn.ModuleDict:
    """A convolution with a memory order of its own, a norm with running statistics, dropout with random numbers."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 36, 2)]
    return nn.ModuleDict({"model": nn.Sequential(*layers).to(memory_format=torch.channels_last)})


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4, 3, 8, 8, generator=generator), torch.randint(2, (4,), generator=generator)


def train(trained: nn.ModuleDict, checkpoint: Path, *, die_after: int | None = None, factor: float = 1.0) -> None:
    def loss(data: tuple[Tensor, Tensor]) -> Tensor:
        return factor * nn.functional.cross_entropy(trained["model"](data[0]), data[1], reduction="none")

    def after_step(step: int, loss: float) -> None:
        if die_after is not None and step > die_after:
            raise _KilledError

    task = Task(trained=trained, batch=batch, loss=loss)
    fit(task, SCHEDULE, CPU, checkpoint=checkpoint, callbacks=Callbacks(after_step=after_step))


@pytest.mark.parametrize("die_after", range(1, STEPS))
def test_interrupted_after_any_step_it_ends_with_the_same_weights(
    die_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model()
    train(whole, tmp_path / "whole")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(_KilledError):
        train(model(), tmp_path / "broken", die_after=die_after)
    resumed = model()
    torch.manual_seed(99)  # another process has other random numbers, until the checkpoint's are restored
    train(resumed, tmp_path / "broken")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_loss_that_is_not_a_number_stops_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(PotstillError, match=r"became nan at step 1.*--student\.lr"):
        train(model(), tmp_path / "checkpoint", factor=float("nan"))


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    schedule = Schedule(steps=100, lr=1.0, weight_decay=0)
    rates = [schedule.lr_at(step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-3


def test_the_kept_weights_are_the_average_over_the_steps(tmp_path: Path) -> None:
    """Early on the share of the past is at most (1 + step) / (10 + step), then it is `ema`."""
    schedule = Schedule(steps=20, lr=1e-2, weight_decay=0.0, ema=0.6)
    trained = model()
    weight = trained["model"][0].weight
    expected = weight.detach().clone()
    last = torch.empty_like(expected)

    def after_step(step: int, loss: float) -> None:
        share = min(0.6, step / (9 + step))
        expected.mul_(share).add_((1 - share) * weight.detach())
        last.copy_(weight.detach())

    def loss(data: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(trained["model"](data[0]), data[1], reduction="none")

    task = Task(trained=trained, batch=batch, loss=loss)
    fit(task, schedule, CPU, checkpoint=tmp_path / "checkpoint", callbacks=Callbacks(after_step=after_step))
    assert torch.allclose(weight, expected, atol=1e-6)
    assert not torch.allclose(last, expected, atol=1e-4)


def test_matrices_decay_and_biases_and_norms_do_not(tmp_path: Path) -> None:
    trained, before = model(), model().state_dict()
    train(trained, tmp_path / "checkpoint", factor=0.0)  # no gradient: whatever moves is decay
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, before[name]) == (parameter.ndim == 1), name


def test_losses_that_are_read_later_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU reading each loss at once would make the processor wait for it."""
    found: dict[bool, list[tuple[int, float]]] = {False: [], True: []}
    kept = {}
    monkeypatch.setattr(training, "STEPS_AHEAD", 4)
    for later, seen in found.items():
        monkeypatch.setattr(training, "leaves_cores_free", lambda device, later=later: later)
        trained = kept[later] = model()

        def loss(data: tuple[Tensor, Tensor], trained: nn.ModuleDict = trained) -> Tensor:
            return nn.functional.cross_entropy(trained["model"](data[0]), data[1], reduction="none")

        callbacks = Callbacks(after_step=lambda step, value, seen=seen: seen.append((step, value)))
        task = Task(trained=trained, batch=batch, loss=loss)
        fit(task, SCHEDULE, CPU, checkpoint=tmp_path / f"{later}", callbacks=callbacks)
    assert found[True] == found[False]
    assert [step for step, _ in found[True]] == [1, 2, 3, 4, 5, 6]
    assert all(torch.equal(tensor, kept[True].state_dict()[n]) for n, tensor in kept[False].state_dict().items())


def test_weights_without_a_finite_loss_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "leaves_cores_free", lambda device: True)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "STEPS_AHEAD", 2)
    trained = model()

    def loss(data: tuple[Tensor, Tensor]) -> Tensor:
        steps.append(1)
        values = nn.functional.cross_entropy(trained["model"](data[0]), data[1], reduction="none")
        return values * (float("inf") if len(steps) == 4 else 1.0)

    steps: list[int] = []
    with pytest.raises(PotstillError, match="became inf at step 4"):
        fit(Task(trained=trained, batch=batch, loss=loss), SCHEDULE, CPU, checkpoint=tmp_path / "checkpoint")
    _, step, _ = training._read_checkpoint(tmp_path / "checkpoint")
    assert step == 2


def test_no_two_steps_or_processes_have_the_same_random_numbers() -> None:
    seeds = {training._seed_of(7, step, rank) for step in range(1000) for rank in range(64)}
    assert len(seeds) == 64_000
