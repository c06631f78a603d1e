"""Commands about runs: distill, curve, controls, forecast, demo, predict, report, compare, serve, models."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from potstill.cli import app
from potstill.cli.settings import SettingFlags, combined
from potstill.monitoring.trackers import tracker_names

if TYPE_CHECKING:
    TrackerName = str
else:
    TrackerName = Literal[tracker_names()]


@app.command
def distill(
    data: Path,
    *,
    students: str | None = None,
    teacher: str | None = None,
    classes: str | None = None,
    max_size: str | None = None,
    max_macs: str | None = None,
    max_latency: str | None = None,
    recipe: Path | None = None,
    run: Path | None = None,
    quick: bool = False,
    redo: bool = False,
    track: TrackerName | None = None,
    dry_run: bool = False,
    settings: SettingFlags | None = None,
) -> None:
    """Train small image classifiers from a folder of photos by distilling a large one, and compare them.

    Parameters
    ----------
    data
        The photo folder: DATA/{train,test}/CLASS/, optionally with val/ and unlabeled/, or DATA/CLASS/ to be split.
        Other names and nestings are understood where they are clear; what was understood is printed.
    students
        Student models, separated by commas. Short for --student.models.
    teacher
        Teacher model, or several separated by commas. Short for --teacher.model.
    classes
        Classes to use, separated by commas. Short for --images.classes.
    max_size
        Largest file size of a student, such as 3MB. Potstill picks students that fit.
    max_macs
        Most multiply-accumulates per photo, such as 50M.
    max_latency
        Longest inference time per photo on one CPU thread of this machine, such as 5ms.
    recipe
        A TOML file of settings. Flags win over it.
    run
        The run folder. By default the one under runs/ with the same settings, or a new one.
    quick
        A trial run of about two minutes, to check that everything works. Its numbers mean nothing.
    redo
        Redo stages that were run with other settings or photos.
    track
        Also log training metrics to this tracker. They are always written to the run's metrics.jsonl files.
    dry_run
        Print the plan of the run, its estimated time and its disk space, and stop.
    """
    from potstill import pipeline
    from potstill.students.budget import UNITS, parse_amount

    short: dict[str, str | None] = {"student.models": students, "teacher.model": teacher, "images.classes": classes}
    limits = {"budget.max_megabytes": max_size, "budget.max_mmacs": max_macs, "budget.max_milliseconds": max_latency}
    given: dict[str, Any] = {name: _list(value) for name, value in short.items() if value}
    given |= {name: parse_amount(value, UNITS[name], name) for name, value in limits.items() if value}
    config = combined(settings, given, recipe, pipeline.QUICK if quick else {})
    if dry_run:
        print("\n".join(pipeline.dry_run(data, config)))
        return
    _print_result(pipeline.distill(data, config=config, run=run, redo=redo, track=track))


@app.command
def curve(
    data: Path,
    *,
    per_class: str,
    into: Path = Path("runs/curve"),
    students: str | None = None,
    teacher: str | None = None,
    classes: str | None = None,
    recipe: Path | None = None,
    settings: SettingFlags | None = None,
) -> None:
    """Measure accuracy with and without distillation as the number of labels per class grows.

    Parameters
    ----------
    data
        The photo folder.
    per_class
        Numbers of labels per class, separated by commas, such as 20,50,100.
    into
        The folder to write the runs and curve.csv to.
    students
        Short for --student.models.
    teacher
        Short for --teacher.model.
    classes
        Short for --images.classes.
    recipe
        A TOML file of settings. Flags win over it.
    """
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table
    from potstill.tools.curve import curve_table, learning_curve

    short = {"student.models": students, "teacher.model": teacher, "images.classes": classes}
    config = combined(settings, {name: _list(value) for name, value in short.items() if value}, recipe)
    counts = [int(part) for part in _list(per_class) if part.isdecimal()]
    print_table(curve_table(learning_curve(data, counts, config, into, Reporter())))


@app.command
def controls(run: Path, *, labels: Path | None = None, student: str | None = None, redo: bool = False) -> None:
    """Test what made a student better where photos have no labels: the teacher, or just more photos.

    Trains, for every seed, a twin that is given the true labels of all photos, and a student that learns from its own
    twin instead of the teacher. Both are compared with student and twin on the test photos.

    Parameters
    ----------
    run
        A finished run folder with photos without labels.
    labels
        A CSV file with the columns path (or file) and class: the true classes of these photos. Labels that
        --images.per-class left out are known without it.
    student
        Name of the student. By default the one chosen on the validation photos.
    redo
        Redo controls that were trained on other labels or soft labels.
    """
    from potstill.compute.device import decide
    from potstill.config.schema import MachineConfig
    from potstill.context import Context
    from potstill.controls.stage import run_controls
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table
    from potstill.report.stage import write_report
    from potstill.report.table import controls_table
    from potstill.run.folder import Run

    opened = Run(Run.open(run).path, redo)
    context = Context(opened, decide(MachineConfig()), Reporter())
    print_table(controls_table(run_controls(context, labels=labels, student=student)))
    print(f"Report: {write_report(opened)}")


@app.command
def forecast(
    run: Path,
    *,
    student: str | None = None,
    photos: int | None = None,
    shares: str = "0.125,0.25,0.5",
    seeds: int | None = None,
    jobs: int | None = None,
    dry_run: bool = False,
) -> None:
    """Forecast what more photos would bring, from a learning curve of a student and its twin.

    Both are trained on parts of the run's photos, with the run's recipes and stored soft labels and in as many steps;
    the teacher does not run. With three parts and all seeds this takes three times as long as the trainings of student
    and twin did, four to five times where there are photos without labels; --seeds 1 takes a share of it. Errors are
    measured on val. The result is written to RUN/forecast/ and drawn in the report. A forecast that was interrupted is
    resumed.

    Parameters
    ----------
    run
        A finished run folder.
    student
        Name of the student. By default the one chosen on the validation photos.
    photos
        A number of further photos to forecast, beside half as many and as many as there are.
    shares
        Parts of the photos to train on, separated by commas, all between 0 and 1.
    seeds
        How many of the run's seeds to train with. By default all.
    jobs
        Number of trainings that run at the same time. By default one per core on a CPU, 1 on a GPU.
    dry_run
        Print what it takes, and stop.
    """
    from potstill.compute.device import decide
    from potstill.config.load import from_mapping
    from potstill.context import Context
    from potstill.errors import ConfigError
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table
    from potstill.report.stage import write_report
    from potstill.tools.forecast import forecast_lines, forecast_table, make_forecast, open_run, plan_forecast

    if photos is not None and photos < 1:
        raise ConfigError("--photos must be 1 or more.")
    machine = decide(from_mapping({"machine.jobs": jobs} if jobs is not None else {}).machine)
    plan = plan_forecast(open_run(run), student=student, shares=_shares(shares), seeds=seeds)
    context = Context(plan.run, machine, Reporter(log=plan.run.path / "log.txt"))
    if dry_run:
        print(plan.cost(machine.jobs))
        return
    context.reporter.info(plan.cost(machine.jobs))
    with plan.run.only_here():
        found = make_forecast(plan, context, photos)
        page = write_report(plan.run)
    print_table(forecast_table(found))
    print("\n".join(forecast_lines(found)))
    print(f"Report: {page}")


@app.command
def demo(*, quick: bool = False, all_labels: bool = False) -> None:
    """Run the whole pipeline on a built-in data set of solar cells. Needs no account and no model hub.

    50 photos of each class have labels; the others are used without. It takes about ten minutes.

    Parameters
    ----------
    quick
        A shorter run of about two minutes. Its numbers mean nothing.
    all_labels
        Use the labels of all training photos.
    """
    from potstill.tools.demo import beside_published, run_demo

    result = run_demo(quick=quick, all_labels=all_labels)
    _print_result(result)
    if all_labels:
        print(beside_published(result))


@app.command
def predict(
    run: Path,
    photos: Annotated[list[Path], Parameter(consume_multiple=True)],
    *,
    student: str | None = None,
    arm: str = "distilled",
    seed: int | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Classify photos: print the label and probability of each.

    Parameters
    ----------
    run
        A run folder, or a folder with model.json.
    photos
        Photo files.
    student
        Name of the student. By default the one chosen on the validation photos.
    arm
        Which model: distilled, alone (the twin trained without a teacher) or teacher.
    seed
        Training seed of the student. By default the best one on the validation photos.
    as_json
        Print one JSON object per photo, with the probabilities of all classes.
    """
    from potstill.deploy.predictor import load_predictor
    from potstill.errors import DataError

    predictor = load_predictor(run, student=student, arm=arm, seed=seed)
    failed = 0
    for photo in photos:
        try:
            prediction = predictor.predict(photo)
        except DataError as error:
            failed += 1
            print(json.dumps({"photo": str(photo), "error": str(error)}) if as_json else f"{photo}\t-\t{error}")
            continue
        if as_json:
            values: dict[str, Any] = {"label": prediction.label, "probability": round(prediction.probability, 6)}
            values |= {"known": prediction.known, "probabilities": prediction.probabilities}
            print(json.dumps({"photo": str(photo), **values}, ensure_ascii=False))
        else:
            unsure = "" if prediction.known else "\tunsure: perhaps none of these classes"
            print(f"{photo}\t{prediction.label}\t{prediction.probability:.1%}{unsure}")
    return 1 if failed else 0


@app.command
def report(run: Path, *, open_it: Annotated[bool, Parameter(name="--open")] = False) -> None:
    """Write the HTML report of a finished run to RUN/7_report/index.html.

    Parameters
    ----------
    run
        The run folder.
    open_it
        Open the report in the browser.
    """
    from potstill.report.stage import write_report
    from potstill.run.folder import Run

    path = write_report(Run.open(run))
    print(path)
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


@app.command
def compare(*runs: Path, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Compare finished runs that have the same classes and test photos.

    Parameters
    ----------
    runs
        Two or more run folders. Differences are relative to the first student of the first run.
    as_json
        Print the comparison as JSON.
    """
    from potstill.monitoring.tables import print_table
    from potstill.report.side_by_side import side_by_side

    found = side_by_side(runs)
    if as_json:
        print(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
        return
    print_table(found.table())
    print("\n".join(found.notes()))


@app.command
def serve(run: Path, *, student: str | None = None, host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve a local web page to try the teacher, a student and its twin on your photos. Needs `potstill[serve]`.

    Parameters
    ----------
    run
        A finished run folder.
    student
        Name of the student. By default the one chosen on the validation photos.
    host
        The address to listen on. The default is reachable only from this machine, 0.0.0.0 from the network.
    port
        The port to listen on.
    """
    from potstill.deploy.serve import serve as start

    page, url = start(run, student=student, host=host, port=port, block=False)
    print(f"{url}   (stop with Ctrl-C)", flush=True)
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"Anyone who can reach {host} can use this page.", flush=True)
    page.block_thread()


@app.command
def models(pattern: str | None = None) -> None:
    """List model names: the presets, or all timm models that match a pattern such as 'mobilenet*'.

    Parameters
    ----------
    pattern
        A pattern, with * as a wildcard.
    """
    from potstill.models.zoo import CLASSICS, PRESETS, matching

    if pattern:
        print("\n".join(matching(pattern)))
        return
    print("Teachers (any name of timm does, too):")
    for name, (architecture, text) in PRESETS.items():
        print(f"  {name:22} {text} ({architecture})")
    print("Students that timm has no name for (any name of timm does, too):")
    for name, (architecture, arguments, size) in CLASSICS.items():
        print(f"  {name:22} {architecture}, {size} px, {arguments}")


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _shares(text: str) -> list[float]:
    from potstill.errors import ConfigError

    try:
        return [float(part) for part in _list(text)]
    except ValueError:
        raise ConfigError(f"--shares {text!r} must be numbers separated by commas, such as 0.125,0.25,0.5.") from None


def _print_result(result: Any) -> None:
    from potstill.monitoring.tables import print_table
    from potstill.report.table import agreement_table, comparison_note, comparison_table

    print_table(comparison_table(result.comparison))
    print(comparison_note(result.comparison))
    print_table(agreement_table(result.comparison))
    for line in result.verdicts():
        print(line)
    print(f"Report: {result.report}")
