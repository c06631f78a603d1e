"""The simulated power loss breaks files that are written carelessly, and none of Potstill's."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.torture.forked import PowerLoss
from tests.torture.power import lose

from potstill.errors import PotstillError
from potstill.run.files import read_json, write_json


def carefully(folder: Path) -> None:
    for number in (1, 2):
        write_json(folder / "result.json", {"number": number})
        write_json(folder / "done.json", {"number": number})


def carelessly(folder: Path) -> None:
    """Atomic, but nothing is synced."""
    for number in (1, 2):
        for name in ("result.json", "done.json"):
            (folder / "new").write_text(json.dumps({"number": number}))
            os.replace(folder / "new", folder / name)  # noqa: PTH105


def losses(write: Callable[[Path], None], folder: Path, seed: int) -> list[bool]:
    """Whether what is there is whole, after a loss at each sync and rename; the seed says what is lost."""
    found: list[bool] = []
    folder = folder / str(seed)
    folder.mkdir()
    while True:
        run, backups, record = (folder / f"{len(found)}-{name}" for name in ("run", "backups", "record"))
        run.mkdir()
        backups.mkdir()
        child = os.fork()
        if child == 0:
            PowerLoss(len(found) + 1, str(run), str(record), str(backups)).install()
            write(run)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            return found
        lose(run, json.loads(record.read_text("utf-8")), random.Random(f"{seed} {len(found)}"))
        found.append(is_whole(run))


def is_whole(run: Path) -> bool:
    """Whether the result is there, and no older than the file that says so."""
    try:
        done = read_json(run / "done.json")["number"] if (run / "done.json").is_file() else 0
        return bool(done <= (read_json(run / "result.json")["number"] if done else 0))
    except PotstillError:
        return False


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the simulation reads /proc")
def test_files_are_whole_after_a_power_loss_at_any_moment(tmp_path: Path) -> None:
    for seed in range(3):
        careful = losses(carefully, tmp_path, seed)
        assert len(careful) == 12, "two syncs and a rename for each file"
        assert all(careful)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the simulation reads /proc")
def test_files_that_are_not_synced_would_be_found(tmp_path: Path) -> None:
    assert not all(whole for seed in range(5) for whole in losses(carelessly, tmp_path, seed))
