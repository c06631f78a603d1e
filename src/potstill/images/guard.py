"""Photos that may take long, or much memory, are decoded in a process of their own, which has limits of both.

Nearly all photos are light: their size, their format and the length of the file promise that decoding them takes
little, and they are decoded where they are needed. Whatever else a file promises or hides, such as a header that makes
a decoder loop, it costs a rejected photo and not the run.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from PIL import Image

from potstill.errors import PotstillError
from potstill.images.errors import BadPhotoError
from potstill.images.formats import Opened
from potstill.processes.cores import available_cores

SECONDS = 20
"""Of a core: what decoding one photo may take."""
MEGABYTES = 1500
"""Of memory, beside the file itself. Held on Linux only."""

LIGHT_BYTES = 16 * 2**20
"""Files up to this size are opened where they are needed."""
LIGHT_PIXELS = 16_000_000
_FEW_PIXELS = {"JPEG2000": 2_000_000}
"""Of formats that take longer."""
_PLAIN, _PLAIN_PIXELS = (b"P1", b"P2", b"P3"), 250_000
"""PPM files whose pixels are numbers as text, which Pillow reads one by one."""
_LIGHT_JPEG_PIXELS = 64_000_000
_LIGHT_JPEG_WORK = 320_000_000
"""Pixels times scans: each scan of a progressive JPEG goes over all of them."""
_WAITING_FACTOR = 10
"""The wall clock may run so much longer than the core: the machine may be busy."""

_MODULE = "potstill.images.guarded"
NO_MEMORY = 75
"""Its exit code where the memory was not enough."""

_OUTSIDE = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None), getattr(signal, "SIGKILL", None))
"""Signals that people and systems send. A decoder that fails ends with others."""

_turns = threading.BoundedSemaphore(max(1, min(4, available_cores())))
"""So many at a time, for the sake of memory."""


def is_light(opened: Opened) -> bool:
    """Whether the file's header promises that decoding it takes little."""
    pixels = opened.image.width * opened.image.height
    if opened.segments is not None:
        return pixels <= _LIGHT_JPEG_PIXELS and pixels * max(1, len(opened.segments.scans)) <= _LIGHT_JPEG_WORK
    if opened.data.startswith(_PLAIN):
        return pixels <= _PLAIN_PIXELS
    return pixels <= _FEW_PIXELS.get(opened.image.format or "", LIGHT_PIXELS)


def in_own_process(work: str, data: bytes, options: Mapping[str, Any]) -> tuple[dict[str, Any], Image.Image | None]:
    """Let `potstill.images.guarded` work on a photo file.

    Args:
        work: of its WORK.
        options: plain values, for that function.
    Returns:
        Facts, and an RGB picture where the function makes one.
    Raises:
        BadPhotoError: what the function raises; `too_large` where it takes too much time or memory, `corrupt` where the
            decoder crashes.
        PotstillError: somebody ended the process.
    """
    limits = [str(SECONDS), str(MEGABYTES), str(os.getpid())]
    command = [sys.executable, "-m", _MODULE, work, json.dumps(dict(options)), *limits]
    with _turns, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                command, input=data, stdout=output, stderr=errors, timeout=_WAITING_FACTOR * SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise _too_slow() from None
        if done.returncode:
            errors.seek(0)
            raise _failure(done.returncode, errors.read().decode("utf-8", "replace"))
        output.seek(0)
        facts = json.loads(output.readline())
        if "code" in facts:
            raise BadPhotoError(facts["code"], facts["reason"])
        if "size" not in facts:
            return facts, None
        return facts, Image.frombytes("RGB", tuple(facts.pop("size")), output.read())


def _too_slow() -> BadPhotoError:
    return BadPhotoError("too_large", f"decoding it takes more than {SECONDS} s of a core; save a smaller copy")


def _failure(code: int, output: str) -> PotstillError:
    if -code == getattr(signal, "SIGXCPU", None):
        return _too_slow()
    if code == NO_MEMORY:
        return BadPhotoError(
            "too_large", f"decoding it takes more than {MEGABYTES:,} MB of memory; save a smaller copy"
        )
    if -code in _OUTSIDE:
        return PotstillError(f"The process that decoded a photo was ended by signal {-code}. Run again.")
    if code < 0:
        return BadPhotoError("corrupt", f"its decoder crashed (signal {-code})")
    last = output.strip().splitlines()[-1:] or [f"exit code {code}"]
    return BadPhotoError("corrupt", f"its decoder failed ({last[0]})")
