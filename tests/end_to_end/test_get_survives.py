"""`get` as a process that is killed, interrupted, or runs out of disk: it goes on, and ends as if nothing had been."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.servers.faults import PASSING, PERMANENT, Fault, notice
from tests.servers.helpers import assert_sound, open_images, photos
from tests.servers.loopback import Server
from tests.servers.openimages import World

from potstill.get import provenance
from potstill.images.reasons import REASONS, action

DRIVER = """
import sys
from pathlib import Path
from potstill.get.run import GetRequest, get
from potstill.get.limits import Limits
from potstill.monitoring.progress import Reporter

into, address, train, test = sys.argv[1:]
limits = Limits(tries=2, backoff_seconds=0.01, backoff_cap_seconds=0.1, read_seconds=3, photo_seconds=15,
                max_bytes=2**20, failures_to_park=1000, per_host=16)
request = GetRequest(classes=("cat", "dog"), into=Path(into), train=int(train), test=int(test), limits=limits,
                     allow_private=(address,))
result = get(request, Reporter(quiet=True))
sys.exit(0 if result.is_complete else 1)
"""
"""The command with less patience, so that silent servers do not take the test minutes."""


_CODES = {name: code for name, (_, code) in PERMANENT.items()} | {"notice": "placeholder"}
"""The reason that must stand in the provenance, by fault."""


def start(into: Path, server: Server, train: int, test: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(into), server.address, str(train), str(test)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def wait_for_requests(server: Server, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while len(server.log) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def bad_world(per_class: int, share: float) -> tuple[World, dict[str, str]]:
    """A world in which `share` of the photos fail in every way there is, and the fault of each bad one."""
    world = World({"validation": {"Cat": per_class, "Dog": per_class}})
    kinds: dict[str, Fault] = {name: fault for name, (fault, _) in PERMANENT.items()} | PASSING | {"notice": notice}
    slow = {"silence", "slow_drip"}
    names = [name for name in kinds for _ in range(1 if name in slow else 4)]
    draw = random.Random(0)
    faults = {}
    for label in ("Cat", "Dog"):
        for image_id in world.ids("validation", label):
            if draw.random() < share:
                faults[image_id] = draw.choice(names)
    world.faults = {image_id: kinds[name] for image_id, name in faults.items()}
    return world, faults


@pytest.mark.slow
@pytest.mark.long
def test_2000_photos_30_percent_faults_5_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, faults = bad_world(1600, 0.3)
    assert set(faults.values()) == {*PERMANENT, *PASSING, "notice"}
    killed = tmp_path / "killed"
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        for round in range(5):
            process = start(killed, server, 700, 300)
            wait_for_requests(server, len(server.log) + 250 + 40 * round, process)
            process.send_signal(signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL, "it was at work when it was killed"
        assert start(killed, server, 700, 300).wait(300) == 0
    kept = assert_sound(killed)
    for label in ("cat", "dog"):
        assert sum(path.startswith(f"train/{label}/") for path in kept) == 700
        assert sum(path.startswith(f"test/{label}/") for path in kept) == 300
    tried = 0
    for entry in provenance.latest(killed):
        name = faults.get(entry["key"].removeprefix("openimages-"), "")
        tried += 1
        if name in _CODES:
            assert entry["status"] == ("failed" if action(_CODES[name]) == "retry" else "rejected"), (name, entry)
            assert entry["reason"] == _CODES[name], (name, entry)
        else:
            assert entry["status"] == "ok", (name, entry)
    assert tried > 2400
    assert {entry.get("reason", "connection") for entry in provenance.latest(killed)} <= set(REASONS)


def test_killed_runs_end_with_the_same_files_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, faults = bad_world(240, 0.3)
    slow = {image_id for image_id, name in faults.items() if action(_CODES.get(name, "gone")) == "retry"}
    world.faults = {image_id: fault for image_id, fault in world.faults.items() if image_id not in slow}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        for _ in range(3):
            process = start(killed, server, 90, 40)
            wait_for_requests(server, len(server.log) + 60, process)
            process.send_signal(signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
        assert start(killed, server, 90, 40).wait(200) == 0
        assert start(whole, server, 90, 40).wait(200) == 0
    assert len(assert_sound(killed)) == 260
    assert photos(killed) == photos(whole)


def test_ctrl_c_ends_with_130_and_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 900, "Dog": 900}})
    data = tmp_path / "data"
    command = [
        sys.executable,
        "-m",
        "potstill",
        "get",
        "cat",
        "dog",
        "--into",
        str(data),
        "--train",
        "300",
        "--test",
        "150",
    ]
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        command += ["--allow-private", server.address]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        wait_for_requests(server, 120, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130, errors.decode()
        assert b"Stopped. What was finished is kept. To resume: " in errors
        assert b"Traceback" not in errors
        assert_sound(data)
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
    assert len(assert_sound(data)) == 900


def can_mount() -> bool:
    command = ["unshare", "-rm", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="this system lets nobody mount a small disk")
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real disk of 1 MB; the space check beforehand is bypassed by asking a folder on a larger one."""
    world = World({"validation": {"Cat": 900}})
    data, saved = tmp_path / "data", tmp_path / "saved"
    (data / "train" / "cat").mkdir(parents=True)
    script = (
        f"mount -t tmpfs -o size=600k small {data}/train/cat && "
        f"{sys.executable} -m potstill get cat --into {data} --train 300 --test 0 --allow-private $1; "
        f"code=$?; cp -a {data}/. {saved}; exit $code"
    )
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = ["unshare", "-rm", "sh", "-c", script, "sh", server.address]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        assert done.returncode == 2, done.stderr.decode()
        assert b"is full" in done.stderr
        assert b"Traceback" not in done.stderr
        first = photos(saved)
        assert 20 < len(first) < 300
        assert_sound(saved)
        command = [
            sys.executable,
            "-m",
            "potstill",
            "get",
            "cat",
            "--into",
            str(saved),
            "--train",
            "300",
            "--test",
            "0",
        ]
        subprocess.run([*command, "--allow-private", server.address], env=environment, check=True, timeout=120)
    assert first < photos(saved)
    assert len(assert_sound(saved)) == 300
