"""The pipeline of `potstill distill`, from photos to report. Each stage reads finished folders and writes only its own.

Stage 6, the export, is a command of its own: `potstill export`.
"""

import contextlib
import inspect
import itertools
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from potstill.comparison.labels import compare_labels
from potstill.comparison.stage import compare
from potstill.compute.device import decide, environment
from potstill.compute.machine import Machine
from potstill.compute.quick_resize import quick_bicubic
from potstill.config.load import from_mapping, settings, to_toml
from potstill.config.quick import QUICK
from potstill.config.schema import Config
from potstill.context import Context
from potstill.data.pixels import PixelStore
from potstill.data.unlike import used_rows
from potstill.deploy.predictor import Predictor, load_predictor
from potstill.engines.engine import Engine
from potstill.engines.opening import open_engine
from potstill.errors import ConfigError, PotstillError, did_you_mean
from potstill.estimate import estimate
from potstill.images.folder import Folder
from potstill.images.stage import collect_images
from potstill.models.classifier import describe
from potstill.models.weights import Role, require_weights
from potstill.monitoring.progress import Reporter, duration
from potstill.monitoring.track import check_tracker, tracking
from potstill.planning import Plan, make_plan, with_students
from potstill.reading import read_photos, runs_beside, with_absolute_paths
from potstill.report.notebook import Figure, cost_figure, result_html
from potstill.report.read import RunFiles
from potstill.report.stage import write_report
from potstill.run.command import typed_command
from potstill.run.files import check_space, read_json, read_toml_text, with_checksum, write_json, write_text
from potstill.run.folder import FORMAT, STAGES, Run, new_run_name
from potstill.run.integrity import require_whole
from potstill.run.label_results import LabelComparison, read_label_comparison
from potstill.run.layout import ARMS, comparison_path, is_trained, student_names, usable_students
from potstill.run.results import Comparison, read_comparison
from potstill.run.reuse import EarlierRuns, differences
from potstill.soft_labels.stage import store_soft_labels
from potstill.storage.addresses import Address
from potstill.storage.runs import worked_on
from potstill.students.operating_point import require_val_photos
from potstill.students.stage import train_students
from potstill.teacher.stage import train_teacher
from potstill.wording import counted, from_here

TIMING = "Timing the models on this machine, for the estimate"


@dataclass(frozen=True)
class Result:
    """A finished run."""

    run: Run

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.run.path

    @cached_property
    def comparison(self) -> Comparison:
        """What was measured on the test photos. Raises DataError where they have several labels: see `scores`."""
        return read_comparison(comparison_path(self.run))

    @cached_property
    def scores(self) -> LabelComparison:
        """What was measured on test photos with several labels. Raises DataError where they have one each."""
        return read_label_comparison(comparison_path(self.run))

    @property
    def several_labels(self) -> bool:
        """Whether a photo may have several labels."""
        return PixelStore(self.run.images).several_labels

    @property
    def students(self) -> list[str]:
        """Names of the students."""
        return student_names(self.run) if self.run.stage("4_students").is_done else usable_students(self.run)

    @property
    def is_compared(self) -> bool:
        """Whether there is a comparison; there is none before the twins are trained."""
        return comparison_path(self.run).is_file()

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
        compared = {}
        if self.is_compared:
            students = self.scores.students if self.several_labels else self.comparison.students
            compared = {student.name: student.verdict for student in students}
        nothing = "nothing was compared, because its twin is not trained."
        return [*compared.values(), *(f"{n}: {nothing}" for n in usable_students(self.run) if n not in compared)]

    def plot(self, cost: str = "macs") -> Figure:
        """Accuracy against cost for teacher, students and twins; a notebook shows it, `.save("plot.svg")` keeps it.

        Args:
            cost: "macs" (multiply-accumulates per photo), "bytes" (of the weights) or "milliseconds" (per photo).
        Raises:
            ConfigError: there is no such cost.
        """
        return cost_figure(self.comparison, cost)

    def _repr_html_(self) -> str:
        if not self.is_compared or self.several_labels:
            return "".join(f"<p>{escape(verdict)}</p>" for verdict in self.verdicts())
        return result_html(RunFiles(self.run))


def distill(
    data: Path | str,
    *,
    students: Sequence[str] | None = None,
    teacher: Sequence[str] | str | None = None,
    classes: Sequence[str] | None = None,
    labels: Path | str | None = None,
    seeds: int | None = None,
    config: Config | None = None,
    settings: Mapping[str, Any] | None = None,
    run: Path | str | None = None,
    quick: bool = False,
    redo: bool = False,
    track: str | None = None,
    twin: bool = True,
    reporter: Reporter | None = None,
    folder: Folder | None = None,
    **unknown: Any,
) -> Result:
    """Train a teacher, students and their twins on a folder of photos, and compare them on its test photos.

    Args:
        data: the photo folder, a table of labels, or an archive, see `potstill.images.source.open_photos`; also in
            storage, such as s3://bucket/photos.
        students, teacher, classes, labels, seeds: short for settings of these names.
        config: all settings; the defaults when None.
        settings: single settings by dotted name, such as `{"student.lr": 1e-3}`; they win over `config`.
        run: the run folder. When None, the newest one under `runs/` with the same data and settings, or a new one. One
            in storage, such as s3://bucket/runs/birds, is worked on in `runs/birds` and copied as it grows.
        quick: a trial run of minutes, to see that everything works; its numbers mean nothing.
        redo: redo stages that were made from other settings or photos.
        track: the name of a tracker that also gets the metrics, such as "tensorboard".
        twin: False trains the students only: nothing is compared, and no test photo is looked at. The same call without
            it adds the twins.
        reporter: where progress is printed.
        folder: the photos of `data`, where `potstill.reading.read_photos` has read them before; read when None.
    Raises:
        PotstillError: something that a user can fix; where possible before any long work.
        ConfigError: an unknown keyword argument, with the one that was probably meant.
    """
    _refuse(unknown)
    short = {"student.models": students, "images.classes": classes, "seeds": seeds}
    short["teacher.model"] = [teacher] if isinstance(teacher, str) else teacher
    short["images.labels"] = None if labels is None else str(labels)
    wanted = {name: value for name, value in short.items() if value is not None} | dict(settings or {})
    config = from_mapping({**(QUICK if quick else {}), **wanted}, base=config)
    done = _execute(Path(data), config, run, redo=redo, track=track, twin=twin, reporter=reporter, folder=folder)
    return Result(done)


def label(
    data: Path | str,
    *,
    config: Config | None = None,
    run: Path | str | None = None,
    redo: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Make the soft labels of a run, by any teacher, and stop: `distill` with the same settings goes on from there.

    Args:
        data, config, run, redo, reporter: as of `distill`.
    Returns:
        The run folder.
    Raises:
        PotstillError: as `distill` does.
    """
    last = "3_soft_labels"
    return _execute(
        Path(data), config or Config(), run, redo=redo, track=None, twin=True, reporter=reporter, last=last
    ).path


def _execute(
    data: Path,
    config: Config,
    run: Path | str | None,
    *,
    redo: bool,
    track: str | None,
    twin: bool,
    reporter: Reporter | None,
    folder: Folder | None = None,
    last: str = "7_report",
) -> Run:
    """The stages up to `last`; the other arguments are those of `distill`."""
    config = with_absolute_paths(config)
    reporter = reporter or Reporter()
    check_tracker(track)
    how: dict[str, Any] = {"redo": redo, "track": track, "twin": twin, "reporter": reporter, "last": last}
    if folder is None:
        folder = read_photos(data, config, runs_beside(run), reporter.info)
    if run is None:
        return _execute_here(data, folder, config, None, **how)
    with worked_on(run, reporter.info) as here:
        return _execute_here(data, folder, config, here, **how)


def _execute_here(
    data: Path,
    folder: Folder,
    config: Config,
    run: Path | None,
    *,
    redo: bool,
    track: str | None,
    twin: bool,
    reporter: Reporter,
    last: str,
) -> Run:
    """The same in a folder of this machine; None takes the one of this data and these settings."""
    machine = decide(config.machine)
    config = with_students(config, folder)
    plan = make_plan(folder, config, twins=twin)
    target = Run(run if run is not None else find_run(data, config), redo)
    _require_weights(plan, target)
    with target.only_here():
        reporter.log_to(target.path / "log.txt")
        started = time.monotonic()
        _describe_run(target, data, config, reporter)
        target = replace(target, earlier=_earlier_runs(target, machine, reporter))
        with open_engine(config.machine, machine.device, target.path) as engine, tracking(target, track, reporter):
            machine = _with_room(machine, engine, plan)
            _stages(plan, Context(target, machine, reporter, engine), last)
        reporter.info(f"Done in {duration(time.monotonic() - started)}: {target.path}")
    return target


def _with_room(machine: Machine, engine: Engine, plan: Plan) -> Machine:
    """The use of a machine that has the room of an engine beside its own.

    Raises:
        ConfigError: so many processes cannot train a model together.
    """
    batch_size = min(student.shared.batch_size for student in plan.students.students)
    if engine.room(1) is not None:
        machine = _with_room_of(engine, machine, batch_size)
    if batch_size < machine.processes:
        raise ConfigError(
            f"machine.processes_per_training = {machine.processes}, but there are only {counted(batch_size, 'photo')} "
            "in a training step. Lower it, or raise student.batch_size."
        )
    return machine


def _with_room_of(engine: Engine, machine: Machine, batch_size: int) -> Machine:
    """The machine with the tasks that an engine has room for at the same time."""
    asked, units = machine.requested, engine.room(1) or 0
    processes = machine.processes
    if asked.processes_per_training == "auto" and asked.jobs != "auto" and machine.device == "cuda":
        # Several machines only where they are asked for: what their network is worth is not known here.
        most = 1 if asked.compile == "on" else min(units // asked.jobs, batch_size, engine.largest_node)
        fitting = (number for number in range(most, 1, -1) if (engine.room(number) or 0) >= asked.jobs)
        processes = next(fitting, 1)
    room = engine.room(processes)
    if not room:
        there = counted(units, "GPU", "GPUs") if machine.device == "cuda" else counted(units, "core")
        raise ConfigError(f"machine.processes_per_training = {processes}, but all nodes together have only {there}.")
    jobs = room if asked.jobs == "auto" else asked.jobs
    alone = machine.cores if machine.device == "cpu" else 1
    return replace(machine, jobs=jobs, processes=processes, label_speedup=min(jobs * processes, units) / alone)


def _require_weights(plan: Plan, run: Run) -> None:
    """Raise WeightsError for weights that the run will need and that are not there, before anything is made."""
    teacher = plan.teacher.config
    needed: list[tuple[Role, str, str]] = []
    if not run.stage("2_teacher").is_done and plan.teacher.external is None:
        needed += [("teacher", name, teacher.weights) for name in teacher.model]
    if not run.stage("4_students").is_done:
        from_weights = [student for student in plan.students.students if not student.start]
        needed += [("student", student.model, student.weights) for student in from_weights]
    described = ((role, describe(name, ()), weights) for role, name, weights in needed)
    require_weights([(role, info.architecture, info.arguments, weights) for role, info, weights in described])


def _refuse(unknown: Mapping[str, Any]) -> None:
    """Raise ConfigError for keyword arguments that `distill` does not have."""
    if not unknown:
        return
    name = next(iter(unknown))
    own = [p.name for p in inspect.signature(distill).parameters.values() if p.kind is p.KEYWORD_ONLY]
    dotted = [setting.name for setting in settings() if setting.name.rpartition(".")[2] == name]
    near = did_you_mean(name, own) if not dotted else ""
    if dotted:
        near = f" Did you mean {' or '.join(f'settings={{{setting!r}: …}}' for setting in dotted)}?"
    raise ConfigError(f"distill() has no argument {name!r}.{near or ' It has: ' + ', '.join(own) + '.'}")


def _stages(plan: Plan, context: Context, last: str) -> None:
    """The stages of the pipeline up to the last one, in order."""
    run, reporter = context.run, context.reporter
    if not comparison_path(run).is_file():  # cheap to make again, so it may be deleted
        run.stage("5_comparison").reopen()
    run.stage("7_report").reopen()  # it is made again each time
    require_whole(run.path, large=True)
    write_json(run.path / "environment.json", environment(context.machine))
    finished = [name for name in STAGES if run.stage(name).is_done]
    arms = ARMS if plan.students.twins else ARMS[:1]
    finished += [
        student.name for student in plan.students.students if is_trained(run, student.name, plan.students.seeds, arms)
    ]
    new = not run.stage("1_images").is_done
    if new:
        engine = context.engine.describe()
        for line in [*plan.lines(), *engine, TIMING]:
            reporter.info(line)
    expected = estimate(plan, context.machine, finished)
    if new:
        for line in expected.lines():
            reporter.info(line)
        check_space(run.path, sum(plan.disk.values()), "This run")
    with reporter.whole_run(run.path, tuple(part for part in expected.parts if part.stage <= last)):
        _work(plan, context, last)


def _work(plan: Plan, context: Context, last: str) -> None:
    run = context.run
    with _stage("1_images", context):
        store = collect_images(plan.images, context, resize=quick_bicubic, worker="potstill.packing")
    require_val_photos(plan.config.operating_point, store, run.classes())
    plan = _planned_again(plan, len(store.rows("train", "unlabeled")), "Now that the photos are packed", context)
    with _stage("2_teacher", context):
        train_teacher(plan.teacher, context)
    plan = _planned_again(plan, len(used_rows(run, store)), "For the photos that are used", context)
    with _stage("3_soft_labels", context):
        store_soft_labels(plan.soft_labels, context)
    if last == "3_soft_labels":
        return
    with _stage("4_students", context):
        train_students(plan.students, context)
    if not plan.students.twins:
        return
    with _stage("5_comparison", context):
        (compare_labels if store.several_labels else compare)(plan.comparison, context)
    with _stage("7_report", context):
        write_report(run)


@contextlib.contextmanager
def _stage(name: str, context: Context) -> Iterator[None]:
    """The block works on a stage: its time is kept, and what earlier stages did not need is no longer waited for."""
    context.reporter.begin_stage(name)
    with context.run.timed(name):
        yield
    context.run.write_readme()


def _planned_again(plan: Plan, train_photos: int, why: str, context: Context) -> Plan:
    """The plan for the number of photos that there turned out to be; reports what is different."""
    again = plan.for_photos(train_photos)
    for line in again.changes(plan):
        context.reporter.info(f"{why}: {line}")
    return again


def dry_run(data: Path, config: Config, *, twin: bool = True, folder: Folder | None = None) -> Iterator[str]:
    """What the run would do and take, without starting it: the lines of its plan, then those of its estimate, for
    which the models are timed.

    Args:
        folder: the photos, where they were read and described before; read, and described first, when None.
    Raises:
        PotstillError: what `distill` would refuse at once, missing weights too.
    """
    if folder is None:
        lines: list[str] = []
        folder = read_photos(data, config, Path("runs"), lines.append)
        yield from lines
    machine = decide(config.machine)
    config = with_students(config, folder)
    plan = make_plan(folder, config, twins=twin)
    _require_weights(plan, Run(find_run(data, config)))
    with open_engine(config.machine, machine.device, None) as engine:
        yield from [*plan.lines(), *engine.describe(), TIMING]
        yield from estimate(plan, _with_room(machine, engine, plan)).lines()


def find_run(data: Path, config: Config, runs: Path = Path("runs")) -> Path:
    """The newest run of this data and teacher with these very settings, or a new name."""
    name = new_run_name(data, "+".join(config.teacher.names))
    stem = name.split("_", 1)[1]
    wanted = _config_text(data, config)
    same = [path for path in sorted(runs.glob(f"*_{stem}*")) if _is_run_of(path, wanted)]
    if same:
        return same[-1]
    number = 1
    while (runs / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return runs / (name if number == 1 else f"{name}-{number}")


def find_update(data: Path, config: Config) -> Path:
    """The run folder for photos that are added to a run, beside it: the newest one made with these very settings, or a
    new name, RUN-2, RUN-3 and so on."""
    earlier, wanted = from_here(config.update.run), _config_text(data, config)
    stem, _, number = earlier.name.rpartition("-")
    if not (number.isdecimal() and earlier.with_name(stem).is_dir()):
        stem = earlier.name
    names = (earlier.with_name(f"{stem}-{number}") for number in itertools.count(2))
    return next(path for path in names if not path.exists() or _is_run_of(path, wanted))


def _is_run_of(path: Path, config_text: str) -> bool:
    config = path / "config.toml"
    return config.is_file() and config.read_bytes() == config_text.encode() and Run(path).format == FORMAT


def _describe_run(run: Run, data: Path, config: Config, reporter: Reporter) -> None:
    """run.json, config.toml, the log's head, and .gitignore."""
    command = typed_command()
    new = run.create(command, _config_text(data, config))
    write_text(run.path / ".gitignore", "*\n")
    run.write_readme()
    reporter.write_log(f"Command: {command or 'potstill.distill(…) in Python'}")
    finished = [name.partition("_")[2].replace("_", " ") for name in STAGES if run.stage(name).is_done]
    kept = f"; finished before: {', '.join(finished)}" if finished else ""
    reporter.info(f"{'New run' if new else 'Resuming'} {run.path}{kept}")


def _earlier_runs(run: Run, machine: Machine, reporter: Reporter) -> EarlierRuns | None:
    """The runs beside this one that stages may be taken over from: of the same photos, made alike."""
    if machine.requested.reuse == "off":
        return None
    data, here, found = _data_of(run.path), environment(machine), []
    for done in sorted(run.path.parent.glob("*/1_images/done.json"), reverse=True):
        path = done.parent.parent
        if path == run.path or _data_of(path) != data or Run(path).format != FORMAT:
            continue
        try:
            other = read_json(path / "environment.json")
        except PotstillError:
            continue
        if changed := differences(_decisive(other), _decisive(here)):
            reporter.info(f"Nothing is reused from {path}, which was made differently ({'; '.join(changed[:2])})")
        else:
            found.append(path)
    return EarlierRuns(tuple(found), reporter.info) if found else None


def _data_of(run: Path) -> str | None:
    """The photo folder of a run; None where its config.toml does not tell."""
    try:
        return str(tomllib.loads(read_toml_text(run / "config.toml"))["data"])
    except (PotstillError, tomllib.TOMLDecodeError, KeyError):
        return None


def _decisive(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What the numbers of a stage may depend on beside its inputs."""
    machine = environment["machine"]
    requested = {key: machine["requested"].get(key) for key in ("precision", "runtime")}
    kept = {key: environment.get(key) for key in ("processor", "cpu_capability", "gpu", "versions")}
    return {**kept, "device": machine["device"], "machine": requested}


def _config_text(data: Path, config: Config) -> str:
    # A run is the same run on fewer cores: how the machine is used is not part of what identifies it.
    plain = replace(config, machine=type(config.machine)())
    where = str(Address.of(data) or data.resolve())
    return with_checksum(f"data = {where!r}\n\n{to_toml(plain)}")
