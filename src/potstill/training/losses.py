"""The losses of distillation: pure functions of tensors, one value per photo, so that weights and masks stay possible.

Arguments are (student, teacher), as torch's (input, target). z are raw logits (B, C), f pooled features (B, D).

`METHODS` at the end names the distillation losses that student.method chooses from. A new one is one function and
one entry there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.errors import ConfigError, did_you_mean
from potstill.wording import counted

_EPSILON = 1e-8


def task_loss(student_logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the given labels, in nats.

    Args:
        student_logits: (B, C).
        targets: (B, C) one-hot labels, or blends of two for mixed views; all zero for unlabeled photos, which
            then count 0.
        label_smoothing: share of each target that is spread over all classes. Szegedy et al. 2016, arXiv:1512.00567.
    Returns:
        (B,) ≥ 0.
    """
    _same_shape(student_logits, targets)
    known = targets.sum(-1, keepdim=True)
    smooth = (1 - label_smoothing) * targets + label_smoothing * known / targets.shape[-1]
    return -(smooth * F.log_softmax(student_logits, dim=-1)).sum(-1)


def distill_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of the softened distributions, in nats.

    The T² keeps the size of the gradient comparable across T.

    Args:
        student_logits: (B, C), carries the gradient.
        teacher_logits: (B, C).
        temperature: T > 0.
    Returns:
        (B,) ≥ 0: the sum over the classes.
    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2.
    """
    _same_shape(student_logits, teacher_logits)
    student = F.log_softmax(student_logits / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(-1)


def multilabel_task_loss(student_logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy with the given labels of photos that may have several, in nats.

    Args:
        student_logits: (B, C).
        targets: (B, C) of 0 and 1, or blends of two for mixed views; NaN for unlabeled photos, which then count 0.
        label_smoothing: targets are drawn towards a half by this share.
    Returns:
        (B,) ≥ 0: the sum over the classes.
    """
    _same_shape(student_logits, targets)
    known = ~targets.isnan().any(-1)
    smooth = (1 - label_smoothing) * targets.nan_to_num() + label_smoothing / 2
    return known * F.binary_cross_entropy_with_logits(student_logits, smooth, reduction="none").sum(-1)


def multilabel_distill_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of yes and no for each class, softened, in nats.

    Args:
        student_logits, teacher_logits: (B, C).
        temperature: T > 0, one for all classes.
    Returns:
        (B,) ≥ 0: the sum over the classes.
    Source: Hinton et al. 2015, for two outcomes per class; Yang et al. 2023, arXiv:2308.06453, section 3.2.
    """
    _same_shape(student_logits, teacher_logits)
    student, teacher = student_logits / temperature, teacher_logits / temperature
    probabilities = teacher.sigmoid()
    cross, own = (
        F.binary_cross_entropy_with_logits(logits, probabilities, reduction="none") for logits in (student, teacher)
    )
    return temperature**2 * (cross - own).sum(-1)


def logit_mse_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """‖z_s − z_t‖² / (2 C) of the logits, each centered over the classes: `distill_loss` for T → ∞.

    Returns:
        (B,) ≥ 0.
    Source: Ba and Caruana 2014, arXiv:1312.6184; the limit: Hinton et al. 2015, section 2.1.
    """
    _same_shape(student_logits, teacher_logits)
    difference = (student_logits - student_logits.mean(-1, keepdim=True)) - (
        teacher_logits - teacher_logits.mean(-1, keepdim=True)
    )
    return difference.square().mean(-1) / 2


def dist_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """2 − (correlation over the classes of each photo) − (correlation over the photos of each class), times T².

    The second correlation is one number for the batch and is given to every photo; with 2 classes it carries next to
    nothing, and it wants batches of 64 and more.

    Returns:
        (B,) in [0, 4 T²].
    Source: Huang et al. 2022 (DIST), arXiv:2205.10536, equations 6 to 9, with β = γ = 1.
    """
    _same_shape(student_logits, teacher_logits)
    student = (student_logits / temperature).softmax(-1)
    teacher = (teacher_logits / temperature).softmax(-1)
    within = 1 - _correlation(student, teacher)
    across = 1 - _correlation(student.T, teacher.T).mean()
    return temperature**2 * (within + across)


def dkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, beta: float = 2.0
) -> Tensor:
    """Decoupled distillation: KL of (label, rest), plus β · KL among the other classes, times T².

    Args:
        labels: (B,) int64; photos with label -1 count 0.
        beta: weight of the other classes; 2 is the paper's value for MobileNet v1 on ImageNet.
    Returns:
        (B,) ≥ 0.
    Raises:
        ConfigError: fewer than 5 classes: with 2 the second term is always 0, with 3 it is one number.
    Source: Zhao et al. 2022, arXiv:2203.08679, section 3.
    """
    _same_shape(student_logits, teacher_logits)
    check_method("dkd", student_logits.shape[-1])
    known = labels >= 0
    target = F.one_hot(labels.clamp(min=0), student_logits.shape[-1]).bool()
    student, teacher = student_logits / temperature, teacher_logits / temperature
    binary = _kl(_target_and_rest(student, target), _target_and_rest(teacher, target))
    rest = _kl(_without(student, target), _without(teacher, target))
    return temperature**2 * (binary + beta * rest) * known


def feature_loss(student_features: Tensor, teacher_features: Tensor) -> Tensor:
    """1 − cosine between projected student features and standardized teacher features.

    Args:
        student_features: (B, D), through the projector already.
        teacher_features: (B, D), zero mean and unit variance per dimension over the training views.
    Returns:
        (B,) in [0, 2].
    Source: research summary in the design; the form follows Miles and Mikolajczyk 2023, arXiv:2303.11098, with cosine.
    """
    _same_shape(student_features, teacher_features)
    return 1 - F.cosine_similarity(student_features, teacher_features, dim=-1, eps=1e-6)


def adjusted(logits: Tensor, shares: Tensor) -> Tensor:
    """Logits (B, C) plus the logarithms of the classes' shares (C,), for a loss against targets that have these shares.

    What the model must learn itself is then what speaks for a class apart from how frequent it is: without the shares,
    it predicts as if all classes were equally frequent.
    Source: Menon et al. 2021, arXiv:2007.07314, equation 10 with τ = 1.
    """
    return logits + shares.log()


def weights_of(targets: Tensor, shares: Tensor) -> Tensor:
    """(B,) by which photos with these targets (B, C), of sum 1 or 0, count in a loss where every class counts alike.

    Args:
        shares: (C,) of the classes in all targets; the mean weight is 1.
    """
    return targets @ (1 / (shares * len(shares)))


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation along the last dimension."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + _EPSILON)


def _kl(student_log: Tensor, teacher_log: Tensor) -> Tensor:
    """KL(teacher ‖ student) of log-probabilities; classes with −∞ in both count 0."""
    difference = torch.where(teacher_log.isinf(), 0.0, teacher_log - student_log)
    return (teacher_log.exp() * difference).sum(-1)


def _target_and_rest(logits: Tensor, target: Tensor) -> Tensor:
    """(B, 2) log-probabilities of the label and of all other classes together."""
    total = logits.logsumexp(-1)
    own = torch.where(target, logits, 0.0).sum(-1)  # `logits[target]` would make a GPU wait for its size
    rest = logits.masked_fill(target, -torch.inf).logsumexp(-1)
    return torch.stack([own - total, rest - total], dim=-1)


def _without(logits: Tensor, target: Tensor) -> Tensor:
    """(B, C) log-probabilities among the classes other than the label, −∞ at the label."""
    return F.log_softmax(logits.masked_fill(target, -torch.inf), dim=-1)


def _same_shape(student: Tensor, teacher: Tensor) -> None:
    assert student.shape == teacher.shape, f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"


@dataclass(frozen=True, slots=True)
class Method:
    """A distillation loss that student.method can name."""

    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    """(student logits (B, C), teacher logits (B, C), labels (B,) int64 with -1 for unlabeled photos, temperature) to
    (B,)."""
    min_classes: int = 2
    reason: str = ""
    """Why it needs that many classes, as the rest of a sentence."""
    needs_whole_batch: bool = False
    """Whether the loss of a photo depends on the other photos of the batch: processes that train together then put
    their parts together first."""
    several_labels: Callable[[Tensor, Tensor, float], Tensor] | None = None
    """The same for photos that may have several labels: of student logits, teacher logits and temperature; None where
    there is no such loss."""


METHODS: dict[str, Method] = {
    "kl": Method(
        lambda student, teacher, labels, t: distill_loss(student, teacher, temperature=t),
        several_labels=lambda student, teacher, t: multilabel_distill_loss(student, teacher, temperature=t),
    ),
    "logit_mse": Method(lambda student, teacher, labels, t: logit_mse_loss(student, teacher)),
    "dist": Method(
        lambda student, teacher, labels, t: dist_loss(student, teacher, temperature=t),
        min_classes=3,
        needs_whole_batch=True,
        reason="the correlation of 2 probabilities is always 1 or −1, without a gradient",
    ),
    "dkd": Method(
        lambda student, teacher, labels, t: dkd_loss(student, teacher, labels, temperature=t),
        min_classes=5,
        reason="it separates the label from the other classes, and so few others carry next to nothing",
    ),
}
"""The distillation losses by the name that student.method gives them."""


def find_method(name: str) -> Method:
    """The distillation loss of this name. Raises ConfigError, with the nearest name, where there is none."""
    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise ConfigError(f"student.method: there is no loss {name!r}.{hint}\n  There are: {', '.join(METHODS)}.")
    return METHODS[name]


def task_loss_of(several_labels: bool) -> Callable[..., Tensor]:
    """The loss for the given labels: `task_loss`, or that for photos that may have several."""
    return multilabel_task_loss if several_labels else task_loss


def check_method(name: str, classes: int, *, several_labels: bool = False) -> None:
    """Raise ConfigError where there is no such distillation loss, or it cannot work with this number of classes, or
    with photos that may have several labels."""
    method = find_method(name)
    if several_labels and method.several_labels is None:
        able = ", ".join(other for other, found in METHODS.items() if found.several_labels)
        raise ConfigError(
            f'student.method = "{name}" is for photos with one label each. Where photos may have several, there is: '
            f"{able}."
        )
    if classes < method.min_classes:
        raise ConfigError(
            f'student.method = "{name}" needs at least {counted(method.min_classes, "class")}, there are {classes}: '
            f'{method.reason}.\n  Use "kl" with feature_weight > 0; with few classes the features carry the most.'
        )
