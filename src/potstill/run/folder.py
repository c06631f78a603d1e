"""The run folder: what is finished, what is stale and why.

Each stage owns one folder. It first writes `inputs.json` (what it is made from), then its files, last `done.json`.
A stage whose `done.json` agrees with today's inputs is skipped; one that was interrupted is resumed; one that was
made from something else is refused with the difference, or made again with --redo.
"""

import contextlib
import datetime
import hashlib
import json
import shlex
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from potstill.errors import DamageError, PotstillError, StaleError, did_you_mean
from potstill.run.files import REWRITTEN, SEAL, read_json, sha256_of, write_json, write_text
from potstill.run.integrity import file_facts
from potstill.run.reuse import REUSED, EarlierRuns, differences
from potstill.wording import counted

STAGES: dict[str, str] = {
    "1_images": "the photos, decoded once: list, classes, rejected files with reasons, packed pixels",
    "2_teacher": "the large model, trained on your classes",
    "3_soft_labels": "the teacher's outputs for every view of every photo",
    "4_students": "each small model, distilled and alone (its twin), once per seed",
    "5_comparison": "the test photos, read here for the first time: every number, with its interval",
    "6_export": "files to deploy, each scored again on the test photos",
    "7_report": "the page to read: index.html",
}

FORMAT = 3
"""Of run folders, in run.json. Folders of format 1 have no such file."""

_NAMED = 5
"""Runs that a message names."""

Inputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder. `redo` allows finished stages that no longer fit to be made again."""

    path: Path
    redo: bool = False
    earlier: EarlierRuns | None = None
    """Other runs whose finished stages are taken over where they were made from the same inputs."""

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """An existing run folder. Raises PotstillError where there is none, or one of another format."""
        path = Path(path)
        if not (path / "config.toml").is_file():
            raise PotstillError(_no_run(path))
        run = cls(path)
        run.require_format()
        made_with = run._described.get("config")
        if made_with is not None and sha256_of(path / "config.toml") != made_with:
            raise DamageError(f"{path / 'config.toml'} is not the one that this run was made with. {REWRITTEN}")
        return run

    @property
    def format(self) -> int:
        """The format that its files are written in; 0 where run.json does not tell."""
        found = self._described.get("format")
        return found if isinstance(found, int) else 0

    @property
    def _described(self) -> dict[str, Any]:
        """What run.json says. Raises DamageError."""
        path = self.path / "run.json"
        values = read_json(path, REWRITTEN) if path.is_file() else {"format": 1}
        return values if isinstance(values, dict) else {}

    @property
    def id(self) -> str:
        """Of this run; files beside run.json have it, so that none of another run is taken for this one's."""
        return str(self._described.get("id", ""))

    def require_format(self) -> None:
        """Raise StaleError for a run folder that another version of Potstill made."""
        if self.format != FORMAT:
            raise StaleError(
                f"{self.path} was made by another version of Potstill (run format {self.format}; this version reads "
                f"{FORMAT}).\n  Use that version to read it, or make a new run from the same photos."
            )

    def create(self, command: str, config: str) -> bool:
        """Make the folder, or check the format of one that is there. Returns whether it is new.

        Args:
            command: what was typed; run.json keeps it.
            config: the text of config.toml.
        """
        new, id = not (self.path / "config.toml").is_file(), ""
        if not new:
            with contextlib.suppress(DamageError):  # it is written again
                self.require_format()
                id = self.id
        self._remove_leftovers()
        described = {
            "format": FORMAT,
            "potstill": version("potstill"),
            "command": command,
            "id": id or uuid.uuid4().hex,
        }
        described["config"] = hashlib.sha256(config.encode()).hexdigest()
        write_json(self.path / "run.json", described)
        write_text(self.path / "config.toml", config)
        return new

    @property
    def command(self) -> str:
        """What was typed to make the run, or last to go on with it; "" where it was called from Python."""
        return str(self._described.get("command") or "")

    @property
    def resume(self) -> str:
        """What to do to go on with it."""
        return self.command or "call potstill.distill again, with the same arguments"

    def _remove_leftovers(self) -> None:
        """Remove what a killed command has begun to write. Exports and reports may be written meanwhile."""
        for leftover in self.path.rglob(".*.part"):
            if leftover.relative_to(self.path).parts[0] not in ("6_export", "7_report"):
                leftover.unlink(missing_ok=True)

    def stage(self, name: str) -> "Stage":
        """The stage folder `name`, one of STAGES."""
        assert name in STAGES, name
        return Stage(self.path / name, name, self.redo, self.earlier if name in REUSED else None)

    @property
    def images(self) -> Path:
        return self.path / "1_images"

    @property
    def teacher(self) -> Path:
        return self.path / "2_teacher"

    @property
    def soft_labels(self) -> Path:
        return self.path / "3_soft_labels"

    @property
    def students(self) -> Path:
        return self.path / "4_students"

    @property
    def comparison(self) -> Path:
        return self.path / "5_comparison"

    @property
    def export(self) -> Path:
        return self.path / "6_export"

    @property
    def report(self) -> Path:
        return self.path / "7_report"

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the block's seconds to the stage's in `timings.json`; nothing where the stage is finished already."""
        path, working, started = self.path / "timings.json", not self.stage(name).is_done, time.monotonic()
        try:
            yield
        finally:
            if working:
                try:
                    seconds = read_json(path) if path.is_file() else {}
                except DamageError:  # nothing else depends on times
                    seconds = {}
                if seconds.get("run", self.id) != self.id:
                    seconds = {}
                seconds["run"] = self.id
                seconds[name] = round(seconds.get(name, 0) + time.monotonic() - started, 1)
                write_json(path, seconds)

    def gray_levels(self) -> dict[str, list[float]]:
        """Black and white of gray photos with more than 8 bits, as decided for all; empty without such photos."""
        done = self.images / "done.json"
        return dict(read_json(done).get("gray_levels", {})) if done.is_file() else {}

    def classes(self) -> list[str]:
        """The class names, in label order."""
        return (self.images / "classes.txt").read_text("utf-8").splitlines()

    @property
    def is_worked_on(self) -> bool:
        """Whether a process is at work in this run."""
        try:
            with FileLock(self.path / ".lock", timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # the folder may only be read
            return _is_held(self.path / ".lock")

    @contextlib.contextmanager
    def only_here(self, work: str = "") -> Iterator[None]:
        """Keep other processes out while the block works. Raises PotstillError when one is at work in this run.

        Args:
            work: of a kind that disturbs only its own kind, such as "export"; empty for work on the stages.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / (f".{work}.lock" if work else ".lock"))
        try:
            lock.acquire(timeout=0.2)  # `is_worked_on` holds it for a moment
        except Timeout:
            raise PotstillError(
                f"Another process is at work in {self.path}. Wait for it, stop it, or take another --run folder."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def write_readme(self) -> None:
        """`README.md`: what each folder is, what is missing, what to type next."""
        done = {name: self.stage(name).is_done for name in STAGES}
        lines = [f"# {self.path.name}", "", "A run of Potstill. Made by the tool; yours to read.", ""]
        lines += ["| folder | what | state |", "|---|---|---|"]
        lines += [
            f"| `{name}/` | {text} | {'finished' if done[name] else 'not yet'} |" for name, text in STAGES.items()
        ]
        lines += [
            "",
            '`config.toml`: every setting; what "auto" became stands in each model.json. '
            "`environment.json`: machine and versions. `log.txt`: what was printed.",
            "",
            "## Next, from the folder that this one lies in" if done["5_comparison"] else "## Next",
            "",
            *(f"    {command}" for command in self._next(done)),
            "",
        ]
        write_text(self.path / "README.md", "\n".join(lines))

    def _next(self, done: Mapping[str, bool]) -> list[str]:
        """Commands. A finished run is passed on: where it lies on this machine is nobody's business."""
        run = shlex.quote(str(self.path))
        if not done["5_comparison"]:
            return [
                f"potstill status {run}     # what it is doing",
                f"{self.resume}     # resume it, if it was stopped",
            ]
        return [f"{command}     # {what}" for command, what in next_commands(Path(self.path.resolve().name))]


def next_commands(run: Path) -> list[tuple[str, str]]:
    """What to type once a run is finished, and what for."""
    path = shlex.quote(str(run))
    return [
        (f"potstill open {path}", "the report in your browser"),
        (f"potstill predict {path} photo.jpg", "classify a photo"),
        (f"potstill export {path} --to onnx", "a file to deploy; predict starts faster with it"),
    ]


@dataclass(frozen=True, slots=True)
class Stage:
    """One folder of finished files."""

    path: Path
    name: str
    redo: bool = False
    earlier: EarlierRuns | None = None

    @property
    def is_done(self) -> bool:
        return (self.path / "done.json").is_file()

    def begin(self, inputs: Inputs) -> bool:
        """Make the folder ready for work.

        Args:
            inputs: what the stage is made from, as plain JSON values.
        Returns:
            False when it is finished already, from these very inputs, here or in an earlier run that it is then taken
            over from; True when there is work to do. Files of an interrupted attempt with the same inputs are kept,
            others are removed.
        Raises:
            StaleError: finished, but from other inputs, and `redo` is off.
        """
        wanted = json.loads(json.dumps(inputs))
        if self.is_done:
            made_from = read_json(self.path / "done.json")["inputs"]
            if made_from == wanted:
                return False
            if not self.redo:
                raise StaleError(
                    f"{self.name} was made from other settings or photos:\n"
                    + "\n".join(f"    {line}" for line in differences(made_from, wanted)[:8])
                    + "\n  Add --redo to make it again (and all that follows from it), or take another --run folder."
                )
            shutil.rmtree(self.path)
        if self.earlier and self.earlier.take_over(self.path, wanted):
            return False
        if (self.path / "inputs.json").is_file() and read_json(self.path / "inputs.json") != wanted:
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.rglob("*.part"):
            leftover.unlink()
        write_json(self.path / "inputs.json", wanted)
        return True

    def finish(self, *, passing: Collection[str] = (), **facts: Any) -> None:
        """Mark the stage as finished. `facts` (counts, seconds) are kept beside the inputs, and so are the sizes and
        hashes of its files.

        Args:
            passing: names of files that a later stage removes.
        """
        inputs = read_json(self.path / "inputs.json")
        write_json(self.path / "done.json", {"inputs": inputs, **facts, "files": file_facts(self.path, passing)})
        (self.path / "inputs.json").unlink()
        for sealed in self.path.rglob(f"*{SEAL}"):
            sealed.unlink()

    def reopen(self) -> None:
        """Forget that the stage is finished, if it is. Its files stay."""
        (self.path / "done.json").unlink(missing_ok=True)

    def record(self, inputs: Inputs, **facts: Any) -> None:
        """Mark a folder of parts that are finished one by one; unlike `begin`, nothing is ever removed."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "done.json", {"inputs": json.loads(json.dumps(inputs)), **facts})

    def digest(self) -> str:
        """A short hash of everything that the finished stage was made from, for the inputs of the next one."""
        return hashlib.sha256(json.dumps(self.facts()["inputs"], sort_keys=True).encode()).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """The facts of `finish`. Raises PotstillError when the stage is not finished."""
        if not self.is_done:
            raise PotstillError(f"{self.path} is not finished. Run `potstill distill` on this run folder first.")
        return dict(read_json(self.path / "done.json"))


def _no_run(path: Path) -> str:
    """What is said of a path that is no run folder: what it is, and which runs there are near it."""
    if not path.exists():
        what, beside = f"There is no run folder {path}.", path.parent
        what += did_you_mean(path.name, (run.name for run in _runs_in(beside)))
    elif exported := _exported_in(path):
        names = ", ".join(map(str, exported))
        return f"{path} is a folder of exported files, not a run folder.\n  Name one of its files: {names}."
    elif path.is_dir():
        what, beside = f"{path} is not a run folder (it has no config.toml).", path
    else:
        what, beside = f"{path} is a file, not a run folder.", Path("runs")
    if not (found := _runs_in(beside) or _runs_in(Path("runs"))):
        return f"{what}\n  `potstill distill DATA` makes one under runs/ and prints its name."
    more = f", and {counted(len(found) - _NAMED, 'older one')}" if len(found) > _NAMED else ""
    names = ", ".join(map(str, found[:_NAMED]))
    return f"{what}\n  Run folders here: {names}{more}. `potstill distill DATA` makes new ones."


def _exported_in(folder: Path) -> list[Path]:
    """The exported files in a folder, or in the folders of students in it."""
    manifests = [*folder.glob("manifest.json"), *sorted(folder.glob("*/manifest.json"))]
    files = (file for manifest in manifests for file in sorted(manifest.parent.glob("student*.*"), key=_by_stem))
    return [file for file in files if file.suffix != ".bin"]  # the weights of an .xml beside it


def _by_stem(path: Path) -> str:
    """The order of names in which student.onnx comes before student-int8.onnx."""
    return path.stem


def _runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, the newest first."""
    configs = sorted(folder.glob("*/config.toml"), key=lambda path: -path.stat().st_mtime)
    return [path.parent for path in configs]


def new_run_name(data: Path, teacher: str) -> str:
    """`2026-11-22_flowers_densenet201`."""
    day = datetime.datetime.now().astimezone().date().isoformat()
    return f"{day}_{_plain(Path(data).resolve().name)}_{_plain(teacher)}"


def _is_held(lock: Path) -> bool:
    """Whether a process has this lock, asked without writing."""
    try:
        import fcntl
    except ImportError:  # Windows, where a lock that is held cannot be opened at all
        return False
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it may not be read
        return False
    return False


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.") or "data"
