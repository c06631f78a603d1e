"""This machine: a process for each task."""

from dataclasses import dataclass
from pathlib import Path

from potstill.processes.child import Child


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Tasks in processes of their own."""

    is_local = True
    room = None

    def describe(self) -> list[str]:
        return []

    def start(self, module: str, job: Path, *, threads: int) -> Child:
        return Child.start(module, job, threads=threads)
