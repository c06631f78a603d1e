"""Commands about runs: distill, demo, predict, models."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from potstill.cli import app
from potstill.cli import given as words
from potstill.config.schema import Config

Settings = Annotated[Config | None, Parameter(name="*")]


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
    track: Literal["tensorboard", "trackio", "mlflow", "wandb"] | None = None,
    dry_run: bool = False,
    config: Settings = None,
) -> None:
    """Photos to students: teacher, soft labels, students and their twins, comparison, report.

    Parameters
    ----------
    data
        DATA/{train,test}/CLASS/* (also val/, unlabeled/), or DATA/CLASS/* to be split.
    students
        Models to train, separated by commas. Short for --student.models.
    teacher
        The large model, or several separated by commas. Short for --teacher.model.
    classes
        Take only these classes, separated by commas. Short for --images.classes.
    max_size
        Largest student file, such as 3MB. Potstill picks students that fit.
    max_macs
        Most multiply-accumulates per photo, such as 50M.
    max_latency
        Longest time per photo on one thread of this machine, such as 5ms.
    recipe
        A TOML file of settings. Flags win over it.
    run
        The run folder. Without it: the one under runs/ with these settings, or a new one.
    quick
        See that everything works, in about two minutes. The numbers mean nothing.
    redo
        Make stages again that were made from other settings or photos.
    track
        Follow the trainings in this tracker, too. The numbers are always in the run's metrics.jsonl files.
    dry_run
        Print what the run would take, and stop.
    """
    from potstill import pipeline
    from potstill.cli.settings import combined
    from potstill.students.budget import UNITS, parse_amount

    short: dict[str, str | None] = {"student.models": students, "teacher.model": teacher, "images.classes": classes}
    limits = {"budget.max_megabytes": max_size, "budget.max_mmacs": max_macs, "budget.max_milliseconds": max_latency}
    given: dict[str, Any] = {name: _list(value) for name, value in short.items() if value}
    given |= {name: parse_amount(value, UNITS[name], name) for name, value in limits.items() if value}
    settings = combined(config, words.get(), recipe, given, pipeline.QUICK if quick else {})
    if dry_run:
        print("\n".join(pipeline.dry_run(data, settings)))
        return
    _print_result(pipeline.distill(data, config=settings, run=run, redo=redo, track=track))


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
    config: Settings = None,
) -> None:
    """Accuracy of distilled and alone against the number of labels per class.

    Parameters
    ----------
    data
        The photo folder.
    per_class
        Numbers of labels, separated by commas, such as 20,50,100.
    into
        The folder for its runs and curve.csv.
    students
        Short for --student.models.
    teacher
        Short for --teacher.model.
    classes
        Short for --images.classes.
    recipe
        A TOML file of settings. Flags win over it.
    """
    from potstill.cli.settings import combined
    from potstill.monitoring.progress import Reporter
    from potstill.tools.curve import curve_table, learning_curve

    short = {"student.models": students, "teacher.model": teacher, "images.classes": classes}
    settings = combined(config, words.get(), recipe, {name: _list(value) for name, value in short.items() if value}, {})
    counts = [int(part) for part in _list(per_class) if part.isdecimal()]
    print(curve_table(learning_curve(data, counts, settings, into, Reporter())))


@app.command
def demo(*, quick: bool = False) -> None:
    """The whole job on a built-in real example, solar cells: no account, no model hub, about ten minutes.

    Parameters
    ----------
    quick
        In about two minutes. The numbers mean little.
    """
    from potstill.tools.demo import beside_published, run_demo

    result = run_demo(quick=quick)
    _print_result(result)
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
    """Label and probability of photos.

    Parameters
    ----------
    run
        A run folder, or a folder with model.json.
    photos
        Photo files.
    student
        Which student of the run; the one chosen on val by default.
    arm
        distilled, alone (the twin) or teacher.
    seed
        Which seed; the best on val by default.
    as_json
        Print one JSON object per photo, with the probability of every class.
    """
    from potstill.deploy.predictor import load_predictor
    from potstill.errors import DataError

    predictor = load_predictor(run, student=student, arm=arm, seed=seed)
    failed = 0
    for photo in photos:
        try:
            answer = predictor.predict(photo)
        except DataError as error:
            failed += 1
            print(json.dumps({"photo": str(photo), "error": str(error)}) if as_json else f"{photo}\t-\t{error}")
            continue
        if as_json:
            values: dict[str, Any] = {"label": answer.label, "probability": round(answer.probability, 6)}
            values |= {"known": answer.known, "probabilities": answer.probabilities}
            print(json.dumps({"photo": str(photo), **values}, ensure_ascii=False))
        else:
            unsure = "" if answer.known else "\tunsure: perhaps none of these classes"
            print(f"{photo}\t{answer.label}\t{answer.probability:.1%}{unsure}")
    return 1 if failed else 0


@app.command
def report(run: Path, *, open_it: Annotated[bool, Parameter(name="--open")] = False) -> None:
    """Make the page to read from a finished run: RUN/7_report/index.html.

    Parameters
    ----------
    run
        The run folder.
    open_it
        Show it in the browser.
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
    """Finished runs side by side; refuses when classes or test photos differ.

    Parameters
    ----------
    runs
        Two run folders or more. Differences are against the first one's first student.
    as_json
        Print one JSON object.
    """
    from potstill.report.side_by_side import side_by_side

    found = side_by_side(runs)
    print(json.dumps(found.to_json(), indent=1, ensure_ascii=False) if as_json else "\n".join(found.lines()))


@app.command
def serve(run: Path, *, student: str | None = None, host: str = "127.0.0.1", port: int = 7860) -> None:
    """A local page to try photos on: teacher, distilled and alone answer side by side. Needs `potstill[serve]`.

    Parameters
    ----------
    run
        A finished run folder.
    student
        Which student of the run; the one chosen on val by default.
    host
        The address to serve on. The default is reachable from this machine only; 0.0.0.0 from everywhere.
    port
        The port to serve on.
    """
    from potstill.deploy.serve import serve as start

    page, url = start(run, student=student, host=host, port=port, block=False)
    print(f"{url}   (stop with Ctrl-C)", flush=True)
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"Anyone who can reach {host} can use this page.", flush=True)
    page.block_thread()


@app.command
def models(pattern: str | None = None) -> None:
    """Names of models: the presets, or everything in timm that fits a pattern such as '*mobilenet*'.

    Parameters
    ----------
    pattern
        With * for any text.
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


def _print_result(result: Any) -> None:
    from potstill.report.table import comparison_table

    print(comparison_table(result.comparison))
    for line in result.verdicts():
        print(line)
    print(f"Report: {result.report}")
