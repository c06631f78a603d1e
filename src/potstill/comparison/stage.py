"""Stage 5: the test photos. They are read here for the first time, for teacher, students and twins alike.

comparison.json     every number, with its interval
predictions.npz     labels (n,), rows (n,), teacher (n, C), NAME/distilled and NAME/alone (S, n, C): logits
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import metrics
from potstill.comparison.plan import ComparisonPlan
from potstill.compute.device import environment
from potstill.compute.inference import plain_outputs
from potstill.compute.machine import Machine
from potstill.compute.precision import Precision
from potstill.context import Context
from potstill.data.pixels import PixelStore
from potstill.metrics import Interval
from potstill.models.classifier import Classifier, load, load_info, read_description
from potstill.models.costs import macs_of, milliseconds_of, parameters_of
from potstill.run.files import read_json, replacing, sha256_of, write_json
from potstill.run.folder import Run
from potstill.run.layout import ARMS, member_folders, model_folder, student_names


def compare(plan: ComparisonPlan, context: Context) -> None:
    """Score everything on the test photos and write `5_comparison/`."""
    run, machine, reporter = context.run, context.machine, context.reporter
    names, store = student_names(run), PixelStore(run.images)
    stage, models = run.stage("5_comparison"), plan.teacher
    inputs = {
        "photos": run.stage("1_images").digest(),
        "teacher": [sha256_of(folder / "model.safetensors") for folder in member_folders(run.teacher, models)],
        "students": {
            f"{name}/{arm}": [_digest(run, name, seed, arm) for seed in range(plan.seeds)]
            for name in names
            for arm in ARMS
        },
        "comparison": asdict(plan.config),
    }
    answers = _known_answers(run, inputs)
    if stage.is_done and read_json(run.comparison / "done.json")["inputs"] != inputs:
        (run.comparison / "done.json").unlink()  # cheap to make again, and never made from anything but finished models
    if not stage.begin(inputs):
        return
    rows = store.rows("test")
    labels = store.labels(rows)
    todo = [key for key in inputs["students"] if key not in answers]
    with reporter.bar("Scoring on the test photos", 1 + len(todo), unit="models") as update:
        if "teacher" not in answers:
            answers["teacher"] = _teacher_logits(run, models, store, rows, machine)
        update(1)
        for done, key in enumerate(todo, 2):
            name, _, arm = key.rpartition("/")
            answers[key] = np.stack([_logits(run, name, s, arm, store, rows, machine) for s in range(plan.seeds)])
            update(done)
    with replacing(run.comparison / "predictions.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, labels=labels, rows=rows, **answers)
    teacher = _teacher_numbers(run, plan, answers["teacher"], labels)
    students = [_student_numbers(run, name, plan, answers, labels, teacher["macs"]) for name in names]
    result = {
        "classes": run.classes(),
        "test_photos": len(labels),
        "test_per_class": np.bincount(labels, minlength=len(run.classes())).tolist(),
        "seeds": plan.seeds,
        "confidence": plan.config.confidence,
        "teacher": teacher,
        "students": students,
        "chosen": choose(run, students, plan.seeds),
        "environment": environment(machine),
    }
    write_json(run.comparison / "comparison.json", result)
    stage.finish()


def _known_answers(run: Run, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What an earlier comparison of this run stored of models that are still the same: nobody answers twice."""
    folder = run.comparison
    if not (folder / "done.json").is_file() or not (folder / "predictions.npz").is_file():
        return {}
    before = read_json(folder / "done.json")["inputs"]
    if before.get("photos") != inputs["photos"]:
        return {}
    same = {key for key, digests in inputs["students"].items() if before["students"].get(key) == digests}
    if before.get("teacher") == inputs["teacher"]:
        same.add("teacher")
    with np.load(folder / "predictions.npz", allow_pickle=False) as stored:
        return {key: stored[key] for key in same if key in stored}


def _digest(run: Run, name: str, seed: int, arm: str) -> str:
    described = read_description(model_folder(run, name, seed, arm))
    return f"{described['sha256']} {described.get('crop_pct', 1.0)}"


def _logits(
    run: Run, name: str, seed: int, arm: str, store: PixelStore, rows: np.ndarray, machine: Machine
) -> np.ndarray:
    model = load(model_folder(run, name, seed, arm)).to(torch.device(machine.device))
    return plain_outputs(model, store, rows, Precision(torch.device(machine.device)), threads=machine.cores)[1]


def _teacher_logits(
    run: Run, models: tuple[str, ...], store: PixelStore, rows: np.ndarray, machine: Machine
) -> np.ndarray:
    parts = []
    for folder in member_folders(run.teacher, models):
        model = load(folder).to(torch.device(machine.device))
        precision = Precision(torch.device(machine.device), getattr(torch, model.info.trained["precision"]))
        parts.append(plain_outputs(model, store, rows, precision, threads=machine.cores)[1])
    return metrics.mean_probability_logits(parts)


def _teacher_numbers(run: Run, plan: ComparisonPlan, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    folders = member_folders(run.teacher, plan.teacher)
    right = int(np.sum(logits.argmax(-1) == labels))
    low, high = metrics.wilson_interval(right, len(labels), plan.config.confidence)
    temperature = read_json(run.soft_labels / "meta.json")["val_temperature"]
    models = [load(folder) for folder in folders]
    costs = [_costs(model, folder) for model, folder in zip(models, folders, strict=True)]
    return {
        "models": list(plan.teacher),
        "sizes": [model.info.size for model in models],
        "method": [model.info.trained.get("method") for model in models],
        "accuracy": asdict(Interval(right / len(labels), low, high)),
        **_calibration(logits, labels, temperature),
        **{key: sum(cost[key] for cost in costs) for key in costs[0]},
    }


def _student_numbers(
    run: Run, name: str, plan: ComparisonPlan, answers: dict[str, np.ndarray], labels: np.ndarray, teacher_macs: int
) -> dict[str, Any]:
    confidence, resamples = plan.config.confidence, plan.config.resamples
    folder = model_folder(run, name, 0, "distilled")
    model = load(folder)
    arms: dict[str, Any] = {}
    right = {arm: answers[f"{name}/{arm}"].argmax(-1) == labels for arm in ARMS}
    for arm in ARMS:
        logits = answers[f"{name}/{arm}"]
        infos = [load_info(model_folder(run, name, s, arm)) for s in range(plan.seeds)]
        per_seed = [_calibration(z, labels, info.trained["temperature"]) for z, info in zip(logits, infos, strict=True)]
        interval = metrics.bootstrap_mean(right[arm].astype(float), resamples=resamples, confidence=confidence)
        arms[arm] = {
            "accuracy": asdict(interval),
            "accuracy_per_seed": [metrics.accuracy(z, labels) for z in logits],
            **{key: float(np.mean([numbers[key] for numbers in per_seed])) for key in per_seed[0]},
            "agreement": float(np.mean([metrics.agreement(z, answers["teacher"]) for z in logits])),
            "recipe": infos[0].trained["recipe"],
            "crop_per_seed": [info.crop_pct for info in infos],
            "seconds_per_seed": [
                read_json(model_folder(run, name, s, arm) / "done.json")["seconds"] for s in range(plan.seeds)
            ],
        }
    gain = right["distilled"].astype(float) - right["alone"].astype(float)
    difference = metrics.bootstrap_mean(gain, resamples=resamples, confidence=confidence)
    teacher_right = answers["teacher"].argmax(-1) == labels
    behind = metrics.bootstrap_mean(
        right["distilled"].astype(float) - teacher_right, resamples=resamples, confidence=confidence
    )
    costs = _costs(model, folder)
    twin_errors = 1 - arms["alone"]["accuracy"]["value"]
    reduction = difference.value / twin_errors if twin_errors > 0 else None
    visible = metrics.smallest_visible_difference(float(np.mean(np.abs(gain))), len(labels))
    tests = [metrics.mcnemar(d, a) for d, a in zip(right["distilled"], right["alone"], strict=True)]
    return {
        "name": name,
        "model": model.info.name,
        "size": model.info.size,
        "pretrained": model.info.weights.get("source") != "none",
        **costs,
        **arms,
        "difference": asdict(difference),
        "to_teacher": asdict(behind),
        "relative_error_reduction": reduction,
        "mcnemar": [
            {"seed": seed, "only_distilled": b, "only_alone": c, "p": p} for seed, (b, c, p) in enumerate(tests)
        ],
        "smallest_visible_difference": visible,
        "per_class": _per_class(right, teacher_right, labels, run.classes()),
        "verdict": verdict(name, difference, reduction, visible, len(labels), plan.seeds)
        + beside_teacher(behind, teacher_macs / max(costs["macs"], 1)),
    }


def choose(run: Run, students: list[dict[str, Any]], seeds: int) -> dict[str, Any]:
    """The student to deploy, by val alone: the one with the fewest MACs within one standard error of the best."""
    right = {}
    for student in students:
        folders = [model_folder(run, student["name"], seed, "distilled") for seed in range(seeds)]
        right[student["name"]] = float(np.mean([read_json(f / "done.json")["val_accuracy"] for f in folders]))
    photos = int(sum(1 for _ in np.load(run.soft_labels / "val_logits.npy", mmap_mode="r")))
    best = max(right.values())
    slack = float(np.sqrt(max(best * (1 - best), 1 / photos) / photos))
    enough = [student for student in students if right[student["name"]] >= best - slack]
    chosen = min(enough, key=lambda student: student["macs"])["name"]
    if len(students) == 1:
        reason = "the only student of the run"
    else:
        reason = (
            f"right on {right[chosen]:.1%} of {photos} val photos, the fewest MACs of those within one standard error "
            f"({100 * slack:.1f} points) of the best ({best:.1%})"
        )
    return {"name": chosen, "reason": reason, "val_accuracy": right}


def verdict(name: str, difference: Interval, reduction: float | None, visible: float, photos: int, seeds: int) -> str:
    """The result in words. A gain is claimed only where the whole interval lies above 0."""
    points = difference.points
    basis = f"{photos:,} test photos, {seeds} seed{'s' if seeds > 1 else ''}"
    # The interval of one seed knows the luck of the photos, not that of the training.
    once = " One training of each may differ by luck: --seeds 3 tells." if seeds == 1 else ""
    if difference.low > 0:
        fewer = f", {reduction:.0%} fewer errors" if reduction else ""
        return f"Distillation made {name} better: {points}{fewer} than its twin, on {basis}.{once}"
    if difference.high < 0:
        return f"Distillation made {name} worse: {points} against its twin, on {basis}.{once or ' Use the twin.'}"
    return (
        f"No gain measured for {name}: {points} against its twin, on {basis}. "
        f"A difference below about {100 * visible:.1f} points cannot be seen with so many photos."
    )


def beside_teacher(behind: Interval, lighter: float) -> str:
    """What else is worth saying: that the student is as often right as its teacher, where no difference was measured.

    Args:
        behind: distilled minus teacher, on the same photos.
        lighter: the teacher's MACs over the student's.
    """
    if behind.high < 0 or lighter < 1:
        return ""
    equal = "No difference to its teacher measured" if behind.low <= 0 else "It is more often right than its teacher"
    return f" {equal}: {behind.points}, at 1/{lighter:.0f} of the teacher's multiplications."


def _calibration(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, float]:
    """NLL and ECE as the model answers, and after the temperature that was fitted on val."""
    return {
        "nll": metrics.nll(logits, labels),
        "ece": metrics.ece(logits, labels),
        "nll_scaled": metrics.nll(logits / temperature, labels),
        "ece_scaled": metrics.ece(logits / temperature, labels),
        "temperature": temperature,
    }


def _per_class(
    right: dict[str, np.ndarray], teacher_right: np.ndarray, labels: np.ndarray, classes: list[str]
) -> list[dict[str, Any]]:
    return [
        {
            "class": name,
            "photos": int(np.sum(labels == label)),
            "teacher": float(np.mean(teacher_right[labels == label])),
            **{arm: float(np.mean(right[arm][:, labels == label])) for arm in ARMS},
        }
        for label, name in enumerate(classes)
    ]


def _costs(model: Classifier, folder: Path) -> dict[str, Any]:
    return {
        "parameters": parameters_of(model),
        "macs": macs_of(model),
        "bytes": (folder / "model.safetensors").stat().st_size,
        "milliseconds": milliseconds_of(model),
    }
