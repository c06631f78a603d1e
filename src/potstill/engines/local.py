"""This machine: a process, or several, for each task, and GPUs by turns."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from potstill.engines.engine import Task, write_jobs
from potstill.processes.child import OUTPUT, Child, limits
from potstill.processes.forkserver import ForkServer
from potstill.processes.group import ChildGroup, Meeting

VISIBLE = "CUDA_VISIBLE_DEVICES"


class LocalEngine:
    """Tasks in processes of their own. Where there are several GPUs, each process sees the one that has the least to
    do."""

    def __init__(self, gpus: Sequence[str] = (), *, fork: str | None = None) -> None:
        """With `fork`, close it after use.

        Args:
            gpus: as CUDA_VISIBLE_DEVICES names them; none where all tasks share one device.
            fork: tasks of one process begin as forks of a process of this title, see `potstill.processes.forkserver`;
                None: each in a new process.
        """
        self.gpus = tuple(gpus)
        self.fork = fork
        self._servers: dict[int, ForkServer] = {}
        self._started: list[tuple[Task, list[str]]] = []

    def close(self) -> None:
        """End the processes that wait for tasks."""
        while self._servers:
            self._servers.popitem()[1].close()

    @property
    def has_one_device(self) -> bool:
        return len(self.gpus) < 2

    @property
    def largest_node(self) -> int:
        return len(self.gpus)

    def room(self, processes: int) -> int | None:
        return None if self.has_one_device else len(self.gpus) // processes

    def nodes_without(self, files: Sequence[Path]) -> None:
        return None

    def describe(self) -> list[str]:
        return [] if self.has_one_device else [f"GPUs: {len(self.gpus)}"]

    def start(self, module: str, job: Path, *, threads: int, processes: int = 1) -> Task:
        if self.fork is not None and processes == 1:
            output = job.with_name(OUTPUT)
            return Child(self._server(threads).start(module, job, output), output)
        gpus = self._idlest(processes)
        environments = [{VISIBLE: gpu} for gpu in gpus] or [{}] * processes
        task: Task
        if processes == 1:
            task = Child.start(module, job, threads=threads, environment=environments[0])
        else:
            task = _start_group(module, job, threads, environments)
        self._started.append((task, gpus))
        return task

    def _server(self, threads: int) -> ForkServer:
        """For tasks of so many threads: OpenMP takes the number from the environment that it is loaded in."""
        assert self.fork is not None
        if threads in self._servers and self._servers[threads].has_ended:
            self._servers.pop(threads).close()
        if threads not in self._servers:
            self._servers[threads] = ForkServer({**os.environ, **limits(threads)}, self.fork)
        return self._servers[threads]

    def _idlest(self, number: int) -> list[str]:
        """So many GPUs, those with the fewest tasks first."""
        self._started = [(task, gpus) for task, gpus in self._started if not task.has_ended]
        tasks = Counter(gpu for _, gpus in self._started for gpu in gpus)
        return sorted(self.gpus, key=lambda gpu: tasks[gpu])[:number]


def _start_group(module: str, job: Path, threads: int, environments: Sequence[Mapping[str, str]]) -> ChildGroup:
    """Start a process for each environment."""
    meeting = Meeting.at("127.0.0.1")
    try:
        jobs = write_jobs(job, len(environments), meeting)
        return ChildGroup.start(module, jobs, threads=threads, meeting=meeting, environments=environments)
    finally:
        os.close(meeting.listener)


def visible_gpus(count: int) -> list[str]:
    """The names of the GPUs that this process may use, of which there are so many."""
    names = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return names[:count] if names else [str(number) for number in range(count)]
