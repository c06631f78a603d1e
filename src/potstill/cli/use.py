"""Commands that use a model: predict, evaluate."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from potstill.cli import app, command
from potstill.cli.refusals import unknown_option
from potstill.cli.starting import require_there
from potstill.cli.values import WHOLE
from potstill.errors import ConfigError


def _no_options(hint: Any, photos: list[Path]) -> None:
    """Raise ConfigError for a misspelled option: the - of standard input lets the parser take it for a photo."""
    for photo in map(str, photos):
        if photo.startswith("-") and photo != "-":
            arguments = app["predict"].assemble_argument_collection()
            raise ConfigError(unknown_option(photo, [name for a in arguments if a.parse for name in a.names]))


@command(
    "potstill predict runs/RUN photo.jpg",
    "potstill predict runs/RUN new-photos --csv --into predictions.csv",
    "potstill predict runs/RUN new-photos --sort-into sorted",
    "find . -name '*.jpg' -newer last-week | potstill predict runs/RUN - --json",
)
def predict(
    run: Path,
    photos: Annotated[list[Path], Parameter(consume_multiple=1, allow_leading_hyphen=True, validator=_no_options)],
    *,
    student: str | None = None,
    arm: Literal["distilled", "alone", "teacher"] = "distilled",
    seed: Annotated[int | None, WHOLE] = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    as_csv: Annotated[bool, Parameter(name="--csv")] = False,
    into: Path | None = None,
    sort_into: Path | None = None,
    move: bool = False,
    every: float = 1.0,
) -> int:
    """Classify photos: print the label and probability of each, or write a table, or sort the photos into folders.

    If there is an ONNX file of the student (`potstill export RUN --to onnx`), it is used: it gives the same predictions
    without loading torch, and starts in a fraction of the time. The twin, the teacher and other seeds run in torch.
    Photos that cannot be read are listed with the reason; the exit code is then 1.

    Parameters
    ----------
    run
        A run folder, a folder with model.json, or an exported file such as student.onnx.
    photos
        Photo files, folders (read recursively), patterns such as 'photos/**/*.jpg', and videos, of which one frame per
        second is used (needs `potstill[video]`). A single - reads standard input: a list of these, one per line, or the
        bytes of one photo.
    student
        Name of the student. By default the one chosen on the validation photos.
    arm
        Which model: distilled, alone (the twin trained without a teacher) or teacher.
    seed
        Training seed of the student. By default the best one on the validation photos.
    as_json
        Print one JSON object per photo, with the probabilities of all classes.
    as_csv
        Print CSV, with a column for the probability of each class.
    into
        Write to this file instead: .csv, .jsonl or .txt.
    sort_into
        Copy every photo into a subfolder for its predicted class in this folder. No file is overwritten.
    move
        With --sort-into, move the photos instead of copying them.
    every
        Seconds between the frames used from a video. 0: all frames.
    """
    require_there(run)
    from potstill.deploy.classify import classify
    from potstill.deploy.inputs import collect
    from potstill.deploy.outputs import kind_of, writer
    from potstill.deploy.sorting import Sorter, require_apart
    from potstill.export.load import open_predictor

    kind = kind_of(into, as_json=as_json, as_csv=as_csv)
    if every < 0:
        raise ConfigError("--every must be 0 or more, in seconds.")
    if move and sort_into is None:
        raise ConfigError("--move moves photos into the folders of --sort-into, which is missing.")
    inputs = collect(photos, sys.stdin.buffer.read, every=every)
    for note in inputs.notes:
        print(note, file=sys.stderr)
    if sort_into is not None:
        require_apart(sort_into, photos)
        inputs.require_files()
    model = open_predictor(run, student=student, arm=arm, seed=seed)
    if sort_into is not None and model.thresholds:
        raise ConfigError(
            "--sort-into puts a photo into one folder, but this model gives it several labels. Use --csv."
        )
    sorter = Sorter(sort_into, model.classes, move=move) if sort_into is not None else None
    count = inputs.count()
    several = bool(model.thresholds)
    with (
        _bar(count, shown=into is not None) as update,
        writer(kind, model.classes, into, several_labels=several) as write,
    ):
        summary = classify(model, inputs, write, sorter=sorter, update=update, count=count)
    if summary.photos > 1:
        print(summary.line(), file=sys.stderr)
    return 1 if summary.failed else 0


@command("potstill evaluate runs/RUN new-photos", "potstill evaluate student.onnx labels.csv --json")
def evaluate(
    run: Path,
    photos: Path,
    *,
    student: str | None = None,
    arm: Literal["distilled", "alone", "teacher"] = "distilled",
    seed: Annotated[int | None, WHOLE] = None,
    labels: Path | None = None,
    path_column: str = "",
    label_column: str = "",
    classes_from: Literal["folders", "top", "deepest", "names"] = "folders",
    without_label: Annotated[
        Literal["refuse", "none", "unlabeled"], Parameter(name=("--without-label", "--images.without-label"))
    ] = "refuse",
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Score a finished model on new photos, and compare with its own test photos.

    Reports accuracy with intervals, overall and per class, calibration, and drift: whether the photos look like those
    the model was made for, which needs no labels. Photos that the model was trained on are detected and left out. The
    run is not changed.

    Parameters
    ----------
    run
        A run folder, a folder with model.json, or an exported file such as student.onnx.
    photos
        A photo folder with class folders, a table of labels, or an archive, as for `distill`; or unlabeled photos.
    student
        Name of the student. By default the one chosen on the validation photos.
    arm
        Which model: distilled, alone (the twin trained without a teacher) or teacher.
    seed
        Training seed of the student. By default the best one on the validation photos.
    labels
        A table with the labels of the photos, as --labels of `distill`.
    path_column
        The column of the table with the paths of the photos.
    label_column
        The column of the table with the classes.
    classes_from
        Where class names come from, as --images.classes-from of `distill`.
    without_label
        For a model with several labels per photo: the meaning of a row without a label, as --images.without-label of
        `distill`.
    as_json
        Print everything as JSON.
    """
    require_there(run)
    from potstill.evaluation.evaluate import evaluate as score
    from potstill.monitoring.tables import print_table

    columns = {"images.path_column": path_column, "images.label_column": label_column}
    settings = {name: value for name, value in columns.items() if value} | {"images.classes_from": classes_from}
    if without_label != "refuse":
        settings["images.without_label"] = without_label
    found = score(run, photos, student=student, arm=arm, seed=seed, labels=labels, settings=settings)
    if as_json:
        print(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        if (table := found.table()) is not None:
            print_table(table)
        print("\n".join(found.lines()))
    return 1 if found.failed else 0


@contextlib.contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar where stderr is a terminal; where predictions are printed on the same one, these show progress."""
    from rich.console import Console

    from potstill.monitoring.display import TerminalBar

    console = Console(stderr=True)
    if total < 2 or not console.is_terminal or not (shown or not sys.stdout.isatty()):
        yield lambda done: None
        return
    bar = TerminalBar(console)
    try:
        yield lambda done: bar.show(f"Classifying {done:,} of {total:,} photos", min(done / total, 1.0), "")
    finally:
        bar.close()
