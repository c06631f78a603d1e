"""The process that `guard` starts for one photo: file on stdin; facts as a line of JSON, then the pixels, on stdout."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from potstill.images.decode import decode_here, extent_here
from potstill.images.depth import GrayLevels
from potstill.images.errors import BadPhotoError
from potstill.images.guard import NO_MEMORY
from potstill.processes.watch import end_with

Found = tuple[dict[str, Any], Image.Image | None]


def decoded(data: bytes, *, gray: dict[str, list[float]], **options: Any) -> Found:
    """A picture, and what the file was."""
    found = decode_here(data, gray=GrayLevels.of(gray), **options)
    facts = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.name != "image"}
    return facts, found.image


def extent(data: bytes) -> Found:
    """The gray values, where there are more than 8 bits."""
    found = extent_here(data)
    return {} if found is None else dataclasses.asdict(found), None


WORK: dict[str, Callable[..., Found]] = {"decoded": decoded, "extent": extent}


def main(work: str, options: str, seconds: str, megabytes: str, parent: str) -> int:
    """Do the work on the photo on stdin, within these limits."""
    end_with(int(parent))
    data, output = sys.stdin.buffer.read(), sys.stdout.buffer
    _limit(int(seconds), int(megabytes))
    try:
        facts, image = WORK[work](data, **json.loads(options))
        if image is not None:
            facts["size"] = image.size
        _line(output, facts)
        if image is not None:
            output.write(image.tobytes())
    except BadPhotoError as error:
        _line(output, {"code": error.code, "reason": error.reason})
    except MemoryError:
        return NO_MEMORY
    output.flush()
    return 0


def _line(output: BinaryIO, values: dict[str, Any]) -> None:
    output.write(json.dumps(values).encode() + b"\n")


def _limit(seconds: int, megabytes: int) -> None:
    """Hold this process to so much of a core and of memory, beside what it has taken already."""
    try:
        import resource
    except ImportError:  # Windows: `guard` watches the clock only
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds += int(used.ru_utime + used.ru_stime)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    pages = Path("/proc/self/statm")
    if pages.is_file():
        now = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 10**6, now + megabytes * 10**6))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
