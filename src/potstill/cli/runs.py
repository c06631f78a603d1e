"""Commands that make runs, and those that show what is in them."""

import contextlib
import getpass
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from cyclopts import Parameter

from potstill.cli import command
from potstill.cli.settings import MORE, SettingFlags, combined
from potstill.cli.starting import require_there, say_loading
from potstill.cli.values import WHOLE
from potstill.monitoring.trackers import tracker_names

if TYPE_CHECKING:
    TrackerName = str
else:
    TrackerName = Literal[tracker_names()]

Number = TypeVar("Number", int, float)


@command(
    "potstill distill PHOTOS --dry-run",
    "potstill distill PHOTOS --students mobilenetv3_small_100,mobilenetv1_025@96",
    "potstill distill PHOTOS --teacher efficientnet_lite2 --max-size 3MB --seeds 1",
    note="All settings, by section: `potstill distill --help-all`",
)
def distill(
    data: Path,
    *,
    recipe: Path | None = None,
    run: Path | None = None,
    quick: bool = False,
    no_twin: bool = False,
    dry_run: bool = False,
    redo: Annotated[bool, Parameter(group=MORE)] = False,
    track: Annotated[TrackerName | None, Parameter(group=MORE)] = None,
    settings: SettingFlags | None = None,
) -> None:
    """Train small image classifiers from a folder of photos by distilling a large one, and compare them.

    Parameters
    ----------
    data
        The photo folder: DATA/{train,test}/CLASS/, optionally with val/ and unlabeled/, or DATA/CLASS/ to be split; a
        table of labels; a zip or tar file of one of these; or tar shards or parquet files of photos. Other names and
        nestings work if they are unambiguous; how they are read is printed. All of these may be in object storage, such
        as s3://bucket/photos.
    recipe
        A TOML file of settings. Flags override it.
    run
        The run folder. By default the one under runs/ with the same settings, or a new one. With object storage, such
        as s3://bucket/runs/birds, the work is done in runs/birds and copied as it progresses.
    quick
        A smoke test, to check that everything works: minutes where a full run takes an hour. Its numbers mean nothing.
    no_twin
        Train the students only. Nothing is compared then, and no test photo is read. The same command without this
        option adds the twins later; the students are not trained again.
    dry_run
        Print the plan of the run, its estimated time and its disk space, and stop.
    redo
        Redo stages that were run with other settings or photos.
    track
        Also log training metrics to this tracker. They are always written to the run's metrics.jsonl files.
    """
    from potstill.config.quick import QUICK
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.track import check_tracker
    from potstill.reading import read_photos, runs_beside

    config = combined(settings, recipe, QUICK if quick else {})
    check_tracker(track)
    reporter = Reporter()
    say = _say if dry_run else reporter.info
    folder = read_photos(data, config, runs_beside(run), say)
    say_loading()
    from potstill import pipeline

    if dry_run:
        for line in pipeline.dry_run(data, config, twin=not no_twin, folder=folder):
            _say(line)
        return
    result = pipeline.distill(
        data, config=config, run=run, redo=redo, track=track, twin=not no_twin, reporter=reporter, folder=folder
    )
    print_result(result)


def _say(line: str) -> None:
    print(line, flush=True)


@command(
    "potstill update runs/RUN NEW_PHOTOS --dry-run",
    "potstill update runs/RUN NEW_PHOTOS",
    "potstill update runs/RUN NEW_PHOTOS --test-share 0.2",
    note="All settings, by section: `potstill update --help-all`",
)
def update(
    old: Path,
    photos: Path,
    *,
    run: Path | None = None,
    from_scratch: bool = False,
    test_share: float = 0.0,
    no_twin: bool = False,
    dry_run: bool = False,
    redo: Annotated[bool, Parameter(group=MORE)] = False,
    track: Annotated[TrackerName | None, Parameter(group=MORE)] = None,
    settings: SettingFlags | None = None,
) -> None:
    """Add photos to a finished run, continue training, and compare the new student with the old one.

    Creates a new run folder and leaves the old one unchanged. The teacher's head is trained again on all photos;
    students and twins continue from those of the old run. Both students are compared on the test photos of the old run.
    Settings default to those of the old run. The same command resumes an interrupted update.

    Parameters
    ----------
    old
        A finished run folder.
    photos
        The photos to add: a folder with class folders, with unlabeled/ or with photos only, a table of labels, or a zip
        or tar file of one of these. The classes must be those of the run.
    run
        The new run folder. By default RUN-2 beside the old one, or the next number.
    from_scratch
        Train from the starting weights instead of the old run's students.
    test_share
        Share of the added photos set aside for testing. By default none, unless they come with a test folder.
    no_twin
        Train the students only. Nothing is compared then. The same command without this option adds the twins later.
    dry_run
        Print the plan of the run, its estimated time and its disk space, and stop.
    redo
        Redo stages that were run with other settings or photos.
    track
        Also log training metrics to this tracker. They are always written to the run's metrics.jsonl files.
    """
    require_there(old)
    say_loading()
    from potstill import updating
    from potstill.storage.addresses import refuse_storage

    refuse_storage(old, "`potstill update`, which starts from a finished run,")
    shared: dict[str, Any] = {"settings": settings, "from_scratch": from_scratch, "test_share": test_share}
    if dry_run:
        for line in updating.plan_update(old, photos, **shared, twin=not no_twin):
            print(line, flush=True)
        return
    result = updating.update(old, photos, **shared, into=run, redo=redo, track=track, twin=not no_twin)
    print_result(result)
    if result.is_compared and (found := result.comparison.update) is not None:
        print(f"\n{found.verdict}\n{found.advice}")


@command(
    "potstill label PHOTOS --from labels.csv",
    "potstill label PHOTOS --from outputs.npy --order paths.txt --class-map map.csv",
    note="All settings, by section: `potstill label --help-all`",
)
def label(
    data: Path,
    *,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    recipe: Path | None = None,
    run: Path | None = None,
    redo: Annotated[bool, Parameter(group=MORE)] = False,
    settings: SettingFlags | None = None,
) -> None:
    """Create the soft labels of a run and stop: from a file, or with the teacher given by the settings.

    `potstill distill` continues from there. A file has one row for each photo, so every augmented view of a photo
    gets the same soft label. A teacher that labels each view, such as --teacher onnx:FILE, is more accurate.

    Parameters
    ----------
    data
        The photo folder, a table of labels, or a zip or tar file of one of these.
    source
        A file with logits or probabilities for all photos, from any model or service: a .csv file with a column path
        and one for each class, or a .npy file with --order. The same as --teacher file:FILE.
    recipe
        A TOML file of settings. Flags override it.
    run
        The run folder. By default the one under runs/ with the same settings, or a new one.
    redo
        Redo stages that were run with other settings or photos.
    """
    say_loading()
    from potstill import pipeline
    from potstill.errors import ConfigError

    if source is not None and "teacher.model" in (settings or {}):
        raise ConfigError("--from names the teacher already. Leave out --teacher.")
    given = {"teacher.model": f"file:{source}"} if source is not None else {}
    folder = pipeline.label(data, config=combined({**(settings or {}), **given}, recipe), run=run, redo=redo)
    words = ["potstill", "distill", str(data), "--recipe", str(folder / "config.toml"), "--run", str(folder)]
    print(f"Soft labels: {folder / '3_soft_labels'}\n\nNext:\n  {shlex.join(words)}")


@command(
    "potstill curve PHOTOS --per-class 20,50,100 --dry-run",
    "potstill curve PHOTOS --per-class 20,50,100 --seeds 1",
    note="All settings, by section: `potstill curve --help-all`",
)
def curve(
    data: Path,
    *,
    per_class: str,
    into: Path = Path("runs/curve"),
    dry_run: bool = False,
    recipe: Path | None = None,
    settings: SettingFlags | None = None,
) -> None:
    """Measure accuracy with and without distillation as the number of labels per class grows.

    Parameters
    ----------
    data
        The photo folder, a table of labels, or a zip or tar file of one of these.
    per_class
        Numbers of labels per class, separated by commas, such as 20,50,100.
    into
        The folder to write the runs and curve.csv to.
    dry_run
        Print the plan of each run, its estimated time and its disk space, and stop.
    recipe
        A TOML file of settings. Flags override it.
    """
    say_loading()
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table
    from potstill.tools.curve import curve_table, learning_curve, plan_curve

    config = combined(settings, recipe)
    counts = _numbers(per_class, int, "--per-class must be whole numbers separated by commas, such as 20,50,100.")
    if dry_run:
        for line in plan_curve(data, counts, config):
            _say(line)
        return
    print_table(curve_table(learning_curve(data, counts, config, into, Reporter())))


@command()
def controls(run: Path, *, labels: Path | None = None, student: str | None = None, redo: bool = False) -> None:
    """Test whether a gain from unlabeled photos comes from the teacher, or just from more photos.

    Trains, for every seed, a twin that gets the true labels of all photos, and a student that learns from its own twin
    instead of the teacher. Both are compared with student and twin on the test photos.

    Parameters
    ----------
    run
        A finished run folder with unlabeled photos.
    labels
        A CSV file with the columns path (or file) and class: the true classes of these photos. Not needed for labels
        withheld by --images.per-class.
    student
        Name of the student. By default the one chosen on the validation photos.
    redo
        Redo controls that were trained on other labels or soft labels.
    """
    require_there(run)
    say_loading()
    from potstill.compute.device import decide
    from potstill.config.schema import MachineConfig
    from potstill.context import Context
    from potstill.controls.stage import run_controls
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table
    from potstill.report.stage import write_report
    from potstill.report.table import controls_table
    from potstill.run.folder import Run
    from potstill.storage.addresses import refuse_storage

    refuse_storage(run, "`potstill controls`")
    opened = Run(Run.open(run).path, redo)
    context = Context(opened, decide(MachineConfig()), Reporter())
    print_table(controls_table(run_controls(context, labels=labels, student=student)))
    print(f"Report: {write_report(opened)}")


@command("potstill forecast runs/RUN --dry-run", "potstill forecast runs/RUN --seeds 1 --photos 2000")
def forecast(
    run: Path,
    *,
    student: str | None = None,
    photos: Annotated[int | None, WHOLE] = None,
    shares: str = "0.125,0.25,0.5",
    seeds: Annotated[int | None, WHOLE] = None,
    jobs: Annotated[int | None, WHOLE] = None,
    dry_run: bool = False,
) -> None:
    """Forecast what more photos would bring, from a learning curve of a student and its twin.

    Both are trained on subsets of the run's photos, with the run's recipes, stored soft labels and number of steps; the
    teacher does not run. With three subsets and all seeds, this takes three times as long as training student and twin
    did, four to five times with unlabeled photos; use --seeds 1 to shorten it. Errors are measured on val. The result
    is written to RUN/forecast/ and plotted in the report. The same command resumes an interrupted forecast.

    Parameters
    ----------
    run
        A finished run folder.
    student
        Name of the student. By default the one chosen on the validation photos.
    photos
        Number of additional photos to forecast for, besides 50 % more and twice as many.
    shares
        Shares of the photos to train on, separated by commas, all between 0 and 1.
    seeds
        How many of the run's seeds to train with. By default all.
    jobs
        Number of models trained at the same time. By default one per core on a CPU, 1 on a GPU.
    dry_run
        Print the number of models to train and the estimated time, and stop.
    """
    require_there(run)
    say_loading()
    from potstill.compute.device import decide
    from potstill.config.load import from_mapping
    from potstill.context import Context
    from potstill.errors import ConfigError
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table
    from potstill.report.stage import write_report
    from potstill.storage.addresses import refuse_storage
    from potstill.tools.forecast import forecast_lines, forecast_table, make_forecast, open_run, plan_forecast

    refuse_storage(run, "`potstill forecast`")
    if photos is not None and photos < 1:
        raise ConfigError("--photos must be 1 or more.")
    machine = decide(from_mapping({"machine.jobs": jobs} if jobs is not None else {}).machine)
    plan = plan_forecast(
        open_run(run),
        student=student,
        shares=_numbers(shares, float, "--shares must be numbers separated by commas, such as 0.125,0.25,0.5."),
        seeds=seeds,
    )
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


@command("potstill suggest runs/RUN --count 50", "potstill suggest runs/RUN --label")
def suggest(
    run: Path,
    *,
    count: Annotated[int | None, WHOLE] = None,
    label: bool = False,
    copy: bool = False,
    port: Annotated[int, WHOLE] = 7861,
    links: bool = False,
) -> None:
    """List the unlabeled photos whose labels would help most, and label them.

    These are diverse photos on which teacher and student are most uncertain, based on what the run has stored. Photos
    that resemble none of the classes, or would become val or test photos, are not listed.
    The list is written to RUN/suggest/suggestions.csv, and as a page of thumbnails.

    Parameters
    ----------
    run
        A finished run folder with unlabeled photos.
    count
        Number of photos to list. By default 50.
    label
        Serve a local page to label the listed photos from the keyboard. Each is moved into the folder of its class,
        which can be undone. An unfinished list is continued.
    copy
        With --label, copy the photos into the class folders instead of moving them.
    port
        With --label, the port to listen on.
    links
        Link the thumbnails to their files by absolute paths, which reveal folders of this machine.
    """
    require_there(run)
    from potstill.errors import ConfigError
    from potstill.run.folder import Run
    from potstill.run.integrity import require_whole
    from potstill.storage.addresses import refuse_storage
    from potstill.suggest.listing import write_listing
    from potstill.suggest.pool import RunPhotos
    from potstill.suggest.serve import open_session, serve_labeling
    from potstill.suggest.suggestions import COUNT, has_open, make_suggestions, read_suggestions, summary_lines

    refuse_storage(run, "`potstill suggest`")
    if copy and not label:
        raise ConfigError("--copy says how --label places photos, which is missing.")
    opened = Run.open(run)
    require_whole(opened.path)
    with opened.only_here("suggest"):
        photos = RunPhotos.of(opened)
        found = read_suggestions(opened) if label and count is None else None
        if found is None or not has_open(found, photos):
            found = make_suggestions(opened, photos, COUNT if count is None else count)
            write_listing(opened, photos, found, links=links)
        if not label:
            print("\n".join(summary_lines(opened, photos, found)))
            return
        session = open_session(opened, photos, found, copy=copy)
        page, url = serve_labeling(opened, session, port=port)
        with page:
            print(f"{url}   (stop with Ctrl-C)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                page.wait()
        print("\n".join(session.lines() + summary_lines(opened, photos, found, labeled=True)))


@command("potstill demo")
def demo(*, quick: bool = False, all_labels: bool = False) -> None:
    """Run the full pipeline on a built-in dataset of solar cells. Needs no account and no model hub.

    Uses the labels of 50 photos per class and treats the others as unlabeled. A threshold is chosen to find 80 % of the
    defective cells. Takes 10 to 20 minutes on two cores.

    Parameters
    ----------
    quick
        A shorter run of a few minutes. Its numbers mean nothing.
    all_labels
        Use the labels of all training photos.
    """
    say_loading()
    from potstill.tools.demo import beside_published, run_demo

    result = run_demo(quick=quick, all_labels=all_labels)
    print_result(result)
    if all_labels:
        print(beside_published(result))


@command("potstill status runs/RUN --watch")
def status(
    run: Path | None = None, *, watch: bool = False, as_json: Annotated[bool, Parameter(name="--json")] = False
) -> None:
    """Show what a run is doing: its stage, the time left, the trained students, and the last lines of its log.

    Parameters
    ----------
    run
        The run folder. By default the one under runs/ that was worked on last.
    watch
        Update every two seconds, until the run ends.
    as_json
        Print JSON; with --watch, one line per update.
    """
    from potstill.monitoring.status import newest_run, read_status, watch_status

    folder = run or newest_run()
    if watch:
        watch_status(folder, as_json=as_json)
    elif as_json:
        print(json.dumps(read_status(folder).to_json(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(read_status(folder).lines()))


@command("potstill open runs/RUN", name="open")
def open_report(run: Path, *, no_browser: bool = False) -> None:
    """Open the report of a finished run in the browser, and print where it is.

    Parameters
    ----------
    run
        The run folder.
    no_browser
        Only print where the report is.
    """
    from potstill.report.stage import write_report
    from potstill.run.folder import Run
    from potstill.storage.runs import local_run

    opened = Run.open(local_run(run, pixels=True))
    page = opened.report / "index.html"
    if not page.is_file():
        page = write_report(opened)
    _show(page, browser=not no_browser)


@command("potstill report runs/RUN", "potstill report runs/RUN --share --photos blurred")
def report(
    run: Path,
    *,
    open_it: Annotated[bool, Parameter(name="--open")] = False,
    share: bool = False,
    photos: Literal["none", "blurred", "all"] | None = None,
) -> None:
    """Write the HTML report of a finished run to RUN/7_report/index.html.

    Parameters
    ----------
    run
        The run folder.
    open_it
        Open the report in the browser.
    share
        Also write RUN/7_report/shared.html, a copy to pass on, without photos and file names.
    photos
        With --share: none leaves the photos out (the default), blurred shows patches of color, all shows them with
        their file names.
    """
    from potstill.errors import ConfigError
    from potstill.report.stage import write_report
    from potstill.run.folder import Run
    from potstill.storage.runs import local_run

    if photos and not share:
        raise ConfigError("--photos sets how a copy to pass on shows the photos. Add --share.")
    _show(
        write_report(Run.open(local_run(run, pixels=True)), shared=(photos or "none") if share else None),
        browser=open_it,
    )


@command("potstill compare runs/A runs/B")
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
    for table in found.tables():
        print_table(table)
    print("\n".join(found.notes()))


@command()
def serve(
    run: Path,
    *,
    student: str | None = None,
    host: str = "127.0.0.1",
    port: Annotated[int, WHOLE] = 7860,
    allow_host: tuple[str, ...] = (),
) -> None:
    """Serve a local web page to try the teacher, a student and its twin on your photos.

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
    allow_host
        Host names to accept in requests, such as that of a proxy in front of the page. By default only localhost, the
        address to listen on and, with 0.0.0.0, this machine's addresses and name.
    """
    from potstill.deploy.serve import serve as start

    with start(run, student=student, host=host, port=port, allow_hosts=allow_host) as page:
        print(f"{page.url}   (stop with Ctrl-C)", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            print(f"Anyone who can reach {host} can use this page.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            page.wait()


@command("potstill models 'mobilenet*'")
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
        width = f" ×{arguments['channel_multiplier']:g}" if "channel_multiplier" in arguments else ""
        print(f"  {name:22} {architecture}{width}, {size} px, as TensorFlow has it")


def _show(page: Path, *, browser: bool) -> None:
    """Print where a page is, and open it where there is a screen."""
    print(page)
    if not browser:
        return
    if os.environ.get("SSH_CONNECTION") and not os.environ.get("DISPLAY"):
        here = f"{getpass.getuser()}@{platform.node()}"
        print(
            "This is a remote machine. The report is one file: copy it to where your browser is, and open it there:\n"
            f"  scp {here}:{shlex.quote(str(page.resolve()))} report.html",
            file=sys.stderr,
        )
        return
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        print("There is no browser to open it with. Open this file yourself.", file=sys.stderr)


def _numbers(text: str, kind: type[Number], says: str) -> list[Number]:
    """Numbers separated by commas. `says` is the message where there is anything else."""
    from potstill.errors import ConfigError

    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{says} Got {text!r}.") from None


def print_result(result: Any) -> None:
    """The tables and verdicts of a finished run, and what to type next."""
    from potstill.monitoring.tables import print_table
    from potstill.report.findings import reasons_not_to_rely
    from potstill.report.read import RunFiles
    from potstill.report.table import (
        agreement_table,
        class_table,
        comparison_note,
        comparison_table,
        operating_lines,
        operating_table,
        val_table,
    )

    if not result.is_compared:
        print_table(val_table(result.run))
        print("\n".join(result.verdicts()))
        score = "mAP" if result.several_labels else "Accuracy"
        print(
            f"{score} on val is flattering, since settings are chosen on it.\n\nNext:\n"
            f"  potstill predict {shlex.quote(str(result.path))} photo.jpg     # classify a photo\n"
            "  the same command without --no-twin        # train the twins, and compare"
        )
        return
    if result.several_labels:
        from potstill.report.labels import label_note, label_table

        print_table(label_table(result.scores))
        print("\n".join([label_note(result.scores), *result.verdicts()]))
        _print_next(result)
        return
    print_table(comparison_table(result.comparison))
    print(comparison_note(result.comparison))
    print_table(agreement_table(result.comparison))
    for table in (class_table(result.comparison), operating_table(result.comparison)):
        if table is not None:
            print_table(table)
    warnings = (f"Do not rely on these numbers: {reason}" for reason in reasons_not_to_rely(RunFiles(result.run)))
    for line in [*result.verdicts(), *operating_lines(result.comparison), *warnings]:
        print(line)
    _print_next(result)


def _after_a_smoke_test() -> list[tuple[str, str]]:
    """The real run that follows one with --quick, and what it is for; nothing after any other."""
    from potstill.run.command import typed_command

    words = shlex.split(typed_command())
    if "--quick" not in words:
        return []
    if any(word.partition("=")[0] == "--run" for word in words):  # the folder belongs to the smoke test
        return [("the same command without --quick, with another --run", "the real run")]
    return [(shlex.join(word for word in words if word != "--quick"), "the real run: this was a smoke test")]


def _print_next(result: Any) -> None:
    """Where the report is, and what to type next."""
    from potstill.run.folder import next_commands

    print(f"Report: {result.report}")
    commands = [*next_commands(result.path), *_after_a_smoke_test()]
    width = max(len(command) for command, _ in commands)
    print("\n".join(["", "Next:", *(f"  {command:{width}}   # {what}" for command, what in commands)]))
