"""The command line in a process that can be killed. One server imports torch once; each command is a fork of it."""

import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.support import environment


@dataclass(frozen=True, slots=True)
class Failure:
    """What happens to one of the files that a command opens for writing."""

    turn: int
    """Counted from 1."""
    number: int
    """An errno."""
    below: str = ""
    """Only files below this folder count."""

    def install(self) -> None:
        """In this process, once."""
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event != "open" or not isinstance(arguments[0], str) or not arguments[0].startswith(self.below):
                return
            if arguments[2] & (os.O_WRONLY | os.O_RDWR):
                count += 1
                if count == self.turn:
                    raise OSError(self.number, os.strerror(self.number), arguments[0])

        sys.addaudithook(hook)


@dataclass(frozen=True, slots=True)
class PowerLoss:
    """The process ends at one of its fsyncs and renames. What the disk keeps by then is written to a file."""

    turn: int
    """Counted from 1."""
    below: str
    """Only files below this folder count."""
    record: str
    """The file to write: a JSON object with `turns`; `synced`: (size, time) of each inode when it was last synced;
    `renames`: those whose folder was not synced since, with a copy of the file that was replaced."""
    backups: str
    """An empty folder beside the run."""

    def install(self) -> None:
        """In this process, once."""
        synced: dict[int, tuple[int, int]] = {}
        renames: list[tuple[str, str, str | None]] = []
        fsync, replace, turns = os.fsync, os.replace, 0

        def step() -> None:
            nonlocal turns
            turns += 1
            if turns == self.turn:
                Path(self.record).write_text(
                    json.dumps({"turns": turns, "synced": synced, "renames": renames}), "utf-8"
                )
                os._exit(99)

        def syncing(handle: int) -> None:
            path = str(Path(f"/proc/self/fd/{handle}").readlink())
            if not path.startswith(self.below):
                fsync(handle)
                return
            step()
            fsync(handle)
            status = os.fstat(handle)
            if os.path.isdir(path):  # noqa: PTH112
                renames[:] = [entry for entry in renames if os.path.dirname(entry[1]) != path]  # noqa: PTH120
            else:
                synced[status.st_ino] = (status.st_size, status.st_mtime_ns)

        def replacing(source: Any, target: Any, **options: Any) -> None:
            source, target = os.fspath(source), os.fspath(target)
            if not str(target).startswith(self.below):
                replace(source, target, **options)
                return
            step()
            backup = None
            if os.path.isfile(target):  # noqa: PTH113
                backup = f"{self.backups}/{turns}"
                os.link(target, backup)
            replace(source, target, **options)
            renames.append((source, target, backup))

        os.fsync, os.replace = syncing, replacing  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of the machine is wrong."""

    seconds: float
    """Added to the true time."""

    def install(self) -> None:
        """In this process, once."""
        import datetime

        true_time, true_now, wrong = time.time, datetime.datetime.now, datetime.timedelta(seconds=self.seconds)

        class WrongTime(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
                return true_now(tz) + wrong

        time.time = lambda: true_time() + self.seconds
        datetime.datetime = WrongTime  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class NoOverride:
    """The modes of files hold for the command, even if it is root's. Linux only."""

    def install(self) -> None:
        """In this process, once: gives up the capability CAP_DAC_OVERRIDE."""
        libc = ctypes.CDLL(None, use_errno=True)
        header, values = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if libc.capget(header, values) == 0:
            for kind in (0, 1):  # effective, permitted
                values[kind] &= ~(1 << 1)
            libc.capset(header, values)


DISTURBANCES: dict[str, type[Any]] = {kind.__name__: kind for kind in (Failure, PowerLoss, Clock, NoOverride)}


@functools.cache
def server() -> "Server":
    """One for the whole campaign."""
    return Server()


class Server:
    """Forks commands."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "tests.torture.forked"]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment(), text=True)

    def start(self, arguments: list[str | Path], output: Path, disturbance: Any = None) -> "Command":
        """Start `potstill …` in a process group of its own; what it prints goes to `output`.

        Args:
            disturbance: one of DISTURBANCES.
        """
        order = disturbance and [type(disturbance).__name__, asdict(disturbance)]
        self._ask([list(map(str, arguments)), str(output), order])
        return Command(self, int(self._answer()), output)

    def wait(self, pid: int) -> int:
        """The exit code of a command, or minus the signal that ended it."""
        self._ask(pid)
        return int(self._answer())

    def _ask(self, order: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@dataclass(frozen=True, slots=True)
class Command:
    """A command that runs; its process is the leader of its group."""

    server: Server
    pid: int
    output: Path

    @property
    def has_ended(self) -> bool:
        """Whether only its exit code is left."""
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text("utf-8")
        except FileNotFoundError:
            return True
        return status.rpartition(")")[2].split()[0] == "Z"

    def wait(self) -> int:
        """The exit code, or minus the signal that ended it."""
        return self.server.wait(self.pid)


def serve() -> None:
    """Obey orders on stdin: `[[argument, …], FILE, DISTURBANCE]` starts a command and prints its process number;
    a process number waits for that command and prints its exit code."""
    import potstill.pipeline  # noqa: F401  the long import, before the first fork
    from potstill.cli import run
    from potstill.compute import timing
    from potstill.images import pack
    from potstill.training import loop

    timing.PROBE_SECONDS = 0.01
    loop.CHECKPOINT_SECONDS = 0.0
    pack._JOURNAL_EVERY = 8
    for line in sys.stdin:
        order = json.loads(line)
        if isinstance(order, int):
            print(os.waitstatus_to_exitcode(os.waitpid(order, 0)[1]), flush=True)
            continue
        arguments, output, disturbance = order
        child = os.fork()
        if child == 0:
            os.setpgrp()
            # A shell that starts the campaign in the background lets it, and all that it starts, ignore Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
            try:
                if disturbance:
                    DISTURBANCES[disturbance[0]](**disturbance[1]).install()
                code = run(arguments)
                sys.stdout.flush()
            except KeyboardInterrupt:  # before the command has begun
                code = 130
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)
        print(child, flush=True)


if __name__ == "__main__":
    serve()
