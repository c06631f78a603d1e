"""An ONNX classifier in the place of a timm model: pixels in, logits of the run's classes out.

It is stored like any model, with `model.onnx` for its weights. Only its outputs are known: it has no features that a
student could learn from, and cannot be trained.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from potstill.metrics.outputs import Outputs
from potstill.models.classifier import Classifier, ModelInfo
from potstill.models.onnx_file import OnnxSession, Signature


class OnnxClassifier(Classifier):
    """Logits from ONNX Runtime. What `features` gives are the logits already; the head leaves them as they are."""

    def __init__(self, info: ModelInfo, data: bytes) -> None:
        """Take a file and what is known of it.

        Args:
            info: its `arguments` are those of `arguments_of`.
            data: the bytes of the file.
        """
        nn.Module.__init__(self)
        self.info, known = info, info.arguments
        self.session = OnnxSession(data, Signature(**known["signature"]), info.name)
        self.outputs = Outputs(
            kind=known["output"],
            classes=len(info.classes),
            places=tuple(known["places"]),
            several_labels=info.several_labels,
        )
        self._as_bgr = known["channels"] == "bgr"
        self._identity = nn.Identity()

    @property
    def head(self) -> nn.Module:
        return self._identity

    @property
    def num_features(self) -> int:
        return self.outputs.classes

    @property
    def num_last_features(self) -> int:
        return 0

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalized pixels → (B, C) logits."""
        values = pixels.flip(1) if self._as_bgr else pixels
        found = self.session(values.float().cpu().numpy())
        return torch.from_numpy(self.outputs.logits(found)).to(pixels.device)


def arguments_of(
    signature: Signature, outputs: Outputs, *, channels: str, parameters: int, macs: int | None
) -> Mapping[str, Any]:
    """What model.json keeps of an ONNX classifier beside what it keeps of any model.

    Args:
        channels: "rgb" or "bgr".
        macs: None where they are not known.
    """
    return {
        "signature": asdict(signature),
        "output": outputs.kind,
        "places": list(outputs.places),
        "channels": channels,
        "parameters": parameters,
        "macs": macs,
    }
