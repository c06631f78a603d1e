"""Work in a child process: errors come back, output is kept on failure, and no child outlives its parent."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support import environment

from potstill.errors import ExportError
from potstill.processes import child

WORK = "tests.child_work"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "job.json"


def test_it_works_with_so_many_threads_and_leaves_no_output(job: Path) -> None:
    job.write_text('"work"')
    child.run(WORK, job, threads=3)
    assert json.loads(job.with_name("done").read_text())["threads"] == "3"
    assert not job.with_name("output.txt").exists()


def test_an_error_of_potstill_comes_back_as_it_was(job: Path) -> None:
    job.write_text('"refuse"')
    with pytest.raises(ExportError) as caught:
        child.run(WORK, job, threads=1)
    assert str(caught.value) == "two\nlines"
    assert job.with_name("output.txt").read_text().startswith("printed 1\n")


def test_a_crash_comes_with_the_end_of_the_output(job: Path) -> None:
    job.write_text('"crash"')
    with pytest.raises(child.ChildCrashError, match=r"printed 1[\s\S]*ZeroDivisionError: by zero"):
        child.run(WORK, job, threads=1)
    assert "Traceback" in job.with_name("output.txt").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_somebody_stopped_has_not_crashed(job: Path, number: int) -> None:
    job.write_text(str(int(number)))
    with pytest.raises(child.ChildStoppedError, match=r"stopped from outside \((Ctrl-C|SIGTERM)\)"):
        child.run(WORK, job, threads=1)
    assert "Traceback" not in job.with_name("output.txt").read_text()


def test_one_that_was_killed_has_crashed(job: Path) -> None:
    """Which a system without memory does, too."""
    job.write_text(str(int(signal.SIGKILL)))
    with pytest.raises(child.ChildCrashError, match="printed 1"):
        child.run(WORK, job, threads=1)


def test_it_ends_with_a_parent_that_is_killed(job: Path) -> None:
    job.write_text('"wait"')
    code = "from pathlib import Path; from potstill.processes import child; import sys\n"
    code += "child.run('tests.child_work', Path(sys.argv[1]), threads=1)"
    parent = subprocess.Popen([sys.executable, "-c", code, str(job)], env=environment())
    deadline = time.monotonic() + 30
    while not (job.with_name("pid").exists() and job.with_name("pid").read_text()):
        assert time.monotonic() < deadline, "the child did not begin"
        time.sleep(0.05)
    number = int(job.with_name("pid").read_text().split()[0])
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{number}").is_dir():
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.1)


def test_nothing_heavy_is_imported_before_the_watch() -> None:
    code = "import potstill.processes.child, sys; sys.exit(any(m in sys.modules for m in ('numpy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0


@pytest.mark.parametrize("module", ["potstill.export.score", "potstill.export.formats.registry"])
def test_scoring_loads_no_tool_before_it_is_used(module: str) -> None:
    code = f"import {module}, sys; sys.exit(any(m in sys.modules for m in ('torch', 'onnx', 'onnxruntime', 'timm')))"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0
