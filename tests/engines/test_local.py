"""Tasks on this machine: each sees the GPUs that have the least to do."""

import time
from pathlib import Path
from typing import Any

import pytest

from potstill.engines.local import LocalEngine, visible_gpus
from potstill.processes.group import ChildGroup
from potstill.run.files import write_json


def environment(child: Any) -> dict[str, str]:
    """Of a child process, which has none while it begins."""
    while not (found := Path(f"/proc/{child.process.pid}/environ").read_bytes()):
        time.sleep(0.01)
    return dict(line.split("=", 1) for line in found.decode().split("\0") if "=" in line)


def test_gpus_are_given_out_by_turns(tmp_path: Path) -> None:
    engine = LocalEngine(["3", "GPU-a", "5"])
    assert (engine.room(1), engine.room(2), engine.room(4)) == (3, 1, 0)
    assert engine.describe() == ["GPUs: 3"]
    tasks = []

    def seen(number: int, processes: int = 1) -> str:
        (tmp_path / str(number)).mkdir()
        job = tmp_path / str(number) / "worker.json"
        write_json(job, {"seconds": 600})
        tasks.append(task := engine.start("tests.engines.job", job, threads=1, processes=processes))
        children = task.children if isinstance(task, ChildGroup) else [task]
        return " ".join(environment(child)["CUDA_VISIBLE_DEVICES"] for child in children)

    try:
        assert [seen(0), seen(1)] == ["3", "GPU-a"]
        assert seen(2, processes=2) == "5 3", "each process one"
        assert seen(3) == "GPU-a"
        for task in tasks[:2]:
            task.stop()
        assert seen(4) == "3", "one that is done makes room"
    finally:
        for task in tasks:
            task.stop()


def test_without_several_gpus_tasks_see_what_this_process_sees() -> None:
    for engine in (LocalEngine(), LocalEngine(["0"])):
        assert engine.has_one_device
        assert engine.room(1) is None
        assert engine.describe() == []


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(3) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6,7")
    assert visible_gpus(2) == ["4", "6"]
