"""Photos are packed by threads or by processes: the same store either way, and no process stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from potstill.data.pixels import PixelStore
from potstill.images import pack
from potstill.processes import pools
from potstill.processes.pools import process_pool


def test_processes_pack_what_threads_pack(
    photos: Path, packer: Callable[..., PixelStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = []
    monkeypatch.setattr(pools, "process_pool", lambda: began.append(True) or process_pool())
    monkeypatch.setattr(pack, "PROCESSES_FROM", 0)
    monkeypatch.setattr(pack, "available_cores", lambda: 2)
    packer(photos, tmp_path / "threads")
    assert not began
    monkeypatch.setattr(pack, "available_cores", lambda: 3)
    packer(photos, tmp_path / "processes")
    assert began
    for name in ("pixels.bin", "index.npy", "images.csv", "rejected.csv"):
        one, other = (tmp_path / side / "1_images" / name for side in ("threads", "processes"))
        assert one.read_bytes() == other.read_bytes(), name


def test_what_a_worker_raises_arrives() -> None:
    with process_pool() as pool, pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()


SCRIPT = """
import os, time
from potstill.processes.pools import process_pool

with process_pool() as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 60).result()
"""
"""Without `if __name__ == "__main__"`, as people write it."""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert worker != parent.pid
    assert Path(f"/proc/{worker}").is_dir()
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}").is_dir():
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.1)
