"""LightlyTrain: distillation of the teacher's features on all photos, then its classifier on the labeled ones.

Its classifier learns from labels only, so the teacher stays as ImageNet made it and is not trained on the labels. How
many epochs and steps fit into the minutes is measured by short runs before; these do not count.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightly_train
import torch
from common import SIZE, Job
from torch_common import MEAN, STD, imagenet_model

PRETRAIN_SHARE = 0.6
"""Of the time, for distillation; fine-tuning has the rest."""
BATCH, FINE_BATCH = 128, 16
"""The defaults of both steps."""
NORMALIZE = {"mean": MEAN, "std": STD}


class Backbone(torch.nn.Module):
    """A custom model of LightlyTrain. Its own wrapper (0.18) of timm's EfficientNets takes the features before the last
    convolution and expects as many as there are after it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def get_model(self) -> Any:
        return self.model

    def feature_dim(self) -> int:
        return int(self.model.num_features)

    def forward_features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"features": self.model.forward_features(x)}

    def forward_pool(self, x: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"pooled_features": x["features"].mean((2, 3), keepdim=True)}


def folder_of_all(job: Job) -> tuple[Path, int]:
    """One folder of links to the photos of train and unlabeled, and how many there are."""
    folder = job.out / "photos"
    folder.mkdir()
    photos = job.photos("train") + job.unlabeled()
    for path, _ in photos:
        (folder / path.name).symlink_to(path.resolve())
    return folder, len(photos)


def pretrain(job: Job, photos: Path, batch: int, epochs: int, out: Path) -> None:
    """Distill the teacher's features into the student, from ImageNet weights."""
    lightly_train.pretrain(
        out=out,
        data=photos,
        model=imagenet_model("mobilenetv1_025", job.work / "student.safetensors"),
        method="distillation",
        method_args={"teacher": Backbone(imagenet_model("tf_efficientnet_lite0", job.work / "teacher.safetensors"))},
        epochs=epochs,
        batch_size=batch,
        num_workers=2,
        accelerator="cpu",
        precision="32-true",
        seed=job.seed,
        transform_args={"normalize": NORMALIZE},
        overwrite=True,
    )


def finetune(job: Job, backbone: Path, steps: int, out: Path) -> None:
    """Train the classifier on the labeled photos; it is judged on val about ten times."""
    lightly_train.train_image_classification(
        out=out,
        data={
            "train": str(job.work / "train"),
            "val": str(job.work / "val"),
            "classes": dict(enumerate(job.classes)),
        },
        model="timm/mobilenetv1_025",
        model_args={"backbone_weights": str(backbone)},
        steps=steps,
        batch_size=FINE_BATCH,
        num_workers=2,
        accelerator="cpu",
        precision="32-true",
        seed=job.seed,
        transform_args={"image_size": (SIZE, SIZE), "normalize": NORMALIZE},
        logger_args={"val_every_num_steps": max(1, steps // 10), "log_every_num_steps": max(1, steps // 10)},
        overwrite=True,
    )


def rate(train: Callable[[int], Any], short: int, long: int) -> tuple[float, float]:
    """(seconds to start, seconds for each further epoch or step), from two short runs."""
    seconds = []
    for count in (short, long):
        started = time.perf_counter()
        train(count)
        seconds.append(time.perf_counter() - started)
    each = max((seconds[1] - seconds[0]) / (long - short), 1e-3)
    return max(0.0, seconds[0] - short * each), each


def main() -> None:
    """Distill, then fine-tune."""
    job = Job()
    torch.manual_seed(job.seed)
    photos, count = folder_of_all(job)
    batch, trial = min(BATCH, count), job.out / "trial"
    start, each = rate(lambda epochs: pretrain(job, photos, batch, epochs, trial), 1, 3)
    epochs = max(1, int((PRETRAIN_SHARE * job.seconds - start) / each))
    backbone = trial / "exported_models" / "exported_last.pt"
    start, each = rate(lambda steps: finetune(job, backbone, steps, job.out / "trial-2"), 5, 25)

    job.started = time.perf_counter()
    pretrain(job, photos, batch, epochs, job.out / "pretrain")
    left = job.seconds - job.elapsed - start
    steps = max(1, int(left / each))
    backbone = job.out / "pretrain" / "exported_models" / "exported_last.pt"
    finetune(job, backbone, steps, job.out / "finetune")
    spent = job.elapsed
    exported = job.out / "finetune" / "exported_models"
    best = exported / "exported_best.pt"
    model = lightly_train.load_model(str(best if best.is_file() else exported / "exported_last.pt"), device="cpu")
    found = [int(model.predict(str(path))["labels"][0]) for path, _ in job.photos("test")]
    for name in ("trial", "trial-2", "photos"):
        shutil.rmtree(job.out / name)
    settings = (
        f"features of the ImageNet teacher distilled into the student on all photos {PRETRAIN_SHARE:.0%} of the time "
        f"({epochs} epochs, batch {batch}, its defaults), then its classifier on the labeled ones ({steps} steps, "
        f"batch {FINE_BATCH}, its defaults, {SIZE} px, best of ten checks on val)"
    )
    job.started = time.perf_counter() - spent  # what came after the training does not count
    job.finish(found, ["lightly-train", "timm", "torch"], settings)


if __name__ == "__main__":
    main()
