"""Processes that work together on one task, so that none can go on without the others.

Only the standard library, like `child`.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import LostProcessError, PotstillError
from potstill.processes.child import Child, ChildCrashError

_POLL_SECONDS = 0.1

GRACE_SECONDS = 5.0
"""In which the others may say what is wrong with them, once one has failed."""

QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}
"""What torch warns of is meant (`potstill.training.loop`)."""

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where processes find each other: a socket on which the first of them listens."""

    host: str
    port: int
    listener: int
    """Descriptor of the socket, in the first process only."""

    @classmethod
    def at(cls, host: str) -> "Meeting":
        """On an address of this machine, at a free port, with a socket that is open from now on."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family)
        return cls(host, listener.getsockname()[1], listener.detach())


def interfaces(name: str) -> dict[str, str]:
    """Variables that let torch's processes talk over a network interface, where the user has not chosen one."""
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    return {variable: name for variable in names if variable not in os.environ}


@dataclass(frozen=True, slots=True, eq=False)
class ChildGroup:
    """Child processes at work on one task, on this machine."""

    children: tuple[Child, ...]

    @classmethod
    def start(
        cls,
        module: str,
        jobs: Sequence[Path],
        *,
        threads: int,
        meeting: Meeting,
        environments: Sequence[Mapping[str, str]],
    ) -> "ChildGroup":
        """Let `module` work on a task in several processes.

        Args:
            jobs: a file for each of them, in a folder of its own.
            threads: as of `Child.start`.
            meeting: on 127.0.0.1.
            environments: for each of them the variables that it has beside those of this process.
        """
        children: list[Child] = []
        try:
            for job, environment in zip(jobs, environments, strict=True):
                variables = {**QUIET, **interfaces(_LOOPBACK), **environment}
                files = [] if children else [meeting.listener]
                children.append(Child.start(module, job, threads=threads, environment=variables, files=files))
        except BaseException:
            _kill(children)
            raise
        return cls(tuple(children))

    @property
    def has_ended(self) -> bool:
        """Whether all have, or one has failed."""
        return self._has_failed or all(child.has_ended for child in self.children)

    @property
    def _has_failed(self) -> bool:
        return any(child.process.poll() for child in self.children)

    def check(self) -> None:
        """Wait for the end. Where one fails, the others are killed.

        Raises:
            PotstillError: that of the child that failed first; one that only lost contact with it comes last.
        """
        try:
            while not self.has_ended:
                time.sleep(_POLL_SECONDS)
            if self._has_failed:
                self._wait(GRACE_SECONDS)
            numbered = enumerate(self.children, 1)
            errors = [error for number, child in numbered if (error := _error_of(child, number, len(self.children)))]
        finally:
            self.stop()
        if errors:
            raise min(errors, key=lambda error: isinstance(error, LostProcessError))

    def stop(self) -> None:
        """Kill them: one that hangs in the middle of talking to another does not hear a polite request."""
        _kill(self.children)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(child.has_ended for child in self.children):
            time.sleep(_POLL_SECONDS)


def _kill(children: Sequence[Child]) -> None:
    for child in children:
        child.process.kill()
        child.process.wait()


def _error_of(child: Child, number: int, count: int) -> PotstillError | None:
    """Why a child failed; None for one that has not."""
    if not child.has_ended:
        return None
    try:
        child.check()
    except ChildCrashError as error:
        code = child.process.wait()
        reason = f"was killed by signal {-code}" if code < 0 else "stopped unexpectedly"
        return PotstillError(f"Process {number} of {count} {reason}:\n{error}")
    except PotstillError as error:
        return error
    return None
