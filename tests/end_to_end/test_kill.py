"""Killed in the middle of every stage, one after the other, the same command still ends with the same weights."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.support import TINY, environment, flags, processes_of, weight_hashes

import potstill
from potstill.monitoring.progress import Reporter

DYING = Path(__file__).with_name("dying.py")


class Victim:
    """One run folder that is worked on, and killed, again and again."""

    def __init__(self, data: Path, run: Path) -> None:
        self.data, self.run = data, run
        self.output = run.with_name("output.txt")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, str(DYING)], stdin=pipe, stdout=pipe, env=environment())

    def __call__(self, point: str, signal: str = "SIGKILL", **settings: Any) -> int:
        """Run `distill` up to the point. Returns its exit code, or minus the signal."""
        wanted = TINY | {name.replace("__", "."): value for name, value in settings.items()}
        arguments = ["distill", str(self.data), "--run", str(self.run), *flags(wanted)]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([point, signal, arguments, str(self.output)]).encode() + b"\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def said(self) -> str:
        """What the last command printed."""
        return self.output.read_text("utf-8")

    def done(self) -> list[str]:
        """The finished stages."""
        return sorted(p.parent.name for p in self.run.glob("*/done.json"))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def victim(photos: Path, tmp_path: Path) -> Iterator[Victim]:
    victim = Victim(photos, tmp_path / "run")
    yield victim
    victim.close()


STAGES = ["1_images", "2_teacher", "3_soft_labels", "4_students", "5_comparison"]


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_weights_of_an_unbroken_run(
    victim: Victim, tiny_run: "potstill.Result"
) -> None:
    for point, finished in [
        ("packing", 0),
        ("features", 1),
        ("head", 1),
        ("fold", 1),
        ("soft labels", 2),
        ("rendering", 3),
        ("student", 3),
        ("twin", 3),
    ]:
        assert victim(point) == -9, f"{point}: {victim.said()}"
        assert victim.done() == STAGES[:finished], point
    for point in ("children import", "children train"):
        assert victim(point, machine__jobs=2) == -9, f"{point}: {victim.said()}"
        assert victim.done() == STAGES[:3], point
        _wait_for_orphans(victim.run)
    assert victim("children train", "SIGINT", machine__jobs=2) == 130, victim.said()
    assert processes_of(victim.run) == [], "Ctrl-C leaves no process behind"
    assert victim("comparison") == -9, victim.said()
    assert victim.done() == STAGES[:4]
    assert victim("report") == -9, victim.said()
    assert victim.done() == STAGES
    assert victim("nowhere") == 0, victim.said()
    assert weight_hashes(victim.run) == weight_hashes(tiny_run.path)
    ours = json.loads((victim.run / "5_comparison/comparison.json").read_text("utf-8"))
    assert ours["students"][0]["difference"] == asdict(tiny_run.comparison.students[0].difference)
    assert (victim.run / "7_report/index.html").is_file()
    left = [p.name for p in victim.run.rglob("*") if p.suffix in (".part", ".growing", ".checkpoint")]
    left += [p.name for p in victim.run.rglob("checkpoint.safetensors")]
    assert left == []


@pytest.mark.slow
@pytest.mark.long
def test_killed_before_and_after_the_twins_length_is_chosen_it_ends_with_the_same_weights(
    victim: Victim, tiny_run: "potstill.Result", photos: Path, tmp_path: Path
) -> None:
    lengths = [1.0, 0.67]
    for run in (victim.run, tmp_path / "unbroken"):
        shutil.copytree(tiny_run.path, run, ignore=shutil.ignore_patterns("4_students", "5_comparison", "7_report"))
    for point in ("length", "chosen length", "copied length"):
        assert victim(point, twin__length_shares=lengths) == -9, f"{point}: {victim.said()}"
        assert victim.done() == STAGES[:3], point
    assert victim("nowhere", twin__length_shares=lengths) == 0, victim.said()
    settings = TINY | {"twin.length_shares": lengths}
    unbroken = potstill.distill(photos, settings=settings, run=tmp_path / "unbroken", reporter=Reporter(quiet=True))
    assert (unbroken.path / "4_students/mobilenetv1_025-32px/pilots/alone-2-epochs/done.json").is_file()
    assert weight_hashes(victim.run) == weight_hashes(unbroken.path)


def _wait_for_orphans(run: Path) -> None:
    """Children of a killed parent stop within seconds of it: nobody else may write to the folder."""
    deadline = time.monotonic() + 20
    while processes_of(run):
        assert time.monotonic() < deadline, f"still running: {processes_of(run)}"
        time.sleep(0.1)


def test_ctrl_c_keeps_the_state_and_says_how_to_go_on(victim: Victim) -> None:
    assert victim("features", "SIGINT") == 130
    assert "Traceback" not in victim.said()
    assert "\nAbout " in victim.said(), "time and disk are estimated before the work"
    assert " GB of disk (" in victim.said()
    assert "Decoding photos: 66 photos in" in victim.said()
    assert "\x1b" not in victim.said()
    assert "What was finished is kept. To resume: potstill distill " in victim.said()
    assert f"--run {victim.run}" in victim.said().splitlines()[-1]
    assert victim.done() == ["1_images"]
    readme = (victim.run / "README.md").read_text("utf-8")
    typed = victim.said().splitlines()[-1].partition("To resume: ")[2]
    assert f"    {typed}     # resume" in readme, "the command that was typed"
    assert readme.count("| finished |") == 1
