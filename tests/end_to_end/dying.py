"""The command line, hit by a real signal at a chosen point. One process imports torch once; each order is a fork.

Orders are lines on stdin, `[POINT, SIGNAL, [potstill-argument, …], FILE]` as JSON; what the command prints goes to
FILE, and its exit status, negative for a signal, to stdout. The signal comes from inside, so that it hits the same
moment on every machine, however fast.
"""

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from potstill import pipeline
from potstill.cli import run
from potstill.comparison import stage as comparison
from potstill.compute import timing
from potstill.data import arrays
from potstill.images import pack
from potstill.students import runner as job_runner
from potstill.students import stage as students
from potstill.training import loop as training

timing.PROBE_SECONDS = 0.01
training.CHECKPOINT_SECONDS = 0.0  # every step can be the last one saved
pack._JOURNAL_EVERY = 8

Hook = Callable[[int], None]
"""Called with the signal to send."""


def at(owner: Any, name: str, call: int, *, when: Callable[..., bool] = lambda *a: True) -> Hook:
    """Make the `call`-th call of `owner.name` send the signal before it works."""

    def install(number: int) -> None:
        original, count = getattr(owner, name), 0

        @functools.wraps(original)
        def hooked(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += bool(when(*arguments))
            if count == call and number == signal.SIGINT:
                os.killpg(0, number)  # as a terminal does: to the children, too
            elif count == call:
                os.kill(os.getpid(), number)
            return original(*arguments, **options)

        setattr(owner, name, hooked)

    return install


def writes_to(part: str) -> Callable[..., bool]:
    return lambda writer, *_: part in str(writer.path)


def saves_to(part: str) -> Callable[..., bool]:
    return lambda state, *_: part in str(state.path)


def child_is_training(job: Any, *_: Any) -> bool:
    return (job.folder / "checkpoint.safetensors").is_file()


POINTS: dict[str, Hook] = {
    "nowhere": lambda number: None,
    "packing": at(pack, "encode", 30),
    "features": at(arrays.RowWriter, "write", 2, when=writes_to("2_teacher")),
    "head": at(training._State, "save", 20, when=saves_to("2_teacher/head")),
    "fold": at(training._State, "save", 5, when=saves_to("fold-1")),
    "soft labels": at(arrays.RowWriter, "write", 2, when=writes_to("3_soft_labels")),
    "rendering": at(arrays.RowWriter, "write", 9, when=writes_to("4_students")),
    "student": at(training._State, "save", 5, when=saves_to("seed-0/distilled")),
    "twin": at(training._State, "save", 12, when=saves_to("seed-0/alone")),
    "length": at(training._State, "save", 3, when=saves_to("pilots/alone-2-epochs")),
    "chosen length": at(students._Training, "choose_finally", 1),
    "copied length": at(job_runner, "copy_job", 1),
    "children import": at(job_runner, "_steps_done", 1),
    "children train": at(job_runner, "_steps_done", 1, when=child_is_training),
    "comparison": at(comparison, "_student_result", 1),
    "report": at(pipeline, "write_report", 1),
}


def obey(point: str, number: int, arguments: list[str], output: str) -> int:
    """Run the command in a child. Returns its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        os.setpgrp()
        with open(output, "wb", buffering=0) as file:  # noqa: PTH123
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        POINTS[point](number)
        code = run(arguments)
        sys.stdout.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        point, name, arguments, output = json.loads(line)
        print(obey(point, signal.Signals[name], arguments, output), flush=True)
