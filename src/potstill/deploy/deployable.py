"""A trained model as it is deployed: one uint8 RGB photo of any size in, class probabilities out.

The preprocessing is part of the module, so `predict`, every exported file and the page in the browser do the same:
center square (or as much of its middle as `crop_pct` says), antialiased bilinear resize to the input size, rounded to
whole gray levels (`potstill.data.resize`), normalized, softmax (or where photos may have several labels, sigmoid) of
the logits divided by the temperature that was fitted on val.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.data.resize import ROUND_UP_FROM, crop_side
from potstill.models.classifier import Classifier, probabilities
from potstill.models.onnx_classifier import OnnxClassifier


class Deployable(nn.Module):
    """(H, W, 3) uint8, upright RGB → (1, C) float32 probabilities."""

    def __init__(self, model: Classifier, *, temperature: float = 1.0, shift: Sequence[float] = ()) -> None:
        super().__init__()
        # A teacher's head may see more than the bare network gives it, and an ONNX file has no network.
        self.net = model if model.info.feature_stages or isinstance(model, OnnxClassifier) else model.net
        self.size = model.info.size
        self.crop = model.info.crop_pct
        self.temperature = temperature
        self.several_labels = model.info.several_labels
        self.dtype = torch.float32
        self.mean: Tensor
        self.std: Tensor
        self.shift = torch.tensor(shift) if shift else None
        self.register_buffer("mean", 255 * torch.tensor(model.info.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(model.info.std).view(1, 3, 1, 1))

    def forward(self, photo: Tensor) -> Tensor:
        return self.probabilities(self.prepare(photo))

    def prepare(self, photo: Tensor) -> Tensor:
        """(H, W, 3) uint8 → (1, 3, S, S) float32 in whole gray levels 0…255."""
        pixels = photo.permute(2, 0, 1).unsqueeze(0).float()
        height, width = photo.shape[0], photo.shape[1]
        side = torch.sym_min(height, width)
        if self.crop < 1:
            side = crop_side(side, self.crop)  # type: ignore[arg-type]  # a symbol while exporting
        # narrow, not slicing: slices give exporters sizes that they cannot reason about.
        pixels = pixels.narrow(2, (height - side) // 2, side).narrow(3, (width - side) // 2, side)
        pixels = F.interpolate(
            pixels, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
        )
        return (pixels + (1 - ROUND_UP_FROM)).floor().clamp(0, 255)

    def probabilities(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) gray levels 0…255 → (B, C)."""
        normalized = ((pixels - self.mean) / self.std).to(self.dtype)
        logits = self.net(normalized).float()
        if self.shift is not None:
            logits = logits + self.shift
        return probabilities(logits / self.temperature, several_labels=self.several_labels)

    def half_net(self) -> "Deployable":
        """A copy whose network computes in float16. Preprocessing and softmax stay float32."""
        other = copy.deepcopy(self)
        other.net = other.net.half()
        other.dtype = torch.float16
        return other


class FixedSize(nn.Module):
    """(S, S, 3) uint8, resized by the caller → (1, C): for formats whose files take one size only."""

    def __init__(self, deployable: Deployable) -> None:
        super().__init__()
        self.deployable = deployable

    def forward(self, photo: Tensor) -> Tensor:
        return self.deployable.probabilities(photo.permute(2, 0, 1).unsqueeze(0).float())
