"""Children that work together: where one fails, all end soon, and the error is that of the one that failed first."""

import os
import time
from pathlib import Path

import pytest

from potstill.engines.local import LocalEngine
from potstill.errors import DataError, LostProcessError, PotstillError
from potstill.processes import group
from potstill.run.files import write_json

MODULE = """
import json, os, signal, socket, time
from potstill.errors import DataError, LostProcessError

def work(job):
    values = json.loads(job.read_text())
    order = values["orders"][values["rank"]]
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
    if order["end"] == "meet":
        meet(values, job)
    job.with_name("done").touch()

def meet(values, job):
    place = values["meeting"]["host"], values["meeting"]["port"]
    text = f"{values['rank']} of {values['processes']}"
    if values["rank"] == 0:
        listener = socket.socket(fileno=values["meeting"]["listener"])
        heard = sorted(listener.accept()[0].recv(9) for _ in range(2))
        assert heard == [b"1 of 3", b"2 of 3"]
    else:
        socket.create_connection(place).sendall(text.encode())
    job.with_name("met").write_text(text)
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a task."""
    (tmp_path / "work_for_group.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(group, "GRACE_SECONDS", 1.0)
    return tmp_path / "worker.json"


def files(job: Path, name: str) -> list[Path]:
    """Those beside the job files of three processes."""
    return [job.parent / f"rank-{number}" / name for number in range(3)]


def run(job: Path, *orders: dict[str, object]) -> None:
    write_json(job, {"orders": orders})
    LocalEngine().start("work_for_group", job, threads=1, processes=len(orders)).check()


def test_all_work_to_their_end(job: Path) -> None:
    run(job, *[{"end": "well"}] * 3)
    assert all(path.is_file() for path in files(job, "done"))
    assert not any(path.exists() for path in files(job, "output.txt"))


def test_they_know_each_other_and_where_to_meet(job: Path) -> None:
    run(job, *[{"end": "meet"}] * 3)
    assert [path.read_text() for path in files(job, "met")] == ["0 of 3", "1 of 3", "2 of 3"]


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
    orders: list[dict[str, object]], error: type[PotstillError], message: str, job: Path
) -> None:
    with pytest.raises(error, match=message):
        run(job, *orders)


def test_none_is_left_behind(job: Path) -> None:
    """One that hangs in the middle of talking to another does not hear a polite request."""
    started = time.monotonic()
    with pytest.raises(DataError):
        run(job, {"end": "refuse", "seconds": 3}, {"end": "well", "seconds": 600}, {"end": "stop"})
    assert time.monotonic() - started < 60
    for path in files(job, "pid"):
        number = int(path.read_text())
        assert not Path(f"/proc/{number}").exists()
