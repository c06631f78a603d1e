"""torchdistill: its training box for the teacher, its distillation box with KDLoss for the student.

The boxes are given the dictionaries that torchdistill's YAML files describe. Its sample configurations train from
random weights with SGD at 0.1 in steps; from ImageNet weights that is too much, so it is 0.01 here, with a cosine. A
batch in which no photo has a label goes without targets, as KDLoss allows.
"""

import math
from typing import Any

import torch
from common import SIZE, TEACHER_SHARE, UNLABELED, Job, Photo, train_for
from torch.utils.data import RandomSampler
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
from torchdistill.core.distillation import get_distillation_box
from torchdistill.core.training import get_training_box
from torchvision import transforms

ALPHA, TEMPERATURE = 0.5, 1.0
"""Of its sample configuration for ImageNet."""
LR = 0.01
INPUT = {"is_from_teacher": False, "module_path": ".", "io": "output"}
WHOLE = {"student_module_path": ".", "student_module_io": "output"}
TEACHERS = {"teacher_module_path": ".", "teacher_module_io": "output"}


def photos_at(photos: list[Photo], size: int) -> Photos:
    """With the augmentation of the sample configurations."""
    steps = [
        transforms.RandomResizedCrop(size),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    return Photos(photos, transforms.Compose(steps))


def loading(count: int) -> dict[str, Any]:
    """How the photos are read."""
    return {
        "dataset_id": "photos",
        "sampler": {"class_or_func": RandomSampler, "kwargs": None},
        "kwargs": {"batch_size": min(BATCH, count), "num_workers": 2, "drop_last": True, "persistent_workers": True},
    }


SGD = {"key": "SGD", "kwargs": {"lr": LR, "momentum": 0.9, "weight_decay": 1e-4}}


def train(box: Any, model: torch.nn.Module, job: Job, size: int, until: float) -> Best:
    """Train until so many seconds of the job are gone. The best weights on val are those that stay."""
    best, val = Best(), job.photos("val")
    box.pre_epoch_process(epoch=0)
    batches = endless(box.train_data_loader)

    def step(gone: float) -> None:
        model.train()
        for group in box.optimizer.param_groups:
            group["lr"] = LR * (1 + math.cos(math.pi * gone)) / 2
        pixels, labels, more = next(batches)
        known = bool((labels != UNLABELED).any())
        loss = box.forward_process(pixels, labels if known else None, more)
        box.post_forward_process(loss=loss)

    train_for(until - job.elapsed, step, lambda: best.see(model, accuracy(model, val, size)))
    model.load_state_dict(best.state)
    return best


def main() -> None:
    """Teacher, then student."""
    job = Job()
    torch.manual_seed(job.seed)
    labeled, cpu = job.photos("train"), torch.device("cpu")
    teacher, student = teacher_of(job), student_of(job)
    cross_entropy = {
        "criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}},
        "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": {"input": INPUT, "target": {"uses_label": True}}},
        "weight": 1.0,
    }
    teaching = {
        "num_epochs": 1,
        "train_data_loader": loading(len(labeled)),
        "model": {"sequential": [], "forward_proc": "forward_batch_only"},
        "optimizer": SGD,
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"ce": cross_entropy}}},
    }
    box = get_training_box(teacher, {"photos": photos_at(labeled, TEACHER_SIZE)}, teaching, cpu, None, False, 1)
    taught = train(box, teacher, job, TEACHER_SIZE, TEACHER_SHARE * job.seconds)
    box.clean_modules()
    teacher.eval()  # torchdistill leaves a teacher in the mode that it finds
    photos = labeled + job.unlabeled()
    loss = {"key": "KDLoss", "kwargs": {**WHOLE, **TEACHERS, "temperature": TEMPERATURE, "alpha": ALPHA}}
    distilling = {
        "num_epochs": 1,
        "train_data_loader": loading(len(photos)),
        "teacher": {"sequential": [], "forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"sequential": [], "forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": SGD,
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}}},
    }
    box = get_distillation_box(teacher, student, {"photos": photos_at(photos, SIZE)}, distilling, cpu, None, False, 1)
    best = train(box, student, job, SIZE, job.seconds)
    box.clean_modules()
    settings = (
        f"teacher fine-tuned {TEACHER_SHARE:.0%} of the time, then KDLoss, alpha {ALPHA}, T {TEMPERATURE:g}, both SGD "
        f"{LR}, momentum 0.9, cosine, random resized crop and flip, batch {BATCH}, unlabeled photos without targets, "
        "best of 13 checks on val"
    )
    found = predictions(student, job.photos("test"))
    job.finish(found, ["torchdistill", "torch"], settings, val=best.accuracy, teacher_val=taught.accuracy)


if __name__ == "__main__":
    main()
