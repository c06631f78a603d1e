"""What an engine is, and the loop that keeps one busy."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from potstill.processes.group import Meeting
from potstill.run.files import read_json, write_json

_POLL_SECONDS = 0.1


class Task(Protocol):
    """Work that an engine has started."""

    @property
    def has_ended(self) -> bool:
        """Whether it has, well or not."""
        ...

    def check(self) -> None:
        """Wait for the end. Raises the PotstillError that the work raised, or ChildCrashError."""
        ...

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        ...


class Engine(Protocol):
    """Where work runs."""

    @property
    def has_one_device(self) -> bool:
        """Whether it is this machine, with one device: short work may as well be done in this process."""
        ...

    @property
    def largest_node(self) -> int:
        """The most processes, with one core or one GPU each, that a single machine has room for."""
        ...

    def room(self, processes: int) -> int | None:
        """How many tasks, of so many processes with one core or one GPU each, run at the same time; None where the
        machine's settings tell. 0: not even one.

        Tasks that fit on one machine do not wait for parts of several.
        """
        ...

    def nodes_without(self, files: Sequence[Path]) -> list[str] | None:
        """The names of the nodes that do not see these files as this machine does; None where there is no other
        machine."""
        ...

    def describe(self) -> list[str]:
        """The engine as lines to print; none for this machine."""
        ...

    def start(self, module: str, job: Path, *, threads: int, processes: int = 1) -> Task:
        """Let `work(job)` of a module begin, as soon as there is room.

        Args:
            job: a JSON file, alone in its folder as far as jobs are concerned.
            threads: CPU cores that each of its processes uses.
            processes: that work on it together, each with a GPU of its own where work runs on GPUs. Where there are
                several, each works on a file of its own, see `write_jobs`.
        """
        ...


def write_jobs(job: Path, processes: int, meeting: Meeting) -> list[Path]:
    """Write the files for the processes of a task: its own values, and `rank`, `processes` and `meeting`."""
    values = read_json(job)
    jobs = [job.parent / f"rank-{rank}" / job.name for rank in range(processes)]
    for rank, path in enumerate(jobs):
        path.parent.mkdir(exist_ok=True)
        write_json(path, {**values, "rank": rank, "processes": processes, "meeting": asdict(meeting)})
    return jobs


def run_all(
    engine: Engine,
    module: str,
    jobs: Sequence[Path],
    *,
    threads: int,
    processes: int = 1,
    at_once: int,
    ended: Callable[[Path, Task], None],
    watch: Callable[[], None],
) -> None:
    """Run jobs, so many at a time, to their end. All are stopped where one fails or this process is interrupted.

    Args:
        ended: gets each job that has ended, and its task to check.
        watch: called now and then, for progress.
    """
    waiting, running = list(jobs), dict[Path, Task]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[job] = engine.start(module, job, threads=threads, processes=processes)
            time.sleep(_POLL_SECONDS)
            for job in [job for job, task in running.items() if task.has_ended]:
                ended(job, running.pop(job))
            watch()
    finally:
        for task in running.values():
            task.stop()
