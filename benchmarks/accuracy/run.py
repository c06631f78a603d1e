"""Accuracy of distilled students against their twins: sets × students, defaults untouched. Resumable.

    python benchmarks/accuracy/run.py --sets animals=PATH:cat,dog,bird flowers=PATH solar=demo --seeds 3

Each set and student is one `potstill distill` in `--runs`. One row per trained model goes to results.csv, one per
student, with the paired interval, to differences.csv. What is there already is not trained again.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

KEY = ("set", "teacher", "student", "pretrained", "arm", "seed", "size")
NUMBERS = ("epochs", "accuracy", "errors", "n", "nll", "ece", "agreement", "seconds")
COLUMNS = (*KEY[:6], "epochs", "size", *NUMBERS[1:])
STUDENT = ("set", "teacher", "student", "size", "pretrained")
DIFFERENCES = (
    *STUDENT,
    "teacher_accuracy",
    "alone",
    "distilled",
    "difference",
    "low",
    "high",
    "relative_error_reduction",
    "to_teacher",
    "to_teacher_low",
    "to_teacher_high",
    "macs_share",
    "nll_alone",
    "nll_distilled",
    "n",
    "seeds",
    "seconds",
)


def main() -> None:
    """Run all combinations, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", required=True, help="NAME=FOLDER or NAME=FOLDER:CLASS,CLASS; solar=demo")
    parser.add_argument("--students", nargs="+", required=True, help="as potstill's --student.models; NAME!=scratch")
    parser.add_argument("--teacher", default="efficientnet_lite0", help="one, or several joined by +")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", default="{}", help="JSON of further settings, the same for all")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of both tables")
    arguments = parser.parse_args()

    from potstill.pipeline import distill

    for text in arguments.sets:
        name, _, place = text.partition("=")
        folder, _, classes = place.partition(":")
        data = _solar(arguments.runs) if folder == "demo" else Path(folder)
        for student in arguments.students:
            scratch = student.endswith("!")
            settings = {
                "student.models": [student.rstrip("!")],
                "student.weights": "none" if scratch else "auto",
                "teacher.model": arguments.teacher.split("+"),
                "images.classes": classes.split(",") if classes else [],
                "seeds": arguments.seeds,
                **json.loads(arguments.settings),
            }
            # All students of a set share one run, and so one teacher; scratch and pretrained must not share a folder.
            run = arguments.runs / f"{name}_{arguments.teacher}{'_scratch' if scratch else ''}"
            result = distill(data, settings=settings, run=run)
            _append(arguments.out / "results.csv", name, arguments.teacher, result)
            _differences(arguments.out / "differences.csv", name, arguments.teacher, result)


def _solar(runs: Path) -> Path:
    from potstill.tools.demo import make_folder

    return make_folder(runs / "solar-photos")


def _append(out: Path, set_name: str, teacher: str, result: Any) -> None:
    import numpy as np

    from potstill import metrics
    from potstill.models.classifier import load_info
    from potstill.run.layout import model_folder
    from potstill.run.results import read_training

    known: set[tuple[str, ...]] = set()
    if out.is_file():
        with out.open() as file:
            known = {tuple(row[c] for c in KEY) for row in csv.DictReader(file)}
    with np.load(result.run.comparison / "predictions.npz") as stored:
        answers = dict(stored)
    labels = answers["labels"]
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        for student in result.comparison.students:
            for arm in ("distilled", "alone"):
                for seed in range(result.comparison.seeds):
                    folder = model_folder(result.run, student.name, seed, arm)
                    trained = load_info(folder).trained
                    logits = answers[f"{student.name}/{arm}"][seed]
                    scaled = logits / trained.temperature
                    row = {
                        "set": set_name,
                        "teacher": teacher,
                        "student": student.model,
                        "pretrained": str(student.pretrained),
                        "arm": arm,
                        "seed": str(seed),
                        "epochs": trained.recipe["epochs"],
                        "size": str(student.size),
                        "accuracy": round(metrics.accuracy(logits, labels), 5),
                        "errors": int(np.sum(logits.argmax(-1) != labels)),
                        "n": len(labels),
                        "nll": round(metrics.nll(scaled, labels), 5),
                        "ece": round(metrics.ece(scaled, labels), 5),
                        "agreement": round(metrics.agreement(logits, answers["teacher"]), 5),
                        "seconds": read_training(folder).seconds,
                    }
                    key = tuple(str(row[c]) for c in KEY)
                    if key not in known:
                        writer.writerow(row)


def _differences(out: Path, set_name: str, teacher: str, result: Any) -> None:
    """One row per student of the run, in the place of an earlier one."""
    kept: dict[tuple[str, ...], dict[str, Any]] = {}
    if out.is_file():
        with out.open() as file:
            kept = {tuple(row[c] for c in STUDENT): row for row in csv.DictReader(file)}
    comparison = result.comparison
    for student in comparison.students:
        distilled, alone = student.distilled, student.alone
        row = {
            "set": set_name,
            "teacher": teacher,
            "student": student.model,
            "size": str(student.size),
            "pretrained": str(student.pretrained),
            "teacher_accuracy": comparison.teacher.accuracy.value,
            "alone": alone.accuracy.value,
            "distilled": distilled.accuracy.value,
            "difference": student.difference.value,
            "low": student.difference.low,
            "high": student.difference.high,
            "relative_error_reduction": student.relative_error_reduction,
            **_to_teacher(student.to_teacher),
            "macs_share": student.macs / comparison.teacher.macs,
            "nll_alone": alone.nll_scaled,
            "nll_distilled": distilled.nll_scaled,
            "n": comparison.test_photos,
            "seeds": comparison.seeds,
            "seconds": sum(sum(arm.seconds_per_seed) for arm in (distilled, alone)),
        }
        kept[tuple(row[c] for c in STUDENT)] = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, DIFFERENCES, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept.values())


def _to_teacher(interval: Any) -> dict[str, float]:
    return {"to_teacher": interval.value, "to_teacher_low": interval.low, "to_teacher_high": interval.high}


if __name__ == "__main__":
    main()
