"""Run folders for tests of the report: the tiny run's own files, changed to other sizes and other numbers."""

import copy
import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.support import unseal

from potstill.data.splits import SPLITS
from potstill.export.results import ExportedStudent, ExportResults, FileResult
from potstill.metrics import Interval
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run

BIG = ("*.safetensors", "features.npy", "logits.npy", "views.npy", "7_report")


def slim_copy(run: Path, target: Path) -> Run:
    """The files that a report reads."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns(*BIG))
    unseal(target)
    return Run(target)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file."""
    value = read_json(path)
    change(value)
    write_json(path, value)


def grow(
    run: Run, *, classes: Sequence[str], students: int, photos: int, right: float = 0.85, gain: float = 0.05
) -> None:
    """Give a slim copy other classes, students and test photos, with answers of the given accuracy.

    Everything that `potstill distill` would have written about them is made to agree.

    Args:
        right: accuracy of the students alone. The teacher's is 0.97.
        gain: what distilled has more.
    """
    generator = np.random.default_rng(0)
    count, seeds = len(classes), 2
    labels = np.arange(photos) % count
    answers = {"teacher": _answers(labels, count, 0.97, generator)}
    template = read_json(run.comparison / "comparison.json")
    model = template["students"][0]
    made = []
    for number in range(students):
        name = f"student-{number}"
        if number == 0:
            (run.students / model["name"]).rename(run.students / name)
        else:
            shutil.copytree(run.students / "student-0", run.students / name)
        student = copy.deepcopy(model)
        student.update(name=name, macs=model["macs"] * (number + 1), bytes=model["bytes"] * (number + 1))
        for arm, share in (("distilled", right + gain), ("alone", right)):
            logits = np.stack([_answers(labels, count, share, generator) for _ in range(seeds)])
            answers[f"{name}/{arm}"] = logits
            hits = logits.argmax(-1) == labels
            spread = 2 * float(np.sqrt(share * (1 - share) / photos))
            student[arm]["accuracy"] = {"value": hits.mean(), "low": hits.mean() - spread, "high": hits.mean() + spread}
            student[arm]["accuracy_per_seed"] = hits.mean(1).tolist()
            student[arm]["ece_scaled"] = 0.01
            student[arm]["agreement"] = {"train_views": 0.97, "val": 0.96, "test": 0.96}
            student[arm]["recipe"]["epochs"] = 20
            student[arm]["by_class"] = None  # as in results from before it was measured
        difference = student["distilled"]["accuracy"]["value"] - student["alone"]["accuracy"]["value"]
        student["difference"] = {"value": difference, "low": difference - 0.01, "high": difference + 0.01}
        student["agreement_difference"] = {"value": 0.05, "low": 0.04, "high": 0.06}
        student["class_differences"] = None
        student["verdict"] = f"Distillation made {name} better: {100 * difference:+.1f} points. More words."
        student["per_class"] = [
            {
                "name": c,
                "photos": int(np.sum(labels == i)),
                **{
                    who: float(np.mean(answers[key][..., labels == i, :].argmax(-1) == i))
                    for who, key in (
                        ("teacher", "teacher"),
                        ("distilled", f"{name}/distilled"),
                        ("alone", f"{name}/alone"),
                    )
                },
            }
            for i, c in enumerate(classes)
        ]
        made.append(student)
    template.update(
        classes=list(classes),
        test_photos=photos,
        test_per_class=np.bincount(labels, minlength=count).tolist(),
        train_views=1_000,
        students=made,
        chosen={"name": "student-0", "reason": "the test says so", "val_accuracy": {}},
    )
    template["teacher"]["by_class"] = None
    template["teacher"]["accuracy"] = {"value": 0.97, "low": 0.96, "high": 0.98}
    write_json(run.comparison / "comparison.json", template)
    for path in run.students.rglob("distilled/done.json"):
        edit(path, lambda facts: facts.update(val_accuracy=right + gain))
    rows = _write_photos(run, classes, labels)
    np.savez(run.comparison / "predictions.npz", allow_pickle=False, labels=labels, rows=rows, **answers)
    (run.teacher / "out_of_fold.npz").unlink(missing_ok=True)


def _answers(labels: np.ndarray, classes: int, right: float, generator: np.random.Generator) -> np.ndarray:
    """(n, C) float32 logits of which a share is right."""
    logits = generator.normal(0, 1, (len(labels), classes)).astype(np.float32)
    other = (labels + generator.integers(1, classes, len(labels))) % classes
    chosen = np.where(generator.random(len(labels)) < right, labels, other)
    logits[np.arange(len(labels)), chosen] = logits.max(1) + generator.uniform(0.1, 4, len(labels))
    return logits


def _write_photos(run: Run, classes: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """images.csv, index.npy and counts with these test photos, 100 val and 10 train photos per class. Returns rows."""
    train = np.repeat(np.arange(len(classes)), 10)
    val = np.arange(100) % len(classes)
    split = np.repeat([SPLITS.index(name) for name in ("train", "val", "test")], [len(train), len(val), len(labels)])
    every = np.concatenate([train, val, labels])
    index = np.resize(np.load(run.images / "index.npy"), len(every))  # the same few pictures again and again
    index["split"], index["label"] = split, every
    np.save(run.images / "index.npy", index)
    (run.images / "classes.txt").write_text("\n".join(classes) + "\n", "utf-8")
    with (run.images / "images.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["row", "path", "split", "class", "sha256", "width", "height", "format", "mode"])
        writer.writeheader()
        for row, (s, label) in enumerate(zip(split.tolist(), every.tolist(), strict=True)):
            path = f"{SPLITS[s]}/{classes[label]}/{row}.png"
            writer.writerow(
                {"row": row, "path": path, "split": SPLITS[s], "class": classes[label], "sha256": f"{row:064x}"}
                | {"width": 96, "height": 80, "format": "PNG", "mode": "RGB"}
            )
    counts = {"train": len(train), "val": len(val), "test": len(labels), "unlabeled": 0}
    edit(run.images / "done.json", lambda facts: facts.update(counts=counts))
    return np.flatnonzero(split == SPLITS.index("test"))


def reject(run: Run, code: str, count: int) -> None:
    """Lines in rejected.csv."""
    with (run.images / "rejected.csv").open("a", encoding="utf-8", newline="") as file:
        for number in range(count):
            csv.writer(file).writerow([f"train/x/{number}.jpg", "train", "x", code, "the reason"])


def export_json(run: Run, student: str = "student-0", **values: Any) -> None:
    """An export.json with one file."""
    file = FileResult(
        format="onnx", precision="int8", status="ok", file="s/student-int8.onnx", sha256={}, bytes=300_000,
        input="any size", accuracy=0.8, low=0.7, high=0.9, agreement=0.99, max_difference=0.01, milliseconds=1.5,
        peak_memory=1, runtime="onnxruntime 1", versions={}, seconds=1.0,
    )  # fmt: skip
    facts = ExportedStudent(
        model="mobilenetv1_025", seed=0, arm="distilled", weights_sha256="0", size=32, crop=1.0, classes=("a", "b"),
        temperature=1.0, threshold=0.5, confidence=0.95, test_photos=24, accuracy=Interval(0.8, 0.7, 0.9),
        milliseconds=1.0, max_loss=0.01, min_agreement=0.99, min_rounded_agreement=0.95,
        files=(replace(file, **values),),
    )  # fmt: skip
    results = ExportResults(run=run.path.name, fingerprint="0", environment={}, students={student: facts})
    results.write(run)
