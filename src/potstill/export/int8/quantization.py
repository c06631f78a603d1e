"""What an int8 file is made with: the photos that show the range of every activation, and which layers stay float."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """One way to make an int8 file. Weights are always int8 per output channel, activations 8 bits per tensor."""

    photos: np.ndarray
    """(N, S, S, 3) uint8: training views at the input size, run once to see the range of every activation."""
    percentile: bool = False
    """Take the 99.999th percentile as the end of a range, where the tool can, not the most extreme value."""
    float_layers: tuple[str, ...] = ()
    """Names of layers within the network that stay in float (`potstill.export.int8.sensitivity`)."""

    def keeps(self, weight: str) -> bool:
        """Whether the layer with the weight of this name, as torch's exporters write it, stays in float."""
        return any(weight.endswith(f"net.{name}.weight") for name in self.float_layers)
