"""Predictions as lines of text, as JSON Lines or as CSV: printed, or in a file that is never seen half written."""

import contextlib
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from potstill.deploy.predictor import LabelsPrediction, Prediction
from potstill.errors import ConfigError, DataError
from potstill.images.folder import plain_name
from potstill.run.files import replacing

Kind = Literal["text", "json", "csv"]
Outcome = Prediction | LabelsPrediction | DataError
Write = Callable[[str, Outcome], None]
"""Called with each photo's name and what was predicted, or why it could not be read."""

_BY_SUFFIX: dict[str, Kind] = {".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".txt": "text"}
_DIGITS = 6


def kind_of(target: Path | None, *, as_json: bool, as_csv: bool) -> Kind:
    """What to write. Raises ConfigError where flags and the file's name contradict each other, or name nothing."""
    if as_json and as_csv:
        raise ConfigError("--json and --csv are two kinds of output; choose one.")
    flag: Kind | None = "json" if as_json else "csv" if as_csv else None
    if target is None:
        return flag or "text"
    by_name = _BY_SUFFIX.get(target.suffix.lower())
    if flag and by_name and flag != by_name:
        raise ConfigError(f"--{flag} contradicts the name {target.name}. Leave out --{flag}, or rename the file.")
    if not (flag or by_name):
        raise ConfigError(f"--into {target}: name a file that ends in {', '.join(_BY_SUFFIX)}, or add --json or --csv.")
    if target.is_dir():
        raise ConfigError(f"--into {target} is a folder; name a file. To sort photos into folders: --sort-into.")
    return flag or by_name or "text"


@contextlib.contextmanager
def writer(
    kind: Kind, classes: Sequence[str], target: Path | None = None, *, several_labels: bool = False
) -> Iterator[Write]:
    """Write predictions while the block works; a file appears under its name when all are in it.

    Args:
        classes: of the model; JSON and CSV have the probability of each.
        target: the file; None prints.
        several_labels: whether the model gives a photo several labels.
    """
    assert kind in get_args(Kind)
    if target is None:
        yield _write_to(sys.stdout, kind, classes, several_labels)
        sys.stdout.flush()
        return
    with replacing(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield _write_to(file, kind, classes, several_labels)


def _write_to(file: TextIO, kind: Kind, classes: Sequence[str], several_labels: bool) -> Write:
    if kind == "json":
        return lambda name, outcome: print(json.dumps(_values(name, outcome), ensure_ascii=False), file=file)
    if kind == "text":
        return lambda name, outcome: print(_line(name, outcome), file=file)
    rows = csv.writer(file, lineterminator="\n")
    own = ["labels"] if several_labels else ["label", "probability", "known"]
    rows.writerow(["photo", *own, "error", *(f"p_{name}" for name in classes)])
    if several_labels:
        return lambda name, outcome: rows.writerow(_labels_row(name, outcome, classes))
    return lambda name, outcome: rows.writerow(_row(name, outcome, classes))


def _line(name: str, outcome: Outcome) -> str:
    if isinstance(outcome, DataError):
        return f"{plain_name(name)}\t-\t{outcome}"
    if isinstance(outcome, LabelsPrediction):
        found = ", ".join(f"{label} {outcome.probabilities[label]:.1%}" for label in outcome.labels)
        return f"{plain_name(name)}\t{found or 'none of the classes'}"
    unsure = "" if outcome.known else "\tunsure: perhaps none of these classes"
    return f"{plain_name(name)}\t{outcome.label}\t{outcome.probability:.1%}{unsure}"


def _values(name: str, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, DataError):
        return {"photo": plain_name(name), "error": str(outcome)}
    if isinstance(outcome, LabelsPrediction):
        return {
            "photo": plain_name(name),
            "labels": list(outcome.labels),
            "probabilities": outcome.probabilities,
        }
    return {
        "photo": plain_name(name),
        "label": outcome.label,
        "probability": round(outcome.probability, _DIGITS),
        "known": outcome.known,
        "probabilities": outcome.probabilities,
    }


def _labels_row(name: str, outcome: Outcome, classes: Sequence[str]) -> list[Any]:
    """The labels with | between them, which no name of a class has."""
    if isinstance(outcome, DataError):
        return [plain_name(name), "", str(outcome), *("" for _ in classes)]
    return [
        plain_name(name),
        "|".join(outcome.labels) if isinstance(outcome, LabelsPrediction) else outcome.label,
        "",
        *(round(outcome.probabilities[name], _DIGITS) for name in classes),
    ]


def _row(name: str, outcome: Outcome, classes: Sequence[str]) -> list[Any]:
    if isinstance(outcome, DataError):
        return [plain_name(name), "", "", "", str(outcome), *("" for _ in classes)]
    assert isinstance(outcome, Prediction)
    probabilities = [round(outcome.probabilities[name], _DIGITS) for name in classes]
    known = "yes" if outcome.known else "no"
    return [plain_name(name), outcome.label, round(outcome.probability, _DIGITS), known, "", *probabilities]
