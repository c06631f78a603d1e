"""The main job, from photos to report. Each line reads finished folders and writes only its own."""

import shlex
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from potstill.comparison.stage import compare
from potstill.compute.device import decide, environment
from potstill.compute.quick_resize import quick_bicubic
from potstill.config.load import from_mapping, to_toml
from potstill.config.schema import Config
from potstill.deploy.predictor import Predictor, load_predictor, student_names
from potstill.estimate import Estimate, estimate
from potstill.images.folder import Folder, read_folder
from potstill.images.stage import collect_images
from potstill.models.classifier import describe
from potstill.monitoring.progress import Reporter, duration
from potstill.monitoring.track import check_tracker, tracking
from potstill.report.stage import write_report
from potstill.run.files import check_space, read_json, write_json, write_text
from potstill.run.folder import Run, new_run_name
from potstill.soft_labels.stage import store_soft_labels
from potstill.students.budget import candidates, is_set
from potstill.students.stage import parse_students, train_students, views_for
from potstill.teacher.stage import train_teacher

DEFAULT_STUDENT = "mobilenetv3_small_100"

QUICK: dict[str, Any] = {
    "seeds": 1,
    "views.count": 2,
    "teacher.probe_views": 1,
    "teacher.probe_epochs": 20,
    "teacher.folds": 3,
    "student.epochs": 3,
    "student.pilot_share": 0.0,
}
"""What `--quick` changes: enough to see every stage work, not to judge anything."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    run: Run

    @property
    def path(self) -> Path:
        return self.run.path

    @cached_property
    def comparison(self) -> dict[str, Any]:
        """The content of comparison.json."""
        return dict(read_json(self.run.comparison / "comparison.json"))

    @property
    def students(self) -> list[str]:
        """Names of the students."""
        return student_names(self.run)

    @cached_property
    def student(self) -> Predictor:
        """The student that was chosen on val, distilled, with the seed that is best on val."""
        return load_predictor(self.path)

    @property
    def report(self) -> Path:
        """The page to read."""
        return self.run.report / "index.html"

    def verdicts(self) -> list[str]:
        """One sentence per student."""
        return [student["verdict"] for student in self.comparison["students"]]


def distill(
    data: Path | str,
    *,
    students: Sequence[str] | None = None,
    teacher: Sequence[str] | str | None = None,
    classes: Sequence[str] | None = None,
    seeds: int | None = None,
    config: Config | None = None,
    settings: Mapping[str, Any] | None = None,
    run: Path | str | None = None,
    quick: bool = False,
    redo: bool = False,
    track: str | None = None,
    reporter: Reporter | None = None,
) -> Result:
    """Photos in, the smallest classifier that is still right out, with proof.

    Args:
        data: the photo folder, see `potstill.images.folder.read_folder`.
        students, teacher, classes, seeds: short for settings of these names.
        config: all settings; the defaults when None.
        settings: single settings by dotted name, such as `{"student.lr": 1e-3}`; they win over `config`.
        run: the run folder; a fitting unfinished or finished one under `runs/`, or a new one, when None.
        quick: seconds instead of minutes, to see that everything works; the numbers mean nothing.
        redo: make stages again that were made from other settings or photos.
        track: "tensorboard", "trackio", "mlflow" or "wandb": follow the trainings there, too.
        reporter: where to print.
    Raises:
        PotstillError: whatever a user can mend, before any long work where possible.
    """
    short = {"student.models": students, "images.classes": classes, "seeds": seeds}
    short["teacher.model"] = [teacher] if isinstance(teacher, str) else teacher
    wanted = {name: value for name, value in short.items() if value is not None} | dict(settings or {})
    config = from_mapping({**(QUICK if quick else {}), **wanted}, base=config)
    data = Path(data)
    reporter = reporter or Reporter()
    check_tracker(track)
    config = with_students(config, check(data, config))
    folder = Run(Path(run) if run is not None else find_run(data, config), redo)
    with folder.only_here():
        reporter.log_to(folder.path / "log.txt")
        started = time.monotonic()
        _describe_run(folder, data, config, reporter)
        with tracking(folder, track, reporter):
            _stages(data, config, folder, reporter)
        folder.write_readme()
        reporter.info(f"Done in {duration(time.monotonic() - started)}: {folder.path}")
    return Result(folder)


def _stages(data: Path, config: Config, run: Run, reporter: Reporter) -> None:
    """The whole job, top to bottom."""
    machine = decide(config.machine)
    write_json(run.path / "environment.json", environment(machine))
    if not run.stage("1_images").is_done:
        expected = estimate(data, config)
        for line in expected.lines():
            reporter.info(line)
        check_space(run.path, sum(expected.disk.values()), "This run")
    largest = max(model_sizes(config))
    with run.timed("1_images"):
        store = collect_images(data, config.images, largest, run, reporter, resize=quick_bicubic)
    run.write_readme()
    with run.timed("2_teacher"):
        train_teacher(config.teacher, config.views, store, run, machine, reporter)
    views = views_for(config, len(store.rows("train", "unlabeled")))
    with run.timed("3_soft_labels"):
        store_soft_labels(config.teacher, config.views, views, store, run, machine, reporter)
    with run.timed("4_students"):
        train_students(config, store, run, machine, reporter)
    with run.timed("5_comparison"):
        compare(config, student_names(run), store, run, machine, reporter)
    write_report(run)


def check(data: Path, config: Config) -> Folder:
    """The cheap checks: the folder's names, the models' names. Nothing is read or built."""
    folder = read_folder(data, classes=config.images.classes)
    model_sizes(config)
    return folder


def with_students(config: Config, folder: Folder) -> Config:
    """The config with its students named: as given, by the budget, or the default one."""
    if config.student.models:
        return config
    names = candidates(config, len(folder.classes)) if is_set(config.budget) else (DEFAULT_STUDENT,)
    return from_mapping({"student.models": names}, base=config)


def model_sizes(config: Config) -> list[int]:
    """The input sizes of all models of the run. Raises ModelError for unknown names."""
    size = None if config.teacher.size == "auto" else config.teacher.size
    teachers = [describe(name, (), size=size).size for name in config.teacher.model]
    return teachers + [describe(spec.model, (), size=spec.size).size for spec in parse_students(config)]


def dry_run(data: Path, config: Config) -> Estimate:
    """What the run would take, without starting it."""
    return estimate(data, with_students(config, check(data, config)))


def find_run(data: Path, config: Config, runs: Path = Path("runs")) -> Path:
    """The newest run of this data and teacher with these very settings, or a new name."""
    name = new_run_name(data, "+".join(config.teacher.model))
    stem = name.split("_", 1)[1]
    wanted = _config_text(data, config)
    same = [
        path
        for path in sorted(runs.glob(f"*_{stem}*"))
        if (path / "config.toml").is_file() and (path / "config.toml").read_text("utf-8") == wanted
    ]
    if same:
        return same[-1]
    number = 1
    while (runs / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return runs / (name if number == 1 else f"{name}-{number}")


def _describe_run(run: Run, data: Path, config: Config, reporter: Reporter) -> None:
    """config.toml, the log's head, and .gitignore."""
    new = not (run.path / "config.toml").is_file()
    run.path.mkdir(parents=True, exist_ok=True)
    write_text(run.path / "config.toml", _config_text(data, config))
    write_text(run.path / ".gitignore", "*\n")
    reporter.write_log("Command: " + shlex.join(["potstill", *sys.argv[1:]]))
    reporter.info(f"{'New run' if new else 'Going on with'} {run.path}")
    if new and (other := _same_soft_labels(run.path)):
        reporter.info(
            f"Hint: {other} has the same photos and teacher; with --run {other} only the students would be trained."
        )


def _same_soft_labels(path: Path) -> Path | None:
    """Another run beside this one whose soft labels would serve this config too."""
    wanted = tomllib.loads((path / "config.toml").read_text("utf-8"))
    for other in sorted(path.parent.glob("*/3_soft_labels/done.json"), reverse=True):
        if other.parent.parent == path:
            continue
        try:
            settings = tomllib.loads((other.parent.parent / "config.toml").read_text("utf-8"))
        except (OSError, tomllib.TOMLDecodeError):
            continue
        if all(settings.get(key) == wanted.get(key) for key in ("data", "images", "views", "teacher")):
            return other.parent.parent
    return None


def _config_text(data: Path, config: Config) -> str:
    # A run is the same run on fewer cores: how the machine is used is not part of what identifies it.
    plain = replace(config, machine=type(config.machine)())
    return f"data = {str(data.resolve())!r}\n\n{to_toml(plain)}"
