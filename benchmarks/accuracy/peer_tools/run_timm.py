"""timm: its fine-tuning and its logit distillation task, with its augmentation, optimizer, schedule and averaging.

The teacher is fine-tuned on the labels first. The task sees the photos without labels too: they have no part in its
cross-entropy, which timm leaves to the caller.
"""

from typing import Any

import torch
from common import SIZE, TEACHER_SHARE, UNLABELED, Job, Photo, train_for
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.task import ClassificationTask, LogitDistillationTask
from timm.utils import ModelEmaV3
from torch_common import (
    BATCH,
    MEAN,
    STD,
    TEACHER_SIZE,
    Best,
    Photos,
    accuracy,
    endless,
    predictions,
    student_of,
    teacher_of,
)

TICKS = 1000
"""Of the schedule, over the whole time."""
TASK_WEIGHT, TEMPERATURE = 0.3, 4.0
"""As in the task's documentation."""


class LabeledCrossEntropy(torch.nn.Module):
    """The mean cross-entropy of the photos that have a label; 0 where none has."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        total = torch.nn.functional.cross_entropy(logits, labels, ignore_index=UNLABELED, reduction="sum")
        return total / (labels != UNLABELED).sum().clamp(min=1)


def loader_of(photos: list[Photo], size: int) -> Any:
    """Training photos with timm's augmentation for small networks."""
    return create_loader(
        Photos(photos),
        size,
        min(BATCH, len(photos)),
        is_training=True,
        scale=(0.35, 1.0),
        auto_augment="rand-m6-mstd0.5-inc1",
        interpolation="random",
        mean=MEAN,
        std=STD,
        num_workers=2,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )


def train(
    task: Any, model: torch.nn.Module, photos: list[Photo], job: Job, *, lr: float, size: int, until: float
) -> Best:
    """Train until so many seconds of the job are gone. Returns the averaged weights that are best on val."""
    optimizer = create_optimizer_v2(model, opt="adamw", lr=lr, weight_decay=0.02)
    schedule = CosineLRScheduler(
        optimizer, t_initial=TICKS, lr_min=lr / 100, warmup_t=TICKS // 20, warmup_lr_init=lr / 100, t_in_epochs=False
    )
    average, best, batches = ModelEmaV3(model, decay=0.998, use_warmup=True), Best(), endless(loader_of(photos, size))
    val = job.photos("val")

    def step(gone: float) -> None:
        schedule.step_update(int(TICKS * gone))
        task.train()
        pixels, labels = next(batches)
        optimizer.zero_grad()
        task(pixels, labels)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model)

    train_for(until - job.elapsed, step, lambda: best.see(average.module, accuracy(average.module, val, size)))
    model.load_state_dict(best.state)
    return best


def main() -> None:
    """Teacher, then student."""
    job = Job()
    torch.manual_seed(job.seed)
    labeled, cpu = job.photos("train"), torch.device("cpu")
    teacher, student = teacher_of(job), student_of(job)
    task = ClassificationTask(
        teacher, criterion=torch.nn.CrossEntropyLoss(label_smoothing=0.1), device=cpu, verbose=False
    )
    until = TEACHER_SHARE * job.seconds
    taught = train(task, teacher, labeled, job, lr=3e-4, size=TEACHER_SIZE, until=until)
    distillation = LogitDistillationTask(
        student,
        teacher,
        criterion=LabeledCrossEntropy(),
        task_loss_weight=TASK_WEIGHT,
        temperature=TEMPERATURE,
        device=cpu,
        verbose=False,
    )
    photos = labeled + job.unlabeled()
    best = train(distillation, student, photos, job, lr=1e-3, size=SIZE, until=job.seconds)
    settings = (
        f"teacher fine-tuned {TEACHER_SHARE:.0%} of the time (AdamW 3e-4, label smoothing 0.1), then logit "
        f"distillation, task weight {TASK_WEIGHT}, T {TEMPERATURE:g}, AdamW 1e-3, cosine, RandAugment m6, EMA 0.998, "
        f"batch {BATCH}, unlabeled photos without the task loss, best of 13 checks on val"
    )
    found = predictions(student, job.photos("test"))
    job.finish(found, ["timm", "torch"], settings, val=best.accuracy, teacher_val=taught.accuracy)


if __name__ == "__main__":
    main()
