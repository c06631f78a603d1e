"""TensorBoard: `tensorboard --logdir RUN/tracking/tensorboard` shows one curve per training."""

from pathlib import Path
from typing import Any

from potstill.monitoring.trackers.registry import register


class TensorBoard:
    """A tracker, see `registry.Tracker`."""

    def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
        self.id = name
        self._folder, self._writers = folder / "tensorboard", dict[str, Any]()

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        for key, value in values.items():
            self._writers[name].add_scalar(key, value, step)
        self._writers[name].flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


register("tensorboard", TensorBoard, package="tensorboard")
