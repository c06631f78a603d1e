"""The tiny job that the campaign disturbs: photos, an undisturbed run, and runs that were stopped on the way."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support import TINY, environment, flags, make_photos, weight_hashes
from tests.torture.cases import potstill

DYING = Path(__file__).parents[1] / "end_to_end/dying.py"

STOPS = ("packing", "features", "head", "soft labels", "rendering", "student", "twin")
"""Moments of tests/end_to_end/dying.py that leave unfinished files behind."""


@dataclass(frozen=True)
class TinyJob:
    """A whole job of seconds, in a folder of its own. Everything is made when it is first asked for."""

    home: Path

    @cached_property
    def photos(self) -> Path:
        """The photo folder."""
        folder = self.home / "photos"
        if not folder.is_dir():
            make_photos(self.home / "photos.part", {"train": 12, "val": 5, "test": 5, "unlabeled": 2})
            (self.home / "photos.part").rename(folder)
        return folder

    def command(self, run: Path, **more: Any) -> list[str | Path]:
        """`potstill distill …` without the first word."""
        return ["distill", self.photos, "--run", run, *flags(TINY | more)]

    @cached_property
    def undisturbed(self) -> Path:
        """A run that nothing happened to."""
        run = self.home / "undisturbed"
        answer = potstill(self.command(run))
        assert answer.code == 0, answer.errors
        return run

    @cached_property
    def other(self) -> Path:
        """A run of the same photos with other views."""
        run = self.home / "other"
        if not (run / "7_report/done.json").is_file():
            answer = potstill(self.command(run, **{"views.seed": 5}))
            assert answer.code == 0, answer.errors
        return run

    @cached_property
    def result(self) -> dict[str, Any]:
        """What every run must end with."""
        return result_of(self.undisturbed)

    def stopped(self, point: str) -> Path:
        """A run that was killed at one of STOPS."""
        run = self.home / f"stopped at {point}"
        if not run.is_dir():
            order = [point, "SIGKILL", list(map(str, self.command(run))), str(self.home / "output.txt")]
            lines = json.dumps(order) + "\n"
            subprocess.run(
                [sys.executable, str(DYING)], input=lines.encode(), env=environment(), check=True, capture_output=True
            )
            assert run.is_dir(), (self.home / "output.txt").read_text("utf-8")
        return run


def result_of(run: Path) -> dict[str, Any]:
    """The weights and numbers of a finished run; without times and speeds, which differ from run to run."""
    comparison = json.loads((run / "5_comparison/comparison.json").read_text("utf-8"))
    return {"weights": weight_hashes(run), "comparison": _without_times(comparison)}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        timed = ("milliseconds", "seconds", "seconds_per_seed", "environment", "checksum", "megabytes_per_second")
        return {key: _without_times(item) for key, item in value.items() if key not in timed}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def follows_advice(job: TinyJob, said: str, run: Path) -> bool:
    """Whether a refused run ends as it must once what its message says is done: remove this, and run again."""
    for _ in range(3):
        named = next((word for word in re.split(r"[\s`'\"]", said) if word.startswith(f"{run}/")), None)
        advice = re.search(r"(?:Remove|Delete) (it|its folder|/\S+)", said)
        if named is None:
            return False
        if advice:
            file = Path(named.rstrip(".:,"))
            path = {"it": file, "its folder": file.parent}.get(advice[1], Path(advice[1].rstrip(".:,")))
            if path == run or run not in path.parents:
                return False  # never the whole run
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        answer = potstill(job.command(run))
        if answer.code == 0:
            return result_of(run) == job.result
        said = answer.errors
    return False


def leftovers(run: Path) -> list[str]:
    """Files that a finished run must not have."""
    names = ("*.part", "*.growing", "*.sums", "*.seal", "*checkpoint*", "worker.json", "step.txt", "output.txt")
    return sorted(str(path.relative_to(run)) for name in names for path in run.rglob(name))


def copy_of(run: Path, folder: Path) -> Path:
    """A copy to disturb."""
    shutil.copytree(run, folder, symlinks=True)
    return folder


def files_of(run: Path) -> list[Path]:
    """Every file of a run, by its path there, sorted."""
    return sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())


def of_kinds(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files by their kind: the stage and the name, whatever student, seed or arm."""
    kinds: dict[str, list[Path]] = {}
    for file in files:
        stage = file.parts[0] if len(file.parts) > 1 else ""
        kinds.setdefault(f"{stage}/{file.name}".lstrip("/"), []).append(file)
    return kinds
