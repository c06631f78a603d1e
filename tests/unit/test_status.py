"""`potstill status`: what a run is doing, from its folder alone."""

import datetime
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import potstill as command

from potstill.errors import PotstillError
from potstill.monitoring.status import newest_run, read_status
from potstill.run.files import with_checksum, write_json, write_text
from potstill.run.folder import FORMAT, Run

STUDENT = "mobilenetv1_025-32px"


@pytest.fixture
def note(run_copy: Run) -> Callable[..., None]:
    """Write progress.json of a run in its fourth stage."""

    def written(**values: Any) -> None:
        now = datetime.datetime.now().astimezone()
        noted = {
            "state": "working",
            "reason": "",
            "command": "potstill distill photos",
            "process": 77,
            "started": "2026-11-26T10:00:00+00:00",
            "updated": (now - datetime.timedelta(seconds=10)).isoformat(timespec="seconds"),
            "stage": "4_students",
            "doing": "trying 6 settings on val",
            "done": 239,
            "total": 3600,
            "unit": "steps",
            "share": 0.25,
            "seconds": 100.0,
            "seconds_left": 300.0,
            "seconds_left_after_part": 120.0,
            "parts": [],
        }
        write_json(run_copy.path / "progress.json", noted | values)

    shutil.rmtree(run_copy.comparison)
    return written


def test_a_run_at_work_tells_its_stage_and_the_time_left(run_copy: Run, note: Callable[..., None]) -> None:
    note()
    with run_copy.only_here():
        status = read_status(run_copy.path)
    assert status.state == "working"
    assert status.seconds_left == pytest.approx(290, abs=2), "ten seconds have passed since it was written"
    assert status.share == pytest.approx(110 / 400, abs=0.01)
    head, doing, *students = status.lines()[:4]
    assert re.search(r"working, 2[78]%, 4 min (50|49|48) s left of about 6 min \d+ s \(since 10:00, process 77\)", head)
    assert doing == "  4_students: trying 6 settings on val, 239 of 3,600 steps"
    assert students[0].startswith(f"  {STUDENT} distilled: 2 of 2 seeds trained, val accuracy ")
    assert students[0].endswith("%, can be used")
    assert status.lines()[-1].endswith(f"Done in {status.lines()[-1].rpartition('Done in ')[2]}"), "the log's end"


def test_the_time_of_later_parts_is_left_however_long_this_one_takes(run_copy: Run, note: Callable[..., None]) -> None:
    note(seconds_left=125.0)
    with run_copy.only_here():
        status = read_status(run_copy.path)
    assert status.seconds_left == 120.0
    note(seconds_left=5.0, seconds_left_after_part=0.0)
    with run_copy.only_here():
        assert re.search(r"working, almost finished after 1 min 5\d s \(", read_status(run_copy.path).lines()[0])


def test_a_run_whose_process_is_gone_is_stopped_and_says_how_to_resume(
    run_copy: Run, note: Callable[..., None]
) -> None:
    note()
    status = read_status(run_copy.path)
    assert (status.state, status.seconds_left) == ("stopped", 300.0)
    assert "stopped after 1 min 40 s" in status.lines()[0]
    assert "its process is gone" in status.lines()[0]
    assert "  To resume: potstill distill photos" in status.lines()
    note(state="stopped", reason="DataError: no photos")
    assert read_status(run_copy.path).lines()[0].endswith(": DataError: no photos")


def test_a_command_that_is_starting_is_not_taken_for_the_one_before(run_copy: Run, note: Callable[..., None]) -> None:
    note(state="stopped", reason="interrupted")
    with run_copy.only_here():
        status = read_status(run_copy.path)
    assert status.state == "working"
    assert status.lines()[0].endswith("a command is at work and has not told its progress yet")


def test_a_student_that_lacks_a_training_is_not_usable_yet(run_copy: Run, note: Callable[..., None]) -> None:
    note()
    (run_copy.students / STUDENT / "seed-1/alone/done.json").unlink()
    distilled, alone = read_status(run_copy.path).students
    assert (distilled.seeds, distilled.of_seeds, distilled.usable) == (2, 2, True), "it needs no twin"
    assert (alone.arm, alone.seeds, alone.usable) == ("alone", 1, False)
    (run_copy.students / STUDENT / "seed-1/distilled/done.json").unlink()
    distilled, _ = read_status(run_copy.path).students
    assert (distilled.seeds, distilled.of_seeds, distilled.usable) == (1, 2, False)


def test_the_command_prints_json_and_finds_the_newest_run(tmp_path: Path) -> None:
    for number, name in enumerate(("new", "old")):
        run = Run(tmp_path / "runs" / name)
        write_json(run.path / "run.json", {"format": FORMAT})
        write_text(run.path / "config.toml", with_checksum("seeds = 1\n"))
        os.utime(run.path / "config.toml", (1000 - number, 1000 - number))
    done = command("status", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "runs/new"
    write_json(tmp_path / "runs/old/progress.json", {"state": "finished", "seconds": 3.0, "share": 1.0})
    assert newest_run(tmp_path / "runs").name == "old", "a command has worked on it since"
    done = command("status", "--watch", cwd=tmp_path)
    assert done.stdout == "runs/old: finished in 3.0 s ()\n", "watching ends with the run"
    with pytest.raises(PotstillError, match="There is no run in"):
        newest_run(tmp_path)
    done = command("status", tmp_path)
    assert done.returncode == 2
    assert "is not a run folder" in done.stderr


def test_asking_does_not_need_torch() -> None:
    import subprocess
    import sys

    from tests.support import environment

    code = "import potstill.monitoring.status, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
