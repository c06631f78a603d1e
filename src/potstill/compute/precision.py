"""On what device, in which arithmetic and in which runtime a model computes."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

NATIVE_BFLOAT16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "sve_bf16")
"""What torch calls the instructions for bfloat16: three of x86, two of ARM."""


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 itself. A processor without emulates it, ten times slower than float32.

    True where torch is too old to tell.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if device != "cpu" or capabilities is None:
        return True
    return any(capabilities().get(name) for name in NATIVE_BFLOAT16)


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
