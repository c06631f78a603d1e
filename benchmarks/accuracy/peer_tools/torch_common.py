"""Student, teacher and photos for the tools that stand on torch and timm."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from common import SIZE, Job, Photo
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_loader
from timm.models import register_model
from timm.models.efficientnet import _gen_mobilenet_v1

MEAN = STD = (0.5, 0.5, 0.5)
"""Of student and teacher alike."""
TEACHER_SIZE = 224
BATCH = 64


@register_model
def mobilenetv1_025(pretrained: bool = False, **arguments: Any) -> torch.nn.Module:
    """MobileNet v1 ×0.25 with TensorFlow's padding, for which timm has no name."""
    arguments = {"channel_multiplier": 0.25, "pad_type": "same", **arguments}
    model = _gen_mobilenet_v1("mobilenetv1_100", **arguments)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": MEAN, "std": STD, "architecture": "mobilenetv1_025"}
    return model


def imagenet_model(name: str, weights: Path) -> Any:
    """A timm model with ImageNet weights; its head is that of timm where the file has none."""
    model = timm.create_model(name)
    missing = model.load_state_dict(load_file(weights), strict=False).missing_keys
    assert all(key.startswith("classifier") or key.endswith("num_batches_tracked") for key in missing), missing
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": MEAN, "std": STD}
    return model


def with_new_head(model: Any, classes: int) -> Any:
    """The model with a head for so many classes, which begins small: timm's own would begin far too large."""
    model.reset_classifier(classes)
    torch.nn.init.normal_(model.classifier.weight, std=0.01)
    torch.nn.init.zeros_(model.classifier.bias)
    return model


def student_of(job: Job) -> Any:
    """MobileNet v1 ×0.25."""
    return with_new_head(imagenet_model("mobilenetv1_025", job.work / "student.safetensors"), len(job.classes))


def teacher_of(job: Job) -> Any:
    """EfficientNet-Lite0."""
    return with_new_head(imagenet_model("tf_efficientnet_lite0", job.work / "teacher.safetensors"), len(job.classes))


class Photos(torch.utils.data.Dataset[Any]):
    """Photos by path, as timm's loader wants them."""

    def __init__(self, photos: list[Photo], transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.photos, self.transform = photos, transform

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.photos[index]
        with Image.open(path) as file:
            image = file.convert("RGB")
        return (self.transform(image) if self.transform else image), label


def plain_loader(photos: list[Photo], size: int) -> Any:
    """Whole photos, for evaluation, as timm crops them."""
    return create_loader(
        Photos(photos),
        size,
        BATCH,
        mean=MEAN,
        std=STD,
        interpolation="bicubic",
        crop_pct=0.875,
        num_workers=0,
        persistent_workers=False,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )


def predictions(model: torch.nn.Module, photos: list[Photo], size: int = SIZE) -> list[int]:
    """The class that the model gives to each photo."""
    model.eval()
    with torch.inference_mode():
        return [int(label) for pixels, _ in plain_loader(photos, size) for label in model(pixels).argmax(-1)]


def accuracy(model: torch.nn.Module, photos: list[Photo], size: int = SIZE) -> float:
    """Share of photos that the model gets right."""
    found = predictions(model, photos, size)
    return sum(label == true for label, (_, true) in zip(found, photos, strict=True)) / len(photos)


class Best:
    """The weights with the highest accuracy on val so far."""

    def __init__(self) -> None:
        self.accuracy = -1.0
        self.state: dict[str, torch.Tensor] = {}

    def see(self, model: torch.nn.Module, accuracy: float) -> None:
        """Keep the weights if they are the best ones."""
        if accuracy >= self.accuracy:
            self.accuracy = accuracy
            self.state = {name: tensor.clone() for name, tensor in model.state_dict().items()}


def endless(loader: Any) -> Iterator[Any]:
    """The batches of a loader, over and over."""
    while True:
        yield from loader
