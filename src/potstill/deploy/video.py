"""The frames of a video, as photos. Needs PyAV: `pip install 'potstill[video]'`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from potstill.errors import DataError

_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".flv", ".mpg", ".mpeg", ".3gp", ".mts", ".m2ts"}
)


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name."""
    return path.suffix.lower() in _SUFFIXES


def require_reader(path: Path) -> Any:
    """PyAV. Raises DataError where it is not installed."""
    try:
        import av
    except ModuleNotFoundError:
        raise DataError(
            f"{path} is a video; its frames are read by PyAV, which is not installed: pip install 'potstill[video]'"
        ) from None
    return av


def frames(path: Path, every: float) -> Iterator[tuple[float, np.ndarray]]:
    """The frames of a video, upright, one every so many seconds, and the second of each.

    Args:
        every: 0 takes all frames.
    Yields:
        Seconds from the beginning, and (H, W, 3) uint8 RGB.
    Raises:
        DataError: PyAV is missing, or the file cannot be read as a video. Frames before a damaged place are given.
    """
    av = require_reader(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} has no pictures in it.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            due = 0.0
            for number, frame in enumerate(container.decode(stream)):
                seconds = float(frame.time) if frame.time is not None else float(number)
                if seconds + 1e-6 < due:
                    continue
                yield seconds, np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                # By the grid, not from the last frame: a frame that comes late must not shift all that follow.
                due = max(due + every, seconds - every) if every else 0.0
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path} cannot be read as a video: {error.strerror or error}.") from None


def expected_frames(path: Path, every: float) -> int:
    """About how many frames `frames` will give, for a progress bar; 0 where the file does not tell."""
    av = require_reader(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return 0
            seconds = (container.duration or 0) / 1e6
            return int(seconds / every) + 1 if every else int(container.streams.video[0].frames)
    except (av.FFmpegError, OSError):
        return 0
