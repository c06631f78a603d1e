"""On what device, in which arithmetic and in which runtime a model computes."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Precision:
    """On what and in which arithmetic to compute."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    runtime: str = "torch"
    """Of inference: "torch", or the name of another backend."""
    batch: int = 32
    """Photos in one inference step."""

    @classmethod
    def on(cls, device: str) -> "Precision":
        """float32 on this device."""
        return cls(torch.device(device))

    @property
    def name(self) -> str:
        """The arithmetic as settings and files call it: "float32" or "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Matrix products and convolutions in `dtype`; weights stay float32."""
        if self.dtype == torch.float32:
            yield
        else:
            with torch.autocast(self.device.type, self.dtype):
                yield
