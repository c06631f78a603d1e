"""Children that work together: where one fails, all end soon, and the error is that of the one that failed first."""

import json
import os
import time
from pathlib import Path

import pytest

from potstill.errors import DataError, LostProcessError, PotstillError
from potstill.processes import group
from potstill.processes.group import run_together

MODULE = """
import json, os, pathlib, signal, time
from potstill.errors import DataError, LostProcessError

def work(job):
    order = json.loads(job.read_text())
    job.with_name("pid").write_text(str(os.getpid()))
    time.sleep(order.get("seconds", 0))
    if order["end"] == "refuse":
        raise DataError("It says why.")
    if order["end"] == "lost":
        raise LostProcessError("Lost contact.")
    if order["end"] == "crash":
        raise ZeroDivisionError("by zero")
    if order["end"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if order["end"] == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    job.with_name("done").touch()
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files of three jobs."""
    (tmp_path / "work_for_group.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(group, "GRACE_SECONDS", 1.0)
    folders = [tmp_path / f"rank-{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
    return [folder / "worker.json" for folder in folders]


def run(jobs: list[Path], *orders: dict[str, object]) -> None:
    for job, order in zip(jobs, orders, strict=True):
        job.write_text(json.dumps(order))
    run_together("work_for_group", jobs, threads=1)


def test_all_work_to_their_end(jobs: list[Path]) -> None:
    run(jobs, *[{"end": "well"}] * 3)
    assert all(job.with_name("done").is_file() for job in jobs)
    assert not any(job.with_name("output.txt").exists() for job in jobs)


@pytest.mark.parametrize(
    ("orders", "error", "message"),
    [
        ([{"end": "lost"}, {"end": "refuse", "seconds": 0.4}, {"end": "lost"}], DataError, r"^It says why.$"),
        ([{"end": "lost"}, {"end": "well"}, {"end": "kill"}], PotstillError, "Process 3 of 3 was killed by signal 9"),
        ([{"end": "crash"}, {"end": "lost"}, {"end": "lost"}], PotstillError, r"1 of 3 stopped unexp(.|\n)*by z"),
        ([{"end": "lost"}, {"end": "well"}, {"end": "well"}], LostProcessError, "Lost contact"),
    ],
)  # fmt: skip
def test_the_error_is_that_of_the_one_that_failed_first(
    orders: list[dict[str, object]], error: type[PotstillError], message: str, jobs: list[Path]
) -> None:
    with pytest.raises(error, match=message):
        run(jobs, *orders)


def test_none_is_left_behind(jobs: list[Path]) -> None:
    """One that hangs in the middle of talking to another does not hear a polite request."""
    started = time.monotonic()
    with pytest.raises(DataError):
        run(jobs, {"end": "refuse", "seconds": 3}, {"end": "well", "seconds": 600}, {"end": "stop"})
    assert time.monotonic() - started < 60
    for job in jobs:
        number = int(job.with_name("pid").read_text())
        assert not Path(f"/proc/{number}").exists()
