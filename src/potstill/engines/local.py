"""This machine: a process for each task, and GPUs by turns."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from potstill.processes.child import Child

VISIBLE = "CUDA_VISIBLE_DEVICES"


class LocalEngine:
    """Tasks in processes of their own. Where there are several GPUs, each task sees those that have the least to do."""

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        """`gpus` as CUDA_VISIBLE_DEVICES names them; none where all tasks share one device."""
        self.gpus = tuple(gpus)
        self._started: list[tuple[Child, list[str]]] = []

    @property
    def has_one_device(self) -> bool:
        return len(self.gpus) < 2

    def room(self, processes: int) -> int | None:
        return None if self.has_one_device else len(self.gpus) // processes

    def describe(self) -> list[str]:
        return [] if self.has_one_device else [f"GPUs: {len(self.gpus)}"]

    def start(self, module: str, job: Path, *, threads: int, processes: int = 1) -> Child:
        gpus = self._idlest(processes)
        child = Child.start(module, job, threads=threads, environment={VISIBLE: ",".join(gpus)} if gpus else None)
        self._started.append((child, gpus))
        return child

    def _idlest(self, number: int) -> list[str]:
        """So many GPUs, those with the fewest tasks first."""
        self._started = [(child, gpus) for child, gpus in self._started if not child.has_ended]
        tasks = Counter(gpu for _, gpus in self._started for gpu in gpus)
        return sorted(self.gpus, key=lambda gpu: tasks[gpu])[:number]


def visible_gpus(count: int) -> list[str]:
    """The names of the GPUs that this process may use, of which there are so many."""
    names = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return names[:count] if names else [str(number) for number in range(count)]
