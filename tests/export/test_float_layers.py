"""How the formats find the layers that stay float, by the names that their tools give."""

import re

import numpy as np
import pytest

from potstill.export.formats.litert import scope_pattern
from potstill.export.int8.quantization import Quantization

LAYERS = ("conv_stem", "blocks.2.1.conv_pw", "classifier")

NET = "potstill.deploy.deployable.FixedSize/timm.models.efficientnet.EfficientNet_net"
BLOCKS = f"{NET}/torch.nn.modules.container.Sequential_blocks/torch.nn.modules.container"
BLOCK = "timm.models._efficientnet_blocks.InvertedResidual"

SCOPES = {
    f"{NET}/timm.layers.norm_act.BatchNormAct2d_bn1;;{NET}/timm.layers.conv2d_same.Conv2dSame_conv_stem;1": True,
    f"{BLOCKS}.Sequential_2/{BLOCK}_1/torch.nn.modules.conv.Conv2d_conv_pw;2": True,
    f"{NET}/torch.nn.modules.linear.Linear_classifier;": True,
    f"{BLOCKS}.Sequential_2/{BLOCK}_1/torch.nn.modules.conv.Conv2d_conv_pwl;2": False,
    f"{BLOCKS}.Sequential_2/{BLOCK}_10/torch.nn.modules.conv.Conv2d_conv_pw;2": False,
    f"{BLOCKS}.Sequential_12/{BLOCK}_1/torch.nn.modules.conv.Conv2d_conv_pw;2": False,
}
"""As LiteRT's converter writes them."""


@pytest.mark.parametrize("scope", SCOPES)
def test_litert_scopes(scope: str) -> None:
    assert bool(re.search(scope_pattern(LAYERS), scope)) is SCOPES[scope]


@pytest.mark.parametrize(
    ("weight", "kept"),
    [
        ("net.conv_stem.weight", True),  # ONNX
        ("deployable.net.blocks.2.1.conv_pw.weight", True),  # OpenVINO's ONNX file, torch.export
        ("deployable.net.blocks.12.1.conv_pw.weight", False),
        ("net.blocks.2.1.conv_pwl.weight", False),
        ("net.blocks.2.1.conv_pw.bias", False),
    ],
)
def test_names_of_weights(weight: str, kept: bool) -> None:
    how = Quantization(photos=np.zeros((1, 8, 8, 3), np.uint8), float_layers=LAYERS)
    assert how.keeps(weight) is kept
