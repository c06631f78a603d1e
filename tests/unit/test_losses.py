"""The losses by their properties, against finite differences, and against torch's and timm's own."""

import math
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.config.load import field_docs
from potstill.config.schema import StudentConfig
from potstill.errors import ConfigError
from potstill.training import losses

B, C = 7, 6


def logits(seed: int, *, classes: int = C, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(B, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([0, 1, 2, 3, 4, 5, 0])

DISTILLATION = {
    name: lambda s, t, method=method: method.loss(s, t, LABELS, 2.0) for name, method in losses.METHODS.items()
}
by_method = pytest.mark.parametrize("loss", DISTILLATION.values(), ids=DISTILLATION.keys())


@by_method
def test_zero_exactly_where_student_equals_teacher(loss) -> None:
    student = logits(1).requires_grad_()
    value = loss(student, student.detach())
    assert value.shape == (B,)
    assert torch.allclose(value, torch.zeros(B, dtype=torch.float64), atol=1e-5), "up to dist's guard against 0 / 0"
    value.sum().backward()
    assert student.grad.abs().max() < 1e-5, "equal logits are the minimum"
    assert loss(logits(1), logits(2)).min() > 1e-3


@by_method
def test_adding_a_number_to_all_logits_of_a_photo_changes_nothing(loss) -> None:
    shift = torch.linspace(-20, 20, B, dtype=torch.float64)[:, None]
    assert torch.allclose(loss(logits(1), logits(2)), loss(logits(1) + shift, logits(2) - 2 * shift), atol=1e-9)


@by_method
def test_gradient_is_that_of_finite_differences(loss) -> None:
    teacher = logits(2)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (logits(1).requires_grad_(),))


@by_method
def test_finite_with_a_teacher_that_is_as_sure_as_float16_can_store(loss) -> None:
    teacher = torch.full((B, C), -6e4)
    teacher[torch.arange(B), LABELS] = 6e4
    student = logits(1).float().requires_grad_()
    value = loss(student, teacher).sum()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distill_loss_is_torchs_kl_div_batchmean_times_temperature_squared(temperature: float) -> None:
    student, teacher = logits(1), logits(2)
    expected = temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, -1), F.softmax(teacher / temperature, -1), reduction="batchmean"
    )
    assert torch.allclose(losses.distill_loss(student, teacher, temperature=temperature).mean(), expected)


class _Fixed(nn.Module):
    """A model that answers with given logits, with as much of timm's interface as its task asks for."""

    num_classes, in_chans = C, 3
    pretrained_cfg: ClassVar = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.answer


def test_distill_loss_is_timms() -> None:
    task_module = pytest.importorskip("timm.task", reason="timm has had distillation tasks since 1.0.23")
    student, teacher = logits(1).float(), logits(2).float()
    task = task_module.LogitDistillationTask(
        _Fixed(student),
        task_module.DistillationTeacher(_Fixed(teacher)),
        criterion=nn.CrossEntropyLoss(),
        task_loss_weight=0.0,
        distill_loss_weight=1.0,
        temperature=3.0,
        verbose=False,
    )
    theirs = task(torch.zeros(B, 3, 4, 4), LABELS)["kd_loss"]
    assert torch.allclose(losses.distill_loss(student, teacher, temperature=3.0).mean(), theirs, rtol=1e-5)


def test_distill_loss_tends_to_logit_mse_as_temperature_grows() -> None:
    student, teacher = logits(1), logits(2)
    limit = losses.logit_mse_loss(student, teacher)
    errors = [(losses.distill_loss(student, teacher, temperature=t) / limit - 1).abs().max() for t in (1e2, 1e3, 1e4)]
    assert errors[2] < 1e-3
    assert errors[0] > 3 * errors[1] > 9 * errors[2], "the error falls as 1 / T"


def test_gradient_keeps_its_size_across_temperatures() -> None:
    """Why there is a T²: without it the gradient at T = 20 would be 400 times smaller."""
    sizes = []
    for temperature in (4.0, 20.0):
        student = logits(1, scale=0.5).requires_grad_()
        losses.distill_loss(student, logits(2, scale=0.5), temperature=temperature).sum().backward()
        sizes.append(float(student.grad.norm()))
    assert 0.5 < sizes[0] / sizes[1] < 2


def test_task_loss_is_torchs_cross_entropy_with_and_without_smoothing() -> None:
    student, targets = logits(1), F.one_hot(LABELS, C).double()
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(student, LABELS, reduction="none", label_smoothing=smoothing)
        assert torch.allclose(losses.task_loss(student, targets, label_smoothing=smoothing), expected)


def test_task_loss_of_a_blend_is_the_blend_of_losses_and_unlabeled_photos_count_nothing() -> None:
    student = logits(1)
    one, other = F.one_hot(LABELS, C).double(), F.one_hot(LABELS.flip(0), C).double()
    blended = losses.task_loss(student, 0.7 * one + 0.3 * other)
    assert torch.allclose(blended, 0.7 * losses.task_loss(student, one) + 0.3 * losses.task_loss(student, other))
    assert losses.task_loss(student, torch.zeros_like(student), label_smoothing=0.1).abs().max() == 0


def test_dkd_with_beta_as_the_teachers_doubt_is_plain_distillation() -> None:
    """KL = KL of (label, rest) + (1 − p_teacher(label)) · KL among the rest: Zhao et al. 2022, equation 6."""
    student, teacher = logits(1), logits(2)
    doubt = 1 - teacher.softmax(-1)[torch.arange(B), LABELS]
    parts = losses.dkd_loss(student, teacher, LABELS, temperature=1.0, beta=0.0)
    rest = losses.dkd_loss(student, teacher, LABELS, temperature=1.0, beta=1.0) - parts
    assert torch.allclose(parts + doubt * rest, losses.distill_loss(student, teacher, temperature=1.0))


def test_dkd_counts_photos_without_a_label_as_nothing() -> None:
    labels = torch.where(torch.arange(B) < 2, -1, LABELS)
    value = losses.dkd_loss(logits(1), logits(2), labels, temperature=1.0)
    assert value[:2].abs().max() == 0
    assert value[2:].min() > 0


def test_dist_lies_between_zero_and_four_and_does_not_mind_a_shared_scale_of_probabilities() -> None:
    value = losses.dist_loss(logits(1), logits(2))
    assert float(value.min()) >= 0
    assert float(value.max()) <= 4
    opposite = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], dtype=torch.float64)
    assert losses.dist_loss(opposite, opposite.flip(-1)).min() > 3.5


def test_feature_loss_is_one_minus_cosine() -> None:
    student, teacher = logits(1), logits(2)
    assert torch.allclose(losses.feature_loss(5 * teacher, teacher), torch.zeros(B, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(losses.feature_loss(-teacher, teacher), torch.full((B,), 2.0, dtype=torch.float64))
    by_hand = [1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)) for a, b in zip(student, teacher, strict=True)]
    assert torch.allclose(losses.feature_loss(student, teacher), torch.tensor(by_hand, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda s: losses.feature_loss(s, teacher), (student.requires_grad_(),))
    assert torch.isfinite(losses.feature_loss(torch.zeros(1, 4), torch.zeros(1, 4))).all()


@pytest.mark.parametrize(("method", "too_few", "enough"), [("dkd", 4, 5), ("dist", 2, 3)])
def test_methods_that_carry_nothing_with_few_classes_are_refused(method: str, too_few: int, enough: int) -> None:
    with pytest.raises(ConfigError, match=rf'"{method}" needs at least {enough} classes') as caught:
        losses.check_method(method, too_few)
    assert "feature_weight" in str(caught.value), "the message names a way out"
    losses.check_method(method, enough)
    losses.check_method("kl", 2)


def test_the_help_of_the_setting_names_every_registered_loss() -> None:
    help_text = field_docs(StudentConfig)["method"]
    assert [name for name in losses.METHODS if f'"{name}"' not in help_text] == []


def test_an_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no loss 'dkt'. Did you mean 'dkd'\?\n  There are: kl, "):
        losses.check_method("dkt", 10)


def test_shapes_must_agree() -> None:
    with pytest.raises(AssertionError, match="student"):
        losses.distill_loss(logits(1), logits(1, classes=3), temperature=1.0)
