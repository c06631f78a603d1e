"""Stage 5: the test photos. No model has seen them before: teacher, students and twins are scored on them here.

comparison.json     every number, with its interval
predictions.npz     labels (n,), rows (n,), teacher (n, C), NAME/distilled and NAME/alone (S, n, C): logits
train_views.npz     see `potstill.comparison.agreement`
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill import metrics
from potstill.comparison.agreement import Agreements
from potstill.comparison.by_class import ClassScores, Model
from potstill.comparison.plan import ComparisonPlan
from potstill.comparison.update import earlier_digests, measure_update
from potstill.compute.device import environment
from potstill.compute.inference import plain_outputs
from potstill.compute.precision import Precision
from potstill.context import Context
from potstill.data.arrays import open_arrays
from potstill.data.pixels import PixelStore
from potstill.metrics import Interval, multilabel
from potstill.metrics.choice import ACCURACY, Metric, adjustment, class_balances
from potstill.metrics.classification import Classification
from potstill.models.classifier import Classifier, describe, load, load_info, read_description
from potstill.models.costs import macs_of, milliseconds_of, parameters_of
from potstill.run.files import read_json, replacing, sha256_of
from potstill.run.folder import Run
from potstill.run.layout import (
    ARMS,
    comparison_path,
    external_inputs,
    given_path,
    member_folders,
    model_folder,
    networks_of,
    student_names,
    teacher_networks,
    weights_path,
)
from potstill.run.results import (
    FORMAT,
    ArmResult,
    Chosen,
    ClassAccuracy,
    ClassDifferences,
    Comparison,
    Environment,
    McNemar,
    StudentResult,
    TeacherResult,
    UpdateResult,
    read_training,
    write_comparison,
)
from potstill.wording import counted

NO_COSTS: dict[str, Any] = {"parameters": 0, "macs": 0, "bytes": 0, "milliseconds": 0.0}
"""Of a teacher of which only a file of soft labels is known."""

VAL_RESAMPLES = 500
"""For the standard error of an mAP on val."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Labels of the test photos, and every model's logits on them."""

    labels: np.ndarray
    """(n,)."""
    classes: list[str]
    logits: Mapping[str, np.ndarray]
    """teacher (n, C); NAME/distilled and NAME/alone (S, n, C)."""
    groups: np.ndarray | None = None
    """(n,) the group of each photo, where several are of one: intervals draw whole groups."""

    def correct(self, key: str) -> np.ndarray:
        """(n,) or (S, n) bool: whether the prediction is the label."""
        return np.asarray(self.logits[key].argmax(-1) == self.labels)


def compare(plan: ComparisonPlan, context: Context) -> None:
    """Measure teacher, students and twins on the test photos and write `5_comparison/`."""
    run = context.run
    names, stage = student_names(run), run.stage("5_comparison")
    inputs = inputs_of(run, plan, names)
    logits, on_train = (known_logits(run, inputs, name) for name in ("predictions.npz", "train_views.npz"))
    if stage.is_done and stage.facts()["inputs"] != inputs:
        stage.reopen()  # cheap to make again, and never made from anything but finished models
    if not stage.begin(inputs):
        return
    shift = _teacher_shift(run, plan)
    scores = score_all(plan, context, names, logits, shift)
    teacher = _teacher_result(run, plan, scores, shift)
    agreements = Agreements.measure(context, names, plan.seeds, on_train, scores.logits, shift)
    students = tuple(_student_result(name, plan, scores, teacher.macs, agreements) for name in names)
    metric = Metric.of(plan.metric, scores.classes)
    chosen = choose(run, {student.name: student.macs for student in students}, plan.seeds, metric)
    comparison = Comparison(
        classes=tuple(scores.classes),
        test_photos=len(scores.labels),
        test_per_class=tuple(np.bincount(scores.labels, minlength=len(scores.classes)).tolist()),
        train_views=agreements.num_train_views,
        seeds=plan.seeds,
        confidence=plan.config.confidence,
        teacher=teacher,
        students=students,
        chosen=chosen,
        environment=Environment(**environment(context.machine)),
        metric=plan.metric,
        operating_point=_class_scores(plan, scores).operating_target(val_of(run)[1]),
        update=_update(plan, context, chosen.name, scores),
    )
    write_comparison(comparison_path(run), comparison)
    stage.finish()


def _update(plan: ComparisonPlan, context: Context, name: str, scores: Scores) -> UpdateResult | None:
    """What adding photos brought, where they were added to an earlier run."""

    def correct_of(folder: Path) -> np.ndarray:
        return np.asarray(OnTest.of(context).logits(folder).argmax(-1) == scores.labels)

    return measure_update(plan, context.run, name, scores.correct(f"{name}/distilled"), correct_of, scores.groups)


def inputs_of(run: Run, plan: ComparisonPlan, names: Sequence[str]) -> dict[str, Any]:
    """What the comparison depends on: photos, every model's weights, and how intervals are made."""
    networks = [network for group in teacher_networks(run.teacher, plan.teacher) for network in group]
    store = PixelStore(run.images)
    grouped = {} if store.groups_of(store.rows("test")) is None else {"resampled": "groups of photos"}
    earlier = {"earlier": earlier_digests(plan.earlier), "warm": plan.warm} if plan.earlier else {}
    return {
        "format": FORMAT,
        **grouped,
        **earlier,
        "photos": run.stage("1_images").digest(),
        "teacher": [sha256_of(weights_path(folder)) for folder in networks],
        **external_inputs(run),
        "students": {
            f"{name}/{arm}": [_digest(run, name, seed, arm) for seed in range(plan.seeds)]
            for name in names
            for arm in ARMS
        },
        "comparison": asdict(plan.config),
        "metric": plan.metric,
        "class_balance": list(class_balances(plan.metric, plan.class_balance)),
        "operating_point": plan.operating_point,
    }


def val_of(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The teacher's logits (n, C) on val, and the labels (n,)."""
    store = PixelStore(run.images)
    return np.load(run.soft_labels / "val_logits.npy", allow_pickle=False), store.labels(store.rows("val"))


def _teacher_shift(run: Run, plan: ComparisonPlan) -> np.ndarray:
    """(C,) what is added to the teacher's logits where it predicts classes: all 0, or the logit adjustment that val is
    better for. Its soft labels are without."""
    logits, labels = val_of(run)
    none = np.zeros(logits.shape[-1], np.float32)
    facts = run.stage("2_teacher").facts()
    shares = [facts[name].get("class_shares") for name in plan.teacher]
    if None in shares:  # trained and chosen without regard to the sizes of the classes
        return none
    metric, adjusted = Metric.of(plan.metric, run.classes()), adjustment(np.mean(shares, axis=0)).astype(np.float32)
    ways = [none if way == "none" else adjusted for way in class_balances(plan.metric, plan.class_balance)]
    return min(ways, key=lambda shift: metric.loss(logits + shift, labels))


def _class_scores(plan: ComparisonPlan, scores: Scores) -> ClassScores:
    return ClassScores(scores.classes, scores.labels, plan, scores.groups)


def score_all(
    plan: ComparisonPlan, context: Context, names: Sequence[str], known: dict[str, np.ndarray], shift: np.ndarray
) -> Scores:
    """Run the models whose logits are not known on the test photos, and store all in predictions.npz.

    Args:
        shift: (C,) added to the teacher's logits.
    """
    test, logits = OnTest.of(context), dict(known)
    todo = [f"{name}/{arm}" for name in names for arm in ARMS if f"{name}/{arm}" not in logits]
    label = "Scoring on the test photos"
    with context.reporter.bar(label, 1 + len(todo), unit="model", part="test photos") as update:
        if "teacher" not in logits:
            logits["teacher"] = test.teacher_logits(plan.teacher) + shift
        update(1)
        for done, key in enumerate(todo, 2):
            name, _, arm = key.rpartition("/")
            folders = [model_folder(context.run, name, seed, arm) for seed in range(plan.seeds)]
            logits[key] = np.stack([test.logits(folder) for folder in folders])
            update(done)
    labels = test.store.labels(test.rows)
    with replacing(context.run.comparison / "predictions.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, labels=labels, rows=test.rows, **logits)
    return Scores(labels, context.run.classes(), logits, test.store.groups_of(test.rows))


@dataclass(frozen=True, slots=True)
class OnTest:
    """The test photos, and the machine to run models on them."""

    context: Context
    store: PixelStore
    rows: np.ndarray
    """(n,) of the store."""

    @classmethod
    def of(cls, context: Context) -> "OnTest":
        store = PixelStore(context.run.images)
        return cls(context, store, store.rows("test"))

    def logits(self, folder: Path, dtype: str = "float32") -> np.ndarray:
        """(n, C) of a stored model."""
        machine = self.context.machine
        precision = Precision(torch.device(machine.device), getattr(torch, dtype))
        model = load(folder).to(machine.device)
        return plain_outputs(model, self.store, self.rows, precision, threads=machine.cores)[1]

    def teacher_logits(self, models: tuple[str, ...]) -> np.ndarray:
        """(n, C) of the teacher's models together, each in the arithmetic that it labeled in; or from its file."""
        if given_path(self.context.run).is_file():
            return np.load(given_path(self.context.run), allow_pickle=False)[self.rows]
        groups = teacher_networks(self.context.run.teacher, models)
        parts = [[self.logits(folder, load_info(folder).trained.precision) for folder in group] for group in groups]
        mean = Classification.of(self.store.several_labels).mean_logits
        return mean([mean(group) for group in parts])


def known_logits(run: Run, inputs: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """The logits that an earlier comparison stored of models that are still the same: no model is run twice.

    Args:
        name: of the file that has them.
    """
    folder = run.comparison
    if not (folder / "done.json").is_file() or not (folder / name).is_file():
        return {}
    before = read_json(folder / "done.json")["inputs"]
    if before.get("photos") != inputs["photos"]:
        return {}
    same = {key for key, digests in inputs["students"].items() if before["students"].get(key) == digests}
    decisive = ("teacher", "metric", "class_balance")
    earlier = {"metric": "accuracy", "class_balance": ["none"], **before}  # before there was a choice
    if all(earlier.get(key) == inputs[key] for key in decisive):
        same.add("teacher")
    with open_arrays(folder / name) as stored:
        return {key: stored[key] for key in same if key in stored}


def _digest(run: Run, name: str, seed: int, arm: str) -> str:
    described = read_description(model_folder(run, name, seed, arm))
    return f"{described['sha256']} {described.get('crop_pct', 1.0)}"


def _teacher_result(run: Run, plan: ComparisonPlan, scores: Scores, shift: np.ndarray) -> TeacherResult:
    members = [networks_of(folder) for folder in member_folders(run.teacher, plan.teacher)]
    infos = [[load_info(network) for group in groups for network in group] for groups in members]
    folders = [network for groups in members for group in groups for network in group]
    confidence = plan.config.confidence
    val_logits, val_labels = val_of(run)
    temperature = read_json(run.soft_labels / "meta.json")["val_temperature"]
    if plan.metric != "accuracy":
        temperature = Metric.of(plan.metric, scores.classes).temperature(val_logits + shift, val_labels)
    test = _class_scores(plan, scores)
    on_val = metrics.softmax((val_logits + shift) / temperature)
    model = Model(scores.logits["teacher"][None], (temperature,), test.threshold(on_val, val_labels))
    costs = [costs_of(load(folder), folder) for folder in folders] or [NO_COSTS]
    is_given = given_path(run).is_file()
    return TeacherResult(
        models=tuple(plan.teacher),
        sizes=() if is_given else tuple(networks[0].size for networks in infos),
        method=("file",)
        if is_given
        else tuple("+".join(dict.fromkeys(str(info.trained.method) for info in networks)) for networks in infos),
        networks=tuple(len(networks) for networks in infos),
        accuracy=metrics.accuracy_interval(scores.correct("teacher"), confidence=confidence, groups=scores.groups),
        by_class=test.measure(model),
        operating=test.operating(model),
        logit_shift=tuple(shift.tolist()) if shift.any() else (),
        **_calibration(scores.logits["teacher"], scores.labels, temperature),
        **{key: sum(cost[key] for cost in costs) for key in costs[0]},
    )


def _student_result(
    name: str, plan: ComparisonPlan, scores: Scores, teacher_macs: int, agreements: Agreements
) -> StudentResult:
    folder = model_folder(agreements.run, name, 0, "distilled")
    model = load(folder)
    costs = costs_of(model, folder)
    distilled, alone = (_arm_result(name, arm, plan, scores, agreements) for arm in ARMS)
    gain = scores.correct(f"{name}/distilled").astype(float) - scores.correct(f"{name}/alone").astype(float)
    behind = scores.correct(f"{name}/distilled").astype(float) - scores.correct("teacher")
    difference, to_teacher = _interval(gain, plan, scores), _interval(behind, plan, scores)
    twin_errors = 1 - alone.accuracy.value
    reduction = difference.value / twin_errors if twin_errors > 0 else None
    photos = len(scores.labels)
    visible = metrics.smallest_visible_difference(
        float(np.mean(np.abs(gain))), round(photos / metrics.design_effect(gain.mean(0), scores.groups))
    )
    models = [_arm_model(name, arm, plan, scores, agreements.run) for arm in ARMS]
    differences = _class_scores(plan, scores).differences(*models)
    return StudentResult(
        name=name,
        model=model.info.name,
        size=model.info.size,
        pretrained=model.info.weights.get("source") != "none",
        pretrained_size=describe(model.info.name, ()).size,
        **costs,
        distilled=distilled,
        alone=alone,
        difference=difference,
        to_teacher=to_teacher,
        agreement_difference=_interval(_follows(name, scores), plan, scores),
        relative_error_reduction=reduction,
        mcnemar=_mcnemar(name, scores),
        smallest_visible_difference=visible,
        per_class=_per_class(name, scores),
        class_differences=differences,
        verdict=verdict(name, difference, reduction, visible, tested_on(scores), plan.seeds)
        + beside_teacher(to_teacher, teacher_macs / max(costs["macs"], 1))
        + by_metric(plan.metric, differences),
    )


def _follows(name: str, scores: Scores) -> np.ndarray:
    """(S, n) 1 where only the student predicts the teacher's class, -1 where only its twin does, else 0."""
    teacher = scores.logits["teacher"].argmax(-1)
    agrees = [scores.logits[f"{name}/{arm}"].argmax(-1) == teacher for arm in ARMS]
    return agrees[0].astype(float) - agrees[1]


def _arm_model(name: str, arm: str, plan: ComparisonPlan, scores: Scores, run: Run) -> Model:
    trained = [load_info(model_folder(run, name, seed, arm)).trained for seed in range(plan.seeds)]
    points = [each.operating_point for each in trained]
    return Model(
        scores.logits[f"{name}/{arm}"],
        tuple(each.temperature for each in trained),
        tuple(point.threshold for point in points if point is not None),
    )


def _arm_result(name: str, arm: str, plan: ComparisonPlan, scores: Scores, agreements: Agreements) -> ArmResult:
    logits, labels = scores.logits[f"{name}/{arm}"], scores.labels
    folders = [model_folder(agreements.run, name, seed, arm) for seed in range(plan.seeds)]
    infos = [load_info(folder) for folder in folders]
    per_seed = [_calibration(z, labels, info.trained.temperature) for z, info in zip(logits, infos, strict=True)]
    test, model = _class_scores(plan, scores), _arm_model(name, arm, plan, scores, agreements.run)
    return ArmResult(
        by_class=test.measure(model),
        operating=test.operating(model),
        accuracy=_interval(scores.correct(f"{name}/{arm}").astype(float), plan, scores),
        accuracy_per_seed=tuple(metrics.accuracy(z, labels) for z in logits),
        **{key: float(np.mean([numbers[key] for numbers in per_seed])) for key in per_seed[0]},
        agreement=agreements.of(name, arm),
        recipe=dict(infos[0].trained.recipe),
        crop_per_seed=tuple(info.crop_pct for info in infos),
        seconds_per_seed=tuple(read_training(folder).seconds for folder in folders),
    )


def _interval(values: np.ndarray, plan: ComparisonPlan, scores: Scores) -> Interval:
    """Of the mean of (S, n) values."""
    config = plan.config
    return metrics.bootstrap_mean(
        values, resamples=config.resamples, confidence=config.confidence, groups=scores.groups
    )


def tested_on(scores: Scores) -> str:
    """What the numbers stand on."""
    groups = "" if scores.groups is None else f" of {counted(len(np.unique(scores.groups)), 'group')}"
    return counted(len(scores.labels), "test photo") + groups


def _mcnemar(name: str, scores: Scores) -> tuple[McNemar, ...]:
    pairs = zip(scores.correct(f"{name}/distilled"), scores.correct(f"{name}/alone"), strict=True)
    return tuple(McNemar(seed, *metrics.mcnemar(distilled, alone)) for seed, (distilled, alone) in enumerate(pairs))


def choose(run: Run, macs: Mapping[str, int], seeds: int, metric: Metric = ACCURACY) -> Chosen:
    """The student to deploy, by val alone: the one with the fewest MACs within one standard error of the best.

    Args:
        macs: multiply-accumulates of each student, by name.
    """
    accuracy = {
        name: float(np.mean([_on_val(model_folder(run, name, seed, "distilled"), metric) for seed in range(seeds)]))
        for name in macs
    }
    photos = len(np.load(run.soft_labels / "val_logits.npy", mmap_mode="r", allow_pickle=False))
    best = max(accuracy.values())
    error = float(np.sqrt(max(best * (1 - best), 1 / photos) / photos))
    if metric.kind != "accuracy" and len(macs) > 1:
        error = _error_on_val(run, max(accuracy, key=lambda name: accuracy[name]), seeds, metric)
    chosen = min((name for name in macs if accuracy[name] >= best - error), key=lambda name: macs[name])
    if len(macs) == 1:
        reason = "the only student of the run"
    else:
        reason = (
            f"{metric.title} {accuracy[chosen]:.1%} on {counted(photos, 'val photo')}, the fewest MACs of those within "
            f"one standard error ({100 * error:.1f} points) of the best ({best:.1%})"
        )
    return Chosen(chosen, reason, accuracy)


def _on_val(folder: Path, metric: Metric) -> float:
    """The metric of a finished training on val."""
    training = read_training(folder)
    return training.val_accuracy if training.val_metric is None or metric.kind == "accuracy" else training.val_metric


def _error_on_val(run: Run, name: str, seeds: int, metric: Metric) -> float:
    """The standard error of a student's metric on val, over photos, of the mean of its seeds."""
    logits = []
    for seed in range(seeds):
        with open_arrays(model_folder(run, name, seed, "distilled") / "val_predictions.npz") as stored:
            logits.append(stored["logits"])
            labels = stored["labels"]
    if metric.kind == "mAP":
        drawn = multilabel.resampled_average_precisions(np.stack(logits), labels, resamples=VAL_RESAMPLES)
        return float(np.nanstd(np.nanmean(drawn, axis=1)))
    values = [metric.value_of_each(z, labels) for z in logits]
    mean = np.mean(values, axis=0)
    return float(mean.std() / np.sqrt(len(mean)))


def verdict(name: str, difference: Interval, reduction: float | None, visible: float, tested: str, seeds: int) -> str:
    """The result in words. A gain is claimed only where the whole interval lies above 0.

    Args:
        tested: the photos that it was measured on.
    """
    fewer = f", {reduction:.0%} fewer errors" if reduction else ""
    text = against_twin(name, difference, tested, seeds, better=f"{difference.points}{fewer} than its twin")
    if difference.low > 0 or difference.high < 0:
        return text
    return f"{text} A difference below about {100 * visible:.1f} points cannot be seen with this number of photos."


def against_twin(
    name: str, difference: Interval, tested: str, seeds: int, *, better: str = "", measure: str = ""
) -> str:
    """Whether distillation made a student better or worse, or no gain was measured, in one sentence.

    Args:
        better: how much better; the difference alone where it is empty.
        measure: of what the difference is, with a space behind it; empty for accuracy.
    """
    found, basis = f"{measure}{difference.points} against its twin", f"{tested}, {counted(seeds, 'seed')}"
    # The interval of one seed knows the luck of the photos, not that of the training.
    once = " One training of each may differ by luck: --seeds 3 tells." if seeds == 1 else ""
    if difference.low > 0:
        return f"Distillation made {name} better: {better or found}, on {basis}.{once}"
    if difference.high < 0:
        return f"Distillation made {name} worse: {found}, on {basis}.{once or ' Use the twin.'}"
    return f"No gain measured for {name}: {found}, on {basis}."


def beside_teacher(behind: Interval, lighter: float) -> str:
    """What else is worth saying: that the student is as accurate as its teacher, where no difference was measured.

    Args:
        behind: distilled minus teacher, on the same photos.
        lighter: the teacher's MACs over the student's.
    """
    if behind.high < 0 or lighter < 1:
        return ""
    equal = "No difference to its teacher measured" if behind.low <= 0 else "It is more accurate than its teacher"
    return f" {equal}: {behind.points}, at 1/{lighter:.0f} of the teacher's multiplications."


def by_metric(metric: str, differences: ClassDifferences) -> str:
    """What else is worth saying where something else than accuracy counts."""
    if metric == "accuracy":
        return ""
    name, found = "Balanced accuracy", differences.balanced_accuracy
    if metric == "macro-f1":
        name, found = "Macro F1", differences.macro_f1
    return f" {name}, distilled minus alone: {found.points}."


def _calibration(logits: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """NLL and ECE before and after dividing the logits by the temperature that was fitted on val."""
    return {
        "nll": metrics.nll(logits, labels),
        "ece": metrics.ece(logits, labels),
        "nll_scaled": metrics.nll(logits / temperature, labels),
        "ece_scaled": metrics.ece(logits / temperature, labels),
        "temperature": temperature,
    }


def _per_class(name: str, scores: Scores) -> tuple[ClassAccuracy, ...]:
    correct = {who: scores.correct(key) for who, key in (("teacher", "teacher"), *((a, f"{name}/{a}") for a in ARMS))}
    found = []
    for label, class_name in enumerate(scores.classes):
        mine = scores.labels == label
        means = {who: float(np.mean(values[..., mine])) for who, values in correct.items()}
        found.append(ClassAccuracy(name=class_name, photos=int(np.sum(mine)), **means))
    return tuple(found)


def costs_of(model: Classifier, folder: Path) -> dict[str, Any]:
    return {
        "parameters": parameters_of(model),
        "macs": macs_of(model),
        "bytes": weights_path(folder).stat().st_size,
        "milliseconds": milliseconds_of(model),
    }
