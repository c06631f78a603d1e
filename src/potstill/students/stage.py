"""Stage 4: every student distilled, and its twin alone, once per seed.

A student never meets the teacher, only the stored soft labels. The twin has the same starting weights, optimizer and
averaging, and the same photos and views in the same order as far as they have labels, the only targets that it learns
from. Its label smoothing and learning rate are chosen on val, by short pilots, and so is the student's learning rate.
How long it is trained is chosen on val too: what is enough steps for a student can be too many for labels alone.

Each training is one job in a folder of its own (`potstill.students.runner`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from potstill.compute.compile import decide_compile
from potstill.compute.measured import Measured
from potstill.compute.selection import fastest_precision, fastest_threads
from potstill.compute.timing import Workload
from potstill.context import Context
from potstill.data.arrays import RowWriter, open_arrays
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer
from potstill.metrics.choice import ACCURACY, Metric
from potstill.models.classifier import build, describe
from potstill.run.files import check_space, is_sealed, read_json, remove_sealed
from potstill.run.layout import ARMS, model_folder, views_path
from potstill.students.operating_point import place_operating_points
from potstill.students.plan import SoftLabelFacts, StudentPlan, StudentsPlan
from potstill.students.recipe import Job, Recipe
from potstill.students.runner import JobRunner
from potstill.wording import counted


def train_students(plan: StudentsPlan, context: Context) -> None:
    """Train all students, twins and seeds that are not there yet. Writes `4_students/`.

    Without twins the stage stays unfinished: another command adds them.
    """
    run = context.run
    soft = SoftLabels.open(run)
    for student in plan.students:
        _Training(student, plan, soft, context).run()
    for cache in run.students.glob("views-*.npy"):
        remove_sealed(cache)
    new = [student.name for student in plan.students]
    if not plan.twins:
        place_operating_points(run, new, plan)
        return
    names = _finished(plan, context)
    place_operating_points(run, [*names, *new], plan)
    run.stage("4_students").record({"soft_labels": run.stage("3_soft_labels").digest(), "students": names})


def _finished(plan: StudentsPlan, context: Context) -> list[str]:
    """The students to compare: those of earlier commands in this run first, then the new ones."""
    run = context.run
    stage, soft_labels = run.stage("4_students"), run.stage("3_soft_labels").digest()
    new = [student.name for student in plan.students]
    earlier = stage.facts()["inputs"]["students"] if stage.is_done else []
    kept = []
    for name in earlier:
        done = [model_folder(run, name, seed, arm) / "done.json" for seed in range(plan.seeds) for arm in ARMS]
        digests = {read_json(path)["inputs"]["soft_labels"] for path in done if path.is_file()}
        if all(path.is_file() for path in done) and digests == {soft_labels}:
            kept.append(name)
        elif name not in new:
            context.reporter.info(
                f"{name} is left out of the comparison: not all of {counted(plan.seeds, 'seed')} on these soft labels"
            )
    return [*kept, *(name for name in new if name not in kept)]


@dataclass(frozen=True, slots=True)
class _Training:
    """All trainings of one student: pilots, then student and twin with every seed."""

    student: StudentPlan
    plan: StudentsPlan
    soft: SoftLabels
    context: Context

    @property
    def folder(self) -> Path:
        return self.context.run.students / self.student.name

    def run(self) -> None:
        """Measure, choose recipes by pilots on val, and train."""
        context, name = self.context, self.student.name
        context.reporter.begin("measure student", f"{name}: timing it to choose how to train it here")
        measured = self._measured()
        candidates = self._candidates(measured)
        pilots = {arm: self._pilots(arm, candidates[arm]) for arm in ARMS}
        runner = JobRunner(context, prepare=self._render)
        tried = [job for arm in ARMS for job in pilots[arm]]
        title = f"{name}: trying {counted(len(tried), 'setting')} on val, for student and twin"
        runner.run(tried, title, measured.threads, part="pilots")
        distilled, alone = self.choose(candidates, pilots)
        lengths = self._lengths(self.student.lengths(alone))
        students = self._seeds("distilled", distilled) if distilled != alone else []
        times = counted(self.plan.seeds, "seed")
        if students and not self.plan.twins:
            runner.run(students, f"{name}: training the student, {times}", measured.threads, part="trainings")
            return
        if lengths:  # beside the students, so that no core waits
            tried_lengths = f"trying {counted(len(lengths), 'length')} for the twin"
            title = f"training the student, {times}, and {tried_lengths}" if students else tried_lengths
            runner.run([*students, *lengths], f"{name}: {title}", measured.threads, part="trainings")
        twin = self.choose_length(lengths) if lengths else self.student.lengths(alone)[0]
        jobs = students or self._seeds("distilled", twin)
        title = "training the student"
        if self.plan.twins:
            jobs = [*jobs, *self._seeds("alone", twin)]
            title = "training the twin" if lengths and students else "training student and twin"
        runner.run([*lengths, *jobs], f"{name}: {title}, {times}", measured.threads, part="twin")

    def _render(self) -> None:
        render_views(self.student.input_size, self.plan.cache_gb, self.soft, self.context)

    def _measured(self) -> Measured:
        """How the trainings are computed here, by timing once."""
        measured = Measured.read(self.folder) or self._measure()
        self.context.reporter.info(
            f"Student {self.student.name}: {self.student.input_size} px, {measured.dtype}, "
            f"about {measured.speed:.0f} photos/s"
        )
        return measured

    def _measure(self) -> Measured:
        student, machine = self.student, self.context.machine
        info = describe(student.model, self.context.run.classes(), size=student.size)
        # Fails early where weights are missing.
        model = build(info, weights="none" if student.start else student.weights, role="student")
        precision, speeds = fastest_precision(model, info.size, machine, training=True)
        work = Workload(
            size=info.size,
            batch=student.shared.batch_size,
            photos=student.shared.epochs * len(self.soft.photos),
            trainings=2 * self.plan.seeds,
        )
        compiled, trial = decide_compile(model, work, precision, machine, speeds[precision.name])
        threads, by_threads = fastest_threads(model, work, precision, machine)
        measured = Measured(
            dtype=precision.name,
            photos_per_second=speeds,
            threads=threads,
            threads_photos_per_second=by_threads,
            compile=compiled,
            compile_trial=trial,
        )
        measured.write(self.folder)
        return measured

    def _candidates(self, measured: Measured) -> dict[str, list[Recipe]]:
        """The recipes of each arm, the first by rule."""
        facts = self._facts()
        digest = self.context.run.stage("3_soft_labels").digest()
        planned = {"distilled": self.student.distilled(facts), "alone": self.student.alone(facts)}
        return {
            arm: [replace(r, dtype=measured.dtype, compile=measured.compile, soft_labels=digest) for r in recipes]
            for arm, recipes in planned.items()
        }

    def _facts(self) -> SoftLabelFacts:
        meta = self.soft.meta
        facts = SoftLabelFacts(
            confidence=meta["train_top_probability"],
            label_noise=meta["label_noise"],
            fine_tuned=min(meta["networks"]) > 1,
            has_features=self.soft.features.shape[-1] > 0,
            has_unlabeled=not PixelStore(self.context.run.images).is_labeled(self.soft.photos).all(),
        )
        if facts.noisy and "task_weight" in self.student.auto:
            self.context.reporter.info(
                f"About {facts.label_noise:.0%} of the labels seem to be wrong, so the student learns from the teacher "
                "only (student.task_weight)"
            )
        return facts

    def _job(self, folder: Path, arm: str, seed: int, recipe: Recipe) -> Job:
        student = self.student
        start = str(Path(student.start) / f"seed-{seed}" / arm) if student.start else ""
        return Job(folder, student.model, student.size, student.weights, seed, recipe, start=start)

    def _pilots(self, arm: str, candidates: Sequence[Recipe]) -> list[Job]:
        share = self.student.pilot_share
        if share == 0 or len(candidates) == 1:
            return []
        return [
            self._job(
                self.folder / "pilots" / f"{arm}-{number}",
                arm,
                0,
                replace(recipe, epochs=max(1, round(share * recipe.epochs))),
            )
            for number, recipe in enumerate(candidates)
        ]

    def _lengths(self, recipes: Sequence[Recipe]) -> list[Job]:
        """Trainings of the twin with seed 0 at every length; none where there is nothing to choose from."""
        if len(recipes) == 1:
            return []
        folder = self.folder / "pilots"
        return [self._job(folder / f"alone-{recipe.epochs}-epochs", "alone", 0, recipe) for recipe in recipes]

    def _seeds(self, arm: str, recipe: Recipe) -> list[Job]:
        """The trainings of an arm with every seed."""
        run, name = self.context.run, self.student.name
        return [self._job(model_folder(run, name, seed, arm), arm, seed, recipe) for seed in range(self.plan.seeds)]

    def choose_length(self, lengths: Sequence[Job]) -> Recipe:
        """The twin's recipe at the length with the lowest loss on val, the longest of equals."""
        losses = [float(self._val_losses(job.folder).mean()) for job in lengths]
        shares = [f"{job.recipe.epochs / self.student.shared.epochs:.0%}" for job in lengths]
        best = int(np.argmin(losses))
        others = ", ".join(f"{shares[i]}: {losses[i]:.3f}" for i in range(len(losses)) if i != best)
        self.context.reporter.info(
            f"{self.student.name} alone, chosen on val: {shares[best]} of the student's steps "
            f"({self._metric.loss_title} {losses[best]:.3f}; {others})"
        )
        return lengths[best].recipe

    def choose(self, candidates: dict[str, list[Recipe]], pilots: dict[str, list[Job]]) -> tuple[Recipe, Recipe]:
        """The recipes of student and twin: of each arm's pilots the one with the lowest loss on val
        (`potstill.metrics.choice`), which ranks with less noise than accuracy.

        Where loss weights are "auto" and the twin's best pilot is better than the student's by more than one standard
        error of their paired difference, both learn without the teacher. A smaller lead is noise: short pilots favor
        the twin, and what distillation gives comes late (Beyer et al. 2022, arXiv:2106.05237, section 4).
        """
        name, report = self.student.name, self.context.reporter.info
        chosen, losses = {}, {}
        for arm in ARMS:
            found = [self._val_losses(job.folder) for job in pilots[arm]] or [np.zeros(1)]
            best = int(np.argmin([values.mean() for values in found]))
            chosen[arm], losses[arm] = candidates[arm][best], found[best]
            if pilots[arm]:
                loss = f"{self._metric.loss_title} {losses[arm].mean():.3f}"
                report(f"{name} {arm}, chosen on val: {_summary(chosen[arm])} ({loss})")
        if self.student.may_drop_teacher and all(pilots.values()):
            lead = losses["distilled"] - losses["alone"]
            if lead.mean() > lead.std() / np.sqrt(len(lead)):
                report(f"{name}: distillation hurts on val; training the student without the teacher, like its twin")
                chosen["distilled"] = chosen["alone"]
        return chosen["distilled"], chosen["alone"]

    @property
    def _metric(self) -> Metric:
        """What is chosen by on val."""
        text = self.student.shared.metric
        return ACCURACY if text == "accuracy" else Metric.of(text, self.context.run.classes())

    def _val_losses(self, folder: Path) -> np.ndarray:
        """(n,) the loss on each val photo of a finished training, after temperature scaling."""
        with open_arrays(folder / "val_predictions.npz") as stored:
            return self._metric.loss_of_each(stored["logits"], stored["labels"])


def _summary(recipe: Recipe) -> str:
    balance = "" if recipe.class_balance == "none" else f", {recipe.class_balance}"
    if recipe.arm == "alone":
        return f"label smoothing {recipe.label_smoothing:g}, learning rate {recipe.lr:g}, no teacher{balance}"
    return (
        f"{recipe.method}, T {recipe.temperature:g}, weights {recipe.distill_weight:g} distillation, "
        f"{recipe.feature_weight:g} features, {recipe.task_weight:g} labels, learning rate {recipe.lr:g}{balance}"
    )


def render_views(size: int, cache_gb: float, soft: SoftLabels, context: Context) -> None:
    """Render all views at this size once, `views-SIZEpx.npy` (N, V, S, S, 3) uint8, when the disk budget allows it."""
    run = context.run
    path = views_path(run, size)
    photos, count = soft.views.shape
    needed = photos * count * size * size * 3
    if needed > cache_gb * 1e9:
        remove_sealed(path)
        return
    if is_sealed(path):
        return
    run.students.mkdir(exist_ok=True)
    check_space(run.students, needed, "Rendered views")
    renderer = Renderer(PixelStore(run.images), soft.photos, soft.views, size, threads=context.machine.cores)
    writer = RowWriter(path, (photos, count, size, size, 3), np.uint8)
    with context.reporter.bar(f"Rendering views at {size} px", photos, unit="photo", part="views") as update:
        for photo in range(writer.done, photos):
            writer.write(renderer(np.full(count, photo), np.arange(count))[None])
            update(photo + 1)
    writer.close()
