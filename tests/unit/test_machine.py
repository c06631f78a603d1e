"""Arithmetic is chosen by timing, and never where it would change the answers."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from potstill.compute import selection, timing
from potstill.compute.machine import Machine
from potstill.compute.precision import Precision, has_bfloat16
from potstill.compute.selection import fastest_precision, fastest_threads
from potstill.compute.timing import Workload, torch_threads
from potstill.config.schema import Auto, MachineConfig
from potstill.errors import ConfigError


class _Slow(nn.Module):
    """Counts as slow in float32; in bfloat16 its answers are off by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.factor = factor

    def forward(self, pixels: Tensor) -> Tensor:
        answer = self.layer(pixels.mean((2, 3)))
        if answer.dtype == torch.bfloat16:
            return answer * self.factor
        for _ in range(40):
            torch.ones(200, 200) @ torch.ones(200, 200)
        return answer


@pytest.fixture(autouse=True)
def short() -> None:
    """Short timings, and both arithmetics tried, whatever processor the tests run on."""
    with patch.object(timing, "PROBE_SECONDS", 0.05), patch.object(selection, "has_bfloat16", lambda device: True):
        yield


@pytest.mark.parametrize(
    ("capabilities", "tried"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_f": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "arm64", "neon": True, "bf16": False}, False),
        ({"architecture": "arm64", "neon": True, "bf16": True}, True),
    ],
)
def test_bfloat16_is_not_tried_where_it_is_emulated(
    capabilities: dict[str, object], tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single batch of it would take many times the whole timing, in silence."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(selection, "has_bfloat16", has_bfloat16)
    _, speeds = fastest_precision(_Slow(1.0), 8, Machine("cpu", 1, 1), training=True)
    assert list(speeds) == ["float32", "bfloat16"][: 1 + tried]
    asked = Machine("cpu", 1, 1, MachineConfig(precision="bfloat16"))
    assert list(fastest_precision(_Slow(1.0), 8, asked, training=True)[1]) == ["bfloat16"], "as the user wants it"


def test_only_processors_that_torch_knows_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {}, raising=False)
    assert has_bfloat16("cuda")
    assert not has_bfloat16("cpu")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert has_bfloat16("cpu"), "an old torch does not tell: it is timed"


@pytest.mark.parametrize("training", [False, True])
def test_the_faster_arithmetic_is_taken_when_it_says_the_same(training: bool) -> None:
    precision, speeds = fastest_precision(_Slow(1.0), 8, Machine("cpu", 1, 1), training=training)
    assert speeds["bfloat16"] > speeds["float32"]
    assert precision.dtype == torch.bfloat16


def test_faster_but_different_is_refused() -> None:
    precision, speeds = fastest_precision(_Slow(1.5), 8, Machine("cpu", 1, 1), training=True)
    assert speeds["bfloat16"] > speeds["float32"]
    assert precision.dtype == torch.float32


def test_what_the_user_sets_is_not_questioned() -> None:
    precision, speeds = fastest_precision(
        _Slow(1.5), 8, Machine("cpu", 1, 1, MachineConfig(precision="bfloat16")), training=True
    )
    assert precision.dtype == torch.bfloat16
    assert list(speeds) == ["bfloat16"]


class _FloatOnly(nn.Linear):
    """Has no bfloat16."""

    def forward(self, pixels: Tensor) -> Tensor:
        answer = super().forward(pixels.mean((2, 3)))
        if answer.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return answer


def test_arithmetic_that_a_model_lacks_is_passed_over_or_refused() -> None:
    precision, speeds = fastest_precision(_FloatOnly(3, 2), 8, Machine("cpu", 1, 1), training=True)
    assert precision.dtype == torch.float32
    assert speeds["bfloat16"] == 0
    with pytest.raises(ConfigError, match=r"bfloat16.*not implemented"):
        fastest_precision(_FloatOnly(3, 2), 8, Machine("cpu", 1, 1, MachineConfig(precision="bfloat16")), training=True)


@pytest.mark.parametrize(("training", "asked", "timed_on"), [(False, "auto", 5), (True, "auto", 1), (True, 3, 3)])
def test_a_training_is_timed_on_its_own_threads_and_the_teacher_on_all(
    training: bool, asked: Auto | int, timed_on: int
) -> None:
    seen = []

    def timed(*given: object) -> tuple[float, float]:
        seen.append(torch.get_num_threads())
        return 1.0, 1.0

    with torch_threads(5), patch.object(selection, "photos_per_second", timed):
        fastest_precision(_Slow(1.0), 8, Machine("cpu", 5, 5, MachineConfig(threads=asked)), training=training)
        assert torch.get_num_threads() == 5
    assert seen == [timed_on, timed_on]


def test_probing_leaves_weights_and_statistics_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fastest_precision(model, 16, Machine("cpu", 1, 1), training=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("cores", "jobs", "trainings", "speeds", "chosen"),
    [
        (8, 8, 2, {1: 10, 2: 19, 4: 20}, 2),  # the fourth thread is worth too little
        (8, 8, 2, {1: 10, 2: 9, 4: 20}, 4),
        (8, 8, 2, {1: 10, 2: 10.5, 4: 10.9}, 1),
        (8, 1, 2, {1: 10, 2: 19, 4: 30, 8: 50}, 8),
        (6, 2, 6, {1: 10, 2: 19, 3: 29}, 3),
        (8, 8, 6, {}, 1),  # no core would stand idle: nothing is timed
        (2, 2, 2, {}, 1),
    ],
)
def test_idle_cores_become_threads_where_that_pays(
    cores: int, jobs: int, trainings: int, speeds: dict[int, float], chosen: int
) -> None:
    before = torch.get_num_threads()
    with patch.object(selection, "photos_per_second", lambda *a, **k: (speeds[torch.get_num_threads()], 0.0)):
        work = Workload(size=8, batch=4, photos=100, trainings=trainings)
        found = fastest_threads(_Slow(1.0), work, Precision.on("cpu"), Machine("cpu", cores, jobs))
    assert found == (chosen, {str(number): speed for number, speed in speeds.items()})
    assert torch.get_num_threads() == before


def test_threads_can_be_set() -> None:
    asked = Machine("cpu", 8, 1, MachineConfig(threads=3))
    work = Workload(size=8, batch=4, photos=100, trainings=2)
    assert fastest_threads(_Slow(1.0), work, Precision.on("cpu"), asked) == (3, {})


def test_a_real_model_is_timed_with_each_number() -> None:
    _, speeds = fastest_threads(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        Workload(size=16, batch=4, photos=100, trainings=2),
        Precision.on("cpu"),
        Machine("cpu", 2, 1),
    )
    assert list(speeds) == ["1", "2"]
    assert all(speed > 0 for speed in speeds.values())
