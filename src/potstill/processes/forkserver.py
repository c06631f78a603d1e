"""Children that begin at once: forks of a process that has imported what they need.

Importing torch and timm takes seconds of a core, often more than a short training takes. multiprocessing's own fork
server would do, but wants `if __name__ == "__main__"` in the script that calls, and a picklable function instead of a
module's `work`. Only the standard library here, like `child`.

The two sides talk over a socket, a JSON object in each packet. A task is a number that the client has given it. The
client sends `{"start": task, "module", "job", "output"}` and `{"signal": number, "to": task}`, the server
`{"begun": task, "pid"}` and `{"ended": task, "code"}`.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from potstill.processes import child

_PACKET = 1 << 16
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.5

EXTRA = ("timm", "torch._dynamo")
"""Imported beside the module of the first task: what trainings import when they are under way."""


class ForkServer:
    """The server as this process sees it. It ends with this process, and its tasks end with it."""

    def __init__(self, variables: Mapping[str, str], title: str) -> None:
        """Start it, with these environment variables; `title` is seen in lists of processes."""
        self._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "potstill.processes.forkserver", str(other.fileno()), title]
        with other:
            self._process = subprocess.Popen(
                command,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._tasks = 0

    def start(self, module: str, job: Path, output: Path) -> "ForkedProcess":
        """Let `work(job)` of a module begin in a fork, which prints to the file `output`."""
        self._tasks += 1
        output.write_bytes(b"")
        self._send({"start": self._tasks, "module": module, "job": str(job), "output": str(output)})
        return ForkedProcess(self, self._tasks)

    def pid(self, task: int) -> int | None:
        """The process of a task; None where it has not begun."""
        self._receive(0)
        return self._pids.get(task)

    def code(self, task: int, *, wait: bool = False) -> int | None:
        """How a task has ended, as of `subprocess.Popen.returncode`; None where it has not. Waits for the end where
        asked to. Where the server was lost, its tasks have ended as it has."""
        while (found := self._codes.get(task)) is None and self._receive(None if wait else 0):
            pass
        if found is None and self._process.poll() is not None:
            return self._process.returncode or 1
        return found

    def signal(self, task: int, number: int) -> None:
        """Send a signal to a task. One that has not begun, since the server is still busy with imports, ends with all
        others."""
        if self.code(task) is not None:
            return
        if self.pid(task) is None:
            self._process.kill()
        else:
            self._send({"signal": number, "to": task})

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """End it, and with it the tasks that are still at work."""
        self._connection.close()
        try:
            self._process.wait(1)  # it is at once, unless it is busy with imports
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # where the server was lost, `code` tells
            self._connection.send(json.dumps(message).encode())

    def _receive(self, seconds: float | None) -> bool:
        """Take in a message, waiting so long for one. Returns whether one came."""
        if not select.select([self._connection], [], [], seconds)[0]:
            return False
        packet = b""
        with suppress(ConnectionResetError):
            packet = self._connection.recv(_PACKET)
        if not packet:
            self._process.wait()
            return False
        message = json.loads(packet)
        if "begun" in message:
            self._pids[message["begun"]] = message["pid"]
        else:
            self._codes[message["ended"]] = message["code"]
        return True


class ForkedProcess:
    """A task of a fork server, as far as it is used like a `subprocess.Popen`."""

    def __init__(self, server: ForkServer, task: int) -> None:
        self._server, self._task = server, task

    @property
    def pid(self) -> int | None:
        """None while it has not begun."""
        return self._server.pid(self._task)

    def poll(self) -> int | None:
        return self._server.code(self._task)

    def wait(self) -> int:
        code = self._server.code(self._task, wait=True)
        assert code is not None
        return code

    def terminate(self) -> None:
        self._server.signal(self._task, signal.SIGTERM)

    def kill(self) -> None:
        self._server.signal(self._task, signal.SIGKILL)


def serve(connection: socket.socket) -> None:
    """Fork a process for each task, until the client is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's
    server, tasks = os.getpid(), dict[int, int]()
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        if poll.poll(_POLL_SECONDS * 1000 if tasks else None):
            if not (packet := connection.recv(_PACKET)):
                return
            message = json.loads(packet)
            if "signal" in message:
                _signal(tasks, message)
                continue
            _import(message["module"], poll)
            if _is_alone(poll):
                return  # the client was killed meanwhile, and nothing that it asked for may begin
            pid = os.fork()
            if pid == 0:
                connection.close()
                os._exit(_work(message, server))  # taking apart all that was imported would take a second or more
            tasks[pid] = message["start"]
            _reply(connection, {"begun": message["start"], "pid": pid})
        for pid in list(tasks):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                _reply(connection, {"ended": tasks.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def _signal(tasks: Mapping[int, int], message: Mapping[str, int]) -> None:
    for pid, task in tasks.items():  # none where it has ended meanwhile
        if task == message["to"]:
            os.kill(pid, message["signal"])


def _reply(connection: socket.socket, message: dict[str, int]) -> None:
    with suppress(BrokenPipeError):  # the next look finds that the client is gone
        connection.send(json.dumps(message).encode())


def _is_alone(poll: select.poll) -> bool:
    """Whether the client is gone."""
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _import(module: str, poll: select.poll) -> None:
    """Import a module, and what its work will need. Where it cannot be imported, the fork says why.

    Imports take many seconds on a busy machine. A timer looks for the client meanwhile: a thread would be in the way of
    the forks.
    """
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1) if _is_alone(poll) else None)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_SECONDS, _LOOK_SECONDS)
    for name in (module, *EXTRA):
        with suppress(Exception):
            importlib.import_module(name)
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.freeze()  # what is there stays, and shared with the forks


def _work(message: Mapping[str, Any], server: int) -> int:
    """Work on a task in this process, a fork of the server. Returns its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(message["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    try:
        return child.main(message["module"], message["job"], str(server))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        serve(channel)
