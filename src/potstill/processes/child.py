"""One protocol for work in a child process: `python -m potstill.processes.child MODULE JOB PARENT`.

The child imports MODULE and calls its `work(job)` with the path of a JSON file. It ends with its parent, hands a
PotstillError back, and everything that it prints goes to `output.txt` beside the job, which stays there on failure.
Nothing heavy is imported before the watch on the parent begins: a parent that is killed while torch is being imported
must not leave a child that works on, beside the next command in the same folder.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from potstill import errors
from potstill.errors import PotstillError
from potstill.processes.watch import end_with

OUTPUT = "output.txt"
"""Beside the job: what the child prints."""

_INTERRUPTED = 128 + signal.SIGINT
"""The exit code after Ctrl-C, as of shells."""

_STOPPED = {_INTERRUPTED: "Ctrl-C", -signal.SIGINT: "Ctrl-C", -signal.SIGTERM: "SIGTERM"}

_ERROR = "POTSTILL "
"""Begins the line with the class and the message of a PotstillError, as JSON."""


class ChildCrashError(PotstillError):
    """A child stopped without saying why; the message is the end of its output."""


class ChildStoppedError(PotstillError):
    """Somebody stopped a child, so that its work says nothing."""


class Process(Protocol):
    """What is asked of a process, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int | None:
        """None while it has not begun."""
        ...

    def poll(self) -> int | None: ...

    def wait(self) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Child:
    """A child process at work."""

    process: Process
    output: Path

    @classmethod
    def start(
        cls,
        module: str,
        job: Path,
        *,
        python: str | None = None,
        threads: int | None = None,
        environment: Mapping[str, str] | None = None,
        files: Sequence[int] = (),
    ) -> "Child":
        """Let `module` work on a job.

        Args:
            job: a JSON file, alone in its folder as far as jobs are concerned.
            python: the interpreter of another environment; this one's when None.
            threads: for OpenMP; None leaves the environment as it is.
            environment: variables that it has beside those of this process.
            files: descriptors that it gets, under the same numbers.
        """
        output = job.with_name(OUTPUT)
        command = [python or sys.executable, "-m", "potstill.processes.child", module, str(job), str(os.getpid())]
        variables = {**os.environ, **({} if threads is None else limits(threads)), **(environment or {})}
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=files
            )
        return cls(process, output)

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def check(self) -> None:
        """Wait for the end. Raises the PotstillError that the child raised, ChildStoppedError or ChildCrashError."""
        code = self.process.wait()
        if code == 0:
            self.output.unlink(missing_ok=True)
            return
        if code in _STOPPED:
            raise ChildStoppedError(
                f"A process of this command was stopped from outside ({_STOPPED[code]}). Run the same command again."
            )
        output = self.output.read_text("utf-8", errors="replace").strip()
        for line in output.splitlines():
            if line.startswith(_ERROR):
                name, message = json.loads(line.removeprefix(_ERROR))
                raise getattr(errors, name, PotstillError)(message)
        raise ChildCrashError(output[-2000:] or f"It ended with code {code} and without a message.")

    def stop(self) -> None:
        """Ask the child to end, and wait until it has."""
        self.process.terminate()
        self.process.wait()


def limits(threads: int) -> dict[str, str]:
    """Environment variables of a process that computes with so many threads."""
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def run(module: str, job: Path, *, python: str | None = None, threads: int | None = None) -> None:
    """Let a child work on one job to its end. Arguments and errors as of `Child.start` and `Child.check`."""
    child = Child.start(module, job, python=python, threads=threads)
    try:
        child.check()
    finally:
        if not child.has_ended:  # interrupted while waiting
            child.stop()


def main(module: str, job: str, parent: str) -> int:
    """Work in this process."""
    end_with(int(parent))
    try:
        importlib.import_module(module).work(Path(job))
    except PotstillError as error:
        print(f"\n{_ERROR}{json.dumps([type(error).__name__, str(error)])}")
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
