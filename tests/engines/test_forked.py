"""Tasks as forks of a process that has imported what they need."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support import environment, processes_of

from potstill.config.schema import MachineConfig
from potstill.engines.engine import Task
from potstill.engines.local import LocalEngine
from potstill.engines.opening import open_engine
from potstill.errors import ExportError
from potstill.processes.child import Child, ChildCrashError, ChildStoppedError
from potstill.processes.forkserver import ForkServer
from potstill.run.files import write_json

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks a process that has loaded libraries")

WORK = "tests.child_work"


class Tasks:
    """Starts tasks of an engine, each in a folder of its own."""

    def __init__(self, folder: Path, engine: LocalEngine) -> None:
        self.folder, self.engine = folder, engine

    def start(self, order: str, *, threads: int = 1) -> Child:
        job = self.job(order)
        job.parent.mkdir(parents=True, exist_ok=True)
        write_json(job, order)
        task: Task = self.engine.start(WORK, job, threads=threads)
        assert isinstance(task, Child)
        return task

    def job(self, order: str) -> Path:
        return self.folder / order / "job.json"

    def processes(self, order: str) -> tuple[int, int]:
        """The processes of a task that is at work, and of the server that it is a fork of."""
        path, deadline = self.job(order).with_name("pid"), time.monotonic() + 60
        while not (path.is_file() and path.read_text()):
            assert time.monotonic() < deadline, "the task did not begin"
            time.sleep(0.05)
        task, server = path.read_text().split()
        return int(task), int(server)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with closing(LocalEngine(fork="tests")) as opened:
        yield opened


@pytest.fixture
def tasks(engine: LocalEngine, tmp_path: Path) -> Tasks:
    return Tasks(tmp_path, engine)


def is_there(process: int) -> bool:
    """A process that has ended stays as a zombie until its parent asks for it."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_until_gone(*processes: int) -> None:
    deadline = time.monotonic() + 20
    while any(is_there(process) for process in processes):
        assert time.monotonic() < deadline, f"still there: {[p for p in processes if is_there(p)]}"
        time.sleep(0.05)


def test_a_task_is_a_fork_of_a_process_that_has_imported_torch_and_leaves_no_output(tasks: Tasks) -> None:
    tasks.start("work").check()
    assert json.loads(tasks.job("work").with_name("done").read_text())["torch"]
    task, server = tasks.processes("work")
    assert task != server != os.getpid()
    assert not tasks.job("work").with_name("output.txt").exists()


def test_tasks_with_as_many_threads_share_a_server(tasks: Tasks) -> None:
    for name, threads in (("one", 1), ("again", 1), ("two", 2)):
        tasks.start(name, threads=threads).check()
    assert tasks.processes("one")[1] == tasks.processes("again")[1] != tasks.processes("two")[1]


def test_an_error_of_potstill_comes_back_as_it_was(tasks: Tasks) -> None:
    with pytest.raises(ExportError) as caught:
        tasks.start("refuse").check()
    assert str(caught.value) == "two\nlines"
    assert tasks.job("refuse").with_name("output.txt").read_text().startswith("printed 1\n")


def test_a_crash_comes_with_the_end_of_the_output(tasks: Tasks) -> None:
    with pytest.raises(ChildCrashError, match=r"printed 1[\s\S]*ZeroDivisionError: by zero"):
        tasks.start("crash").check()


def test_a_module_that_cannot_be_imported_is_named(engine: LocalEngine, tmp_path: Path) -> None:
    write_json(tmp_path / "job.json", "work")
    with pytest.raises(ChildCrashError, match="No module named 'nothing_of_that_name'"):
        engine.start("nothing_of_that_name", tmp_path / "job.json", threads=1).check()


def test_a_task_that_gets_ctrl_c_has_not_crashed(tasks: Tasks) -> None:
    task = tasks.start("wait")
    os.kill(tasks.processes("wait")[0], signal.SIGINT)
    with pytest.raises(ChildStoppedError, match="Ctrl-C"):
        task.check()


def test_a_task_that_is_stopped_ends_alone(tasks: Tasks, tmp_path: Path) -> None:
    other = Tasks(tmp_path / "other", tasks.engine)
    stopped, going = tasks.start("wait"), other.start("wait")
    process, server = tasks.processes("wait")
    stopped.stop()
    assert stopped.has_ended
    assert stopped.process.wait() == -signal.SIGTERM
    wait_until_gone(process)
    assert not going.has_ended
    assert is_there(server)
    going.stop()
    assert going.has_ended


def test_tasks_end_with_their_server_and_another_takes_its_place(tasks: Tasks) -> None:
    task = tasks.start("wait")
    process, server = tasks.processes("wait")
    os.kill(server, signal.SIGKILL)
    with pytest.raises(ChildCrashError):
        task.check()
    assert task.process.wait() == -signal.SIGKILL
    wait_until_gone(process, server)
    tasks.start("work").check()


def test_a_task_can_be_stopped_while_its_server_imports(tmp_path: Path) -> None:
    with closing(LocalEngine(fork="tests")) as engine:
        task = Tasks(tmp_path, engine).start("wait")
        task.stop()
        assert task.has_ended
        Tasks(tmp_path, engine).start("work").check()


def client(folder: Path) -> subprocess.Popen[bytes]:
    """A process that starts the task `wait` in a folder, and waits for it."""
    code = (
        "import sys; from pathlib import Path; from potstill.engines.local import LocalEngine\n"
        "engine = LocalEngine(fork=sys.argv[1])\n"
        "engine.start('tests.child_work', Path(sys.argv[2]), threads=1).check()"
    )
    job = folder / "wait/job.json"
    job.parent.mkdir()
    write_json(job, "wait")
    return subprocess.Popen([sys.executable, "-c", code, str(folder / "server"), str(job)], env=environment())


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_server_and_tasks_end_with_a_process_that_is_killed(tmp_path: Path, name: str) -> None:
    process = client(tmp_path)
    processes = Tasks(tmp_path, LocalEngine()).processes("wait")
    process.send_signal(signal.Signals[name])
    process.wait()
    wait_until_gone(*processes)
    assert processes_of(tmp_path) == []


def test_no_task_begins_once_its_client_was_killed(tmp_path: Path) -> None:
    def servers() -> list[str]:
        return [line for line in processes_of(tmp_path) if "potstill.processes.forkserver" in line]

    process, deadline = client(tmp_path), time.monotonic() + 60
    while not servers():
        assert time.monotonic() < deadline, "the server did not begin"
        time.sleep(0.02)
    time.sleep(0.3)  # the task is sent, and the server imports
    process.kill()
    process.wait()
    while servers():
        assert time.monotonic() < deadline, "the server lives on"
        time.sleep(0.02)
    assert not (tmp_path / "wait/pid").exists()


def test_a_server_that_is_busy_with_imports_ends_with_its_client(tmp_path: Path) -> None:
    (tmp_path / "slow_import.py").write_text("import time\ntime.sleep(60)\n", "utf-8")
    server = ForkServer({**os.environ, "PYTHONPATH": str(tmp_path)}, "tests")
    server.start("slow_import", tmp_path / "job.json", tmp_path / "output.txt")
    time.sleep(2)
    server._connection.close()  # as where this process was killed; `close` would kill the server
    assert server._process.wait(20) == 1


def test_closing_ends_what_is_at_work(tmp_path: Path) -> None:
    with closing(LocalEngine(fork="tests")) as engine:
        tasks = Tasks(tmp_path, engine)
        tasks.start("wait")
        processes = tasks.processes("wait")
    wait_until_gone(*processes)


@pytest.mark.parametrize(("device", "forks"), [("cpu", True), ("cuda", False), ("mps", False)])
def test_tasks_are_forks_on_the_cpu(tmp_path: Path, device: str, forks: bool) -> None:
    with open_engine(MachineConfig(), device, tmp_path) as engine:
        assert isinstance(engine, LocalEngine)
        assert (engine.fork is not None) == forks
