"""A task of several processes on a Ray cluster: each is an actor, on one node or on several, whichever have room.

Actors and not tasks, because each process must be one of its own, and the first says where the others find it. Ray
starts no actor again by itself: where one is lost, all end, and the task begins again with new ones.
"""

import fcntl
import importlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from potstill import errors
from potstill.engines.engine import write_jobs
from potstill.errors import LostProcessError, PotstillError
from potstill.processes.child import ChildCrashError
from potstill.processes.group import GRACE_SECONDS, QUIET, Meeting, interfaces

RETRIES = 10
"""Times that a task is started again after its worker or node was lost."""

PAUSE_SECONDS = 5.0
"""Before it is: a node that was lost is not given work for long, once Ray has noticed."""

MISSING_SECONDS = 600.0
"""So long a task waits where nodes are gone and the others are too few, in case one comes back."""

_SIOCGIFADDR = 0x8915
"""Linux's request for the address of a network interface."""


class RayGroup:
    """Actors at work on one task. A thread of this process watches over them."""

    def __init__(self, module: str, job: Path, resources: Mapping[str, float], processes: int) -> None:
        """`resources` are those of each process."""
        self.module, self.job, self.processes = module, job, processes
        self.resources = {name: number for name, number in resources.items() if number}
        self._stopping = threading.Event()
        watch = ThreadPoolExecutor(1)
        self._result: Future[None] = watch.submit(self._run)
        watch.shutdown(wait=False)

    @property
    def has_ended(self) -> bool:
        return self._result.done()

    def check(self) -> None:
        self._result.result()

    def stop(self) -> None:
        self._stopping.set()
        self._result.exception()

    def _run(self) -> None:
        """Run the processes to their end, and again where one was lost."""
        for attempt in range(RETRIES + 1):
            try:
                with self._reserved() as group:
                    self._run_once(group)
                return
            except LostProcessError as error:
                lost = error
            if attempt < RETRIES and self._stopping.wait(PAUSE_SECONDS):
                return
        raise ChildCrashError(f"Ray: {lost}")

    @contextmanager
    def _reserved(self) -> Iterator[PlacementGroup]:
        """Room for all processes at once: half of them would wait for the others for ever."""
        group = placement_group([dict(self.resources)] * self.processes, strategy="PACK")
        missing_since = None
        try:
            while not group.wait(timeout_seconds=1) and not self._stopping.is_set():
                missing_since = (missing_since or time.monotonic()) if self._lacks_nodes() else None
                if missing_since and time.monotonic() - missing_since > MISSING_SECONDS:
                    raise PotstillError(
                        f"A training of {self.processes} processes waits for nodes that the Ray cluster has no longer. "
                        "Start them again, or lower machine.processes_per_training, and run the same command again."
                    )
            yield group
        finally:
            remove_placement_group(group)

    def _lacks_nodes(self) -> bool:
        there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = [min(int(has.get(name, 0) // number) for name, number in self.resources.items()) for has in there]
        return sum(room) < self.processes

    def _run_once(self, group: PlacementGroup) -> None:
        """Raises LostProcessError where a process was lost, and another PotstillError where one has failed."""
        if self._stopping.is_set():
            return
        actors = [self._actor(group, rank) for rank in range(self.processes)]
        try:
            meeting = self._meeting(actors[0])
            jobs = write_jobs(self.job, self.processes, meeting)
            asked = zip(actors, jobs, strict=True)
            failures = self._failures([actor.work.remote(self.module, str(path)) for actor, path in asked])
        finally:
            for actor in actors:
                ray.kill(actor)
        if failures:
            raise min(failures, key=_order)

    def _actor(self, group: PlacementGroup, rank: int) -> Any:
        options = {
            "num_cpus": self.resources.get("CPU", 0),
            "num_gpus": self.resources.get("GPU", 0),
            "max_restarts": 0,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        }
        return ray.remote(**options)(_Process).remote()

    def _meeting(self, first: Any) -> Meeting:
        try:
            meeting: Meeting = ray.get(first.meet.remote())
        except exceptions.RayError as error:
            raise _LostActorError(f"Process 1 of {self.processes} was lost: {_text(error)}") from None
        return meeting

    def _failures(self, references: Sequence[Any]) -> list[PotstillError]:
        """Why processes failed, a while after the first of them has. None have where the first process, which writes
        what the task is for, has ended well."""
        waiting, failures, end = list(references), list[PotstillError](), float("inf")
        while waiting and time.monotonic() < end and not self._stopping.is_set():
            ended, waiting = ray.wait(waiting, timeout=1, fetch_local=False)
            for reference in ended:
                failure = self._failure(reference, references.index(reference) + 1)
                if failure is None and reference is references[0]:
                    return []
                if failure is not None:
                    failures.append(failure)
                    end = min(end, time.monotonic() + GRACE_SECONDS)
        return failures

    def _failure(self, reference: Any, number: int) -> PotstillError | None:
        try:
            failure = ray.get(reference)
        except exceptions.RayTaskError as error:
            return crash(error)
        except exceptions.RayError as error:
            return _LostActorError(f"Process {number} of {self.processes} was lost: {_text(error)}")
        return None if failure is None else error_from(failure)


class _LostActorError(LostProcessError):
    """Ray says that a process has ended."""


def _order(failure: PotstillError) -> int:
    """What says why comes first; one that only lost contact with another comes last."""
    if isinstance(failure, _LostActorError):
        return 1
    if isinstance(failure, ChildCrashError):
        return 2
    return 3 if isinstance(failure, LostProcessError) else 0


class _Process:
    """One process of a task, on some node."""

    def __init__(self) -> None:
        self.address = ray.util.get_node_ip_address()
        os.environ.update(QUIET)
        if name := _interface_of(self.address):
            os.environ.update(interfaces(name))

    def meet(self) -> Meeting:
        """Listen for the other processes of the task."""
        return Meeting.at(self.address)

    def work(self, module: str, job: str) -> str | None:
        """As `run_work`."""
        return run_work(module, job)


def _interface_of(address: str) -> str | None:
    """The network interface of this machine that has an address: its name may lead to another one, such as that for
    this machine alone. None where it cannot be told."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue
            if socket.inet_ntoa(reply[20:24]) == address:
                return name
    return None


def run_work(module: str, job: str) -> str | None:
    """Run a task in this process of a node. Returns the class and message of a PotstillError, as JSON."""
    try:
        importlib.import_module(module).work(Path(job))
    except PotstillError as error:
        return json.dumps([type(error).__name__, str(error)])
    return None


def error_from(failure: str) -> PotstillError:
    """The error that `run_work` has returned."""
    name, message = json.loads(failure)
    error: PotstillError = getattr(errors, name, PotstillError)(message)
    return error


def crash(error: exceptions.RayError) -> ChildCrashError:
    """For a task that has ended without a PotstillError."""
    return ChildCrashError(f"Ray: {_text(error)}")


def _text(error: exceptions.RayError) -> str:
    return str(error).strip()[-2000:]
