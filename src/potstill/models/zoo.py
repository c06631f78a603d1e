"""Names of models: presets for teachers, classic students that timm has no name for, and building the bare network."""

import difflib
import warnings
from collections.abc import Mapping
from typing import Any

import timm
from timm.models.efficientnet import _gen_mobilenet_v1
from torch import nn

from potstill.errors import ModelError

PRESETS: dict[str, tuple[str, str]] = {
    "densenet201": ("densenet201", "DenseNet-201, the classic teacher"),
    "densenet121": ("densenet121", "DenseNet-121"),
    "inception_v3": ("inception_v3", "Inception-v3, 299 px"),
    "xception": ("legacy_xception", "Xception as first published, 299 px"),
    "vgg19": ("vgg19", "VGG-19"),
    "resnet50": ("resnet50", "ResNet-50 with timm's modern weights"),
    "inception_resnet_v2": ("inception_resnet_v2", "Inception-ResNet-v2, 299 px"),
    "convnext": ("convnext_tiny.fb_in22k_ft_in1k", "ConvNeXt-T, 22,000 classes seen"),
    "dinov2": ("vit_small_patch14_dinov2.lvd142m", "DINOv2 ViT-S/14 at 224 px, self-supervised"),
    "dinov3": ("vit_small_patch16_dinov3.lvd1689m", "DINOv3 ViT-S/16, self-supervised (license: DINOv3)"),
    "efficientnet": ("tf_efficientnetv2_s.in21k_ft_in1k", "EfficientNetV2-S"),
    "efficientnet_lite0": ("tf_efficientnet_lite0", "EfficientNet-Lite0, also as a weight package"),
    "efficientnet_lite1": ("tf_efficientnet_lite1", "EfficientNet-Lite1, also as a weight package"),
    "efficientnet_lite2": ("tf_efficientnet_lite2", "EfficientNet-Lite2, also as a weight package"),
}
"""Short names for teachers: Potstill's name → (timm's name, what it is)."""

PRESET_SIZES = {"dinov2": 224}

TENSORFLOW: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

CLASSICS: dict[str, tuple[str, dict[str, Any], int]] = {
    **{
        f"mobilenetv1_{round(100 * width):03d}": (
            "mobilenetv1",
            {"channel_multiplier": width, "pad_type": "same"},
            size,
        )
        for width, size in ((0.25, 128), (0.5, 160), (0.75, 192))
    },
    "tf_mobilenetv1_100": ("mobilenetv1", {"channel_multiplier": 1.0, "pad_type": "same"}, 224),
    "tf_mobilenetv2_100": ("mobilenetv2_100", {"pad_type": "same"}, 224),
}
"""Students that timm has no name for: TensorFlow's MobileNets, with its padding and inputs in −1…1.
Name → (timm architecture, arguments, size)."""

SMALL = ("mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small", "mobilenetv2_100")
"""Names in timm that students usually have."""


def construct(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network with random weights and its original classifier.

    Args:
        architecture: timm's name, or `mobilenetv1` with a channel_multiplier.
        arguments: for its constructor.
    """
    if architecture == "mobilenetv1":
        return _gen_mobilenet_v1("mobilenetv1_100", **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns of renamed models and of window sizes; neither concerns the user
        try:
            return timm.create_model(architecture, pretrained=False, **arguments)
        except RuntimeError as error:
            raise ModelError(f"timm cannot build {architecture!r}: {error}") from None


def near(name: str) -> str:
    """` Near: a, b.` or an empty text."""
    usual = difflib.get_close_matches(name, [*PRESETS, *CLASSICS, *SMALL], n=2, cutoff=0.6)
    others = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.6)
    found = list(dict.fromkeys([*usual, *others]))[:3]  # some presets are timm names, too
    return f" Near: {', '.join(found)}." if found else ""


def matching(pattern: str) -> list[str]:
    """Names in timm that fit a pattern with * for any text."""
    return list(timm.list_models(pattern))
