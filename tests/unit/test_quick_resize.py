"""Photos shrunk by torch's kernel for bytes are those that Pillow makes."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tests.support import environment

from potstill.compute.quick_resize import quick_bicubic
from potstill.data.resize import bicubic


def picture(width: int, height: int) -> Image.Image:
    """Edges, ramps and noise in all channels."""
    values = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize(
    ("size", "target"), [((256, 208), (181, 147)), ((208, 256), (120, 147)), ((640, 480), (196, 147))]
)
def test_it_differs_from_pillow_by_rounding_only(size: tuple[int, int], target: tuple[int, int]) -> None:
    ours, pillow = quick_bicubic(picture(*size), target), bicubic(picture(*size), target)
    assert ours.size == target
    assert ours.mode == "RGB"
    difference = np.asarray(ours).astype(int) - np.asarray(pillow)
    assert np.abs(difference).max() <= 2
    assert (difference != 0).mean() < 0.02
    assert abs(difference.mean()) < 0.005


def test_far_smaller_pictures_are_pillows_own() -> None:
    large = picture(1200, 960)
    assert quick_bicubic(large, (100, 80)).tobytes() == bicubic(large, (100, 80)).tobytes()


CODE = """
import hashlib
from tests.unit.test_quick_resize import picture
from potstill.compute.quick_resize import quick_bicubic
print(hashlib.sha256(quick_bicubic(picture(256, 208), (181, 147)).tobytes()).hexdigest())
"""


def test_processors_without_vectors_make_the_same_pixels() -> None:
    here = hashlib.sha256(quick_bicubic(picture(256, 208), (181, 147)).tobytes()).hexdigest()
    plain = {**environment(), "ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=plain, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == here
