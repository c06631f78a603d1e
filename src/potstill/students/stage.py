"""Stage 4: every student distilled, and its twin alone, once per seed.

A student never meets the teacher, only the stored soft labels. The twin has the same starting weights, photos, views,
order, steps, optimizer and averaging, and learns from the given labels only; its label smoothing and learning rate are
chosen on val, by short pilots, and so is the student's learning rate.

Each training is one job in a folder of its own (`job_runner.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from potstill import metrics
from potstill.compute.compile import decide_compile
from potstill.compute.device import Machine
from potstill.compute.selection import fastest_precision, fastest_threads
from potstill.config.schema import Config
from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer
from potstill.errors import ConfigError
from potstill.models.classifier import ModelInfo, build, describe
from potstill.monitoring.progress import Reporter
from potstill.run.files import check_space, read_json, write_json
from potstill.run.folder import Run
from potstill.run.layout import ARMS, views_path
from potstill.students.job import Job, Recipe
from potstill.students.runner import JobRunner
from potstill.training.losses import check_method

VIEWS_SEEN = 60_000
"""By a student with "auto" epochs; twice as many where it starts from random weights."""

MIN_BATCH = 8
"""Of few photos a step takes an eighth, but not less than this: short epochs would be too few steps."""


@dataclass(frozen=True, slots=True)
class StudentSpec:
    """One student as the user asked for it."""

    name: str
    """Name of its folder."""
    model: str
    size: int | None
    weights: str

    @property
    def from_scratch(self) -> bool:
        return self.weights == "none"


def parse_students(config: Config) -> tuple[StudentSpec, ...]:
    """`student.models` as specs. Raises ConfigError for what is not `NAME`, `NAME@SIZE`, `NAME=FILE`."""
    specs = []
    for text in config.student.models:
        head, _, weights = text.partition("=")
        model, _, size_text = head.partition("@")
        if not model or (size_text and not size_text.isdecimal()):
            raise ConfigError(f"student.models: {text!r} is not NAME, NAME@SIZE, NAME=FILE or NAME@SIZE=FILE.")
        size = int(size_text) if size_text else None if config.student.size == "auto" else config.student.size
        # The same words give the same folder in every command of a run, whatever other students it names.
        name = model.replace("/", "-") + (f"-{size}px" if size else "")
        specs.append(StudentSpec(name, model, size, weights or config.student.weights))
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise ConfigError("student.models names the same student at the same size twice.")
    return tuple(specs)


def train_students(config: Config, store: PixelStore, run: Run, machine: Machine, reporter: Reporter) -> None:
    """Train all students, twins and seeds that are not there yet. Writes `4_students/`."""
    soft = SoftLabels.open(run)
    classes = run.classes()
    check_method(config.student.method, len(classes))
    runner = JobRunner(run, machine, reporter)
    for spec in parse_students(config):
        info = describe(spec.model, classes, size=spec.size)
        shared = _shared_recipe(config, spec, info, store, soft, machine, run, reporter)
        candidates = {
            "distilled": _student_candidates(config, shared, soft, len(classes)),
            "alone": _twin_candidates(config, shared),
        }
        render_views(config.machine.cache_gb, info.size, store, soft, run, machine, reporter)
        pilots = {arm: _pilots(spec, arm, candidates[arm], config.student.pilot_share, run) for arm in ARMS}
        threads = read_json(run.students / spec.name / "precision.json").get("threads", 1)
        runner.run([job for arm in ARMS for job in pilots[arm]], f"{spec.name}: pilots", threads)
        distilled, alone = _choose(config, spec, candidates, pilots, reporter)
        jobs = [
            Job(run.students / spec.name / f"seed-{seed}" / arm, spec.model, spec.size, spec.weights, seed, recipe)
            for seed in range(config.seeds)
            for arm, recipe in (("distilled", distilled), ("alone", alone))
        ]
        times = f"{config.seeds} seed{'s' if config.seeds > 1 else ''}"
        runner.run(jobs, f"{spec.name}: distilled and alone, {times}", threads)
    for cache in run.students.glob("views-*.npy"):
        cache.unlink()
    names = _finished(config, run, reporter)
    run.stage("4_students").record({"soft_labels": run.stage("3_soft_labels").digest(), "students": names})


def _finished(config: Config, run: Run, reporter: Reporter) -> list[str]:
    """The students to compare: those of earlier commands in this run first, then the new ones."""
    stage = run.stage("4_students")
    new = [spec.name for spec in parse_students(config)]
    earlier = stage.facts()["inputs"]["students"] if stage.is_done else []
    kept = []
    for name in earlier:
        done = [
            run.students / name / f"seed-{seed}" / arm / "done.json" for seed in range(config.seeds) for arm in ARMS
        ]
        digests = {read_json(path)["inputs"]["soft_labels"] for path in done if path.is_file()}
        if all(path.is_file() for path in done) and digests == {run.stage("3_soft_labels").digest()}:
            kept.append(name)
        elif name not in new:
            reporter.info(f"{name} is left out of the comparison: not all of {config.seeds} seeds on these soft labels")
    return [*kept, *(name for name in new if name not in kept)]


def _shared_recipe(
    config: Config,
    spec: StudentSpec,
    info: ModelInfo,
    store: PixelStore,
    soft: SoftLabels,
    machine: Machine,
    run: Run,
    reporter: Reporter,
) -> Recipe:
    """What student and twin have in common: length, learning rate, averaging, arithmetic."""
    student = config.student
    photos = len(soft.photos)
    batch, epochs = _batch_size(config, spec, photos), epochs_for(config, spec, photos)
    decided = run.students / spec.name / "precision.json"
    if not decided.is_file():
        model = build(info, weights=spec.weights)  # also fails early where weights are missing
        precision, speeds = fastest_precision(model, info.size, machine, training=True)
        compiling = decide_compile(
            model,
            info.size,
            precision,
            machine,
            batch=batch,
            photos=epochs * photos,
            speed=speeds[precision.name],
        )
        threads, by_threads = fastest_threads(
            model, info.size, precision, machine, trainings=2 * config.seeds, batch=batch
        )
        facts = {"dtype": precision.name, "photos_per_second": speeds, **compiling, "threads": threads}
        write_json(decided, facts | ({"photos_per_second_by_threads": by_threads} if by_threads else {}))
    facts = read_json(decided)
    speed = facts["photos_per_second"][facts["dtype"]]
    reporter.info(f"Student {spec.name}: {info.size} px, {facts['dtype']}, about {speed:.0f} photos/s")
    lr = student.lr if student.lr != "auto" else 1e-2 if spec.from_scratch else 3e-3
    return Recipe(
        epochs=epochs,
        batch_size=batch,
        lr=lr,
        weight_decay=student.weight_decay,
        ema=student.ema,
        crop=student.crop,
        dtype=facts["dtype"],
        compile=facts.get("compile", False),
        soft_labels=run.stage("3_soft_labels").digest(),
    )


def _batch_size(config: Config, spec: StudentSpec, photos: int) -> int:
    """As set, or 64, and 16 from scratch: there a thousand steps are too few, and what the teacher gives comes late.

    "dist" correlates over the batch, and so keeps a large one.
    """
    size = config.student.batch_size
    if size == "auto":
        size = 16 if spec.from_scratch and config.student.method != "dist" else 64
    return min(size, max(MIN_BATCH, photos // 8))


def epochs_for(config: Config, spec: StudentSpec, photos: int) -> int:
    """The number of epochs: as set, or such that about 60,000 views are seen, from scratch 120,000, between 10 and 200.

    `photos` counts the unlabeled ones too.
    """
    return _passes(config, photos, 2 * VIEWS_SEEN if spec.from_scratch else VIEWS_SEEN)


def views_for(config: Config, photos: int) -> int:
    """The number of stored views per photo: as set, or one per epoch of a pretrained student, up to 24.

    It is not for the student to say: all share one store, those of later commands too.
    """
    return config.views.count if config.views.count != "auto" else min(_passes(config, photos, VIEWS_SEEN), 24)


def _passes(config: Config, photos: int, views: int) -> int:
    if config.student.epochs != "auto":
        return config.student.epochs
    return int(np.clip(round(views / max(photos, 1)), 10, 200))


def _distillation(config: Config, soft: SoftLabels, classes: int) -> dict[str, Any]:
    """The distillation part of the recipe, "auto" decided by the number of classes and the teacher's sureness."""
    student = config.student
    top = soft.meta["train_top_probability"]

    def decide(value: Any, rule: float) -> float:
        return rule if value == "auto" else float(value)

    return {
        "method": student.method,
        "temperature": decide(student.temperature, 4.0 if top > 0.99 else 2.0 if top > 0.97 else 1.0),
        "distill_weight": decide(student.distill_weight, 1.0),
        "feature_weight": decide(student.feature_weight, 1.0 if classes <= 10 else 0.5 if classes <= 50 else 0.25),
        "task_weight": decide(student.task_weight, 0.3),
    }


def _student_candidates(config: Config, shared: Recipe, soft: SoftLabels, classes: int) -> list[Recipe]:
    """The rule's settings at each learning rate; with `search = "weights"` also a softer teacher and no features."""
    student = config.student
    rule = replace(shared, **_distillation(config, soft, classes))
    candidates = [replace(rule, lr=rule.lr * factor) for factor in student.lr_factors]
    if student.search == "weights" and student.temperature == "auto":
        candidates.append(replace(rule, temperature=2 * rule.temperature))
    if student.search == "weights" and student.feature_weight == "auto" and rule.distill_weight:
        candidates.append(replace(rule, feature_weight=0.0))
    return candidates


def _twin_candidates(config: Config, shared: Recipe) -> list[Recipe]:
    return [
        replace(shared, task_weight=1.0, label_smoothing=smoothing, lr=shared.lr * factor)
        for factor in config.student.lr_factors
        for smoothing in config.twin.label_smoothing
    ]


def _pilots(spec: StudentSpec, arm: str, candidates: Sequence[Recipe], share: float, run: Run) -> list[Job]:
    if share == 0 or len(candidates) == 1:
        return []
    return [
        Job(
            run.students / spec.name / "pilots" / f"{arm}-{number}",
            spec.model,
            spec.size,
            spec.weights,
            0,
            replace(recipe, epochs=max(1, round(share * recipe.epochs))),
        )
        for number, recipe in enumerate(candidates)
    ]


def _choose(
    config: Config,
    spec: StudentSpec,
    candidates: dict[str, list[Recipe]],
    pilots: dict[str, list[Job]],
    reporter: Reporter,
) -> tuple[Recipe, Recipe]:
    """The recipes of student and twin: of each arm's pilots the one with the lowest val NLL after temperature scaling,
    which ranks with less noise than accuracy.

    Where loss weights are "auto" and the twin's best pilot is better than the student's by more than one standard
    error of their paired difference, both learn without the teacher. A smaller lead is noise: short pilots favor the
    twin, and what distillation gives comes late (Beyer et al. 2022, arXiv:2106.05237, section 4).
    """
    chosen, losses = {}, {}
    for arm in ARMS:
        found = [_val_losses(job.folder) for job in pilots[arm]] or [np.zeros(1)]
        best = int(np.argmin([values.mean() for values in found]))
        chosen[arm], losses[arm] = candidates[arm][best], found[best]
        if pilots[arm]:
            reporter.info(f"{spec.name} {arm}, chosen on val: {_summary(chosen[arm])} (NLL {losses[arm].mean():.3f})")
    if "auto" in (config.student.distill_weight, config.student.feature_weight) and all(pilots.values()):
        lead = losses["distilled"] - losses["alone"]
        if lead.mean() > lead.std() / np.sqrt(len(lead)):
            reporter.info(
                f"{spec.name}: on val the teacher does harm, so the student learns without it, as its twin does"
            )
            chosen["distilled"] = chosen["alone"]
    return chosen["distilled"], chosen["alone"]


def _val_losses(folder: Path) -> np.ndarray:
    """(n,) −log-probability of each val photo's label, after temperature scaling."""
    with np.load(folder / "val_predictions.npz", allow_pickle=False) as stored:
        logits, labels = stored["logits"], stored["labels"]
    return metrics.nll_of_each(logits / metrics.fit_temperature(logits, labels), labels)


def _summary(recipe: Recipe) -> str:
    if recipe.arm == "alone":
        return f"label smoothing {recipe.label_smoothing:g}, learning rate {recipe.lr:g}, no teacher"
    return (
        f"{recipe.method}, T {recipe.temperature:g}, weights {recipe.distill_weight:g} distillation, "
        f"{recipe.feature_weight:g} features, {recipe.task_weight:g} labels, learning rate {recipe.lr:g}"
    )


def render_views(
    cache_gb: float, size: int, store: PixelStore, soft: SoftLabels, run: Run, machine: Machine, reporter: Reporter
) -> None:
    """Render all views at this size once, `views-SIZEpx.npy` (N, V, S, S, 3) uint8, when the disk budget allows it."""
    path = views_path(run, size)
    if path.is_file():
        return
    photos, count = soft.views.shape
    needed = photos * count * size * size * 3
    if needed > cache_gb * 1e9:
        return
    run.students.mkdir(exist_ok=True)
    check_space(run.students, needed, "Rendered views")
    renderer = Renderer(store, soft.photos, soft.views, size, threads=machine.cores)
    writer = RowWriter(path, (photos, count, size, size, 3), np.uint8)
    with reporter.bar(f"Rendering views at {size} px", photos, unit="photos") as update:
        for photo in range(writer.done, photos):
            writer.write(renderer(np.full(count, photo), np.arange(count))[None])
            update(photo + 1)
    writer.close()
