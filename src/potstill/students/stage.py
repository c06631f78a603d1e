"""Stage 4: every student distilled, and its twin alone, once per seed.

A student never meets the teacher, only the stored soft labels. The twin has the same starting weights, optimizer and
averaging, and the same photos and views in the same order as far as they have labels, the only targets that it learns
from. Its label smoothing and learning rate are chosen on val, by short pilots, and so is the student's learning rate.
How long it is trained is chosen on val too: what is enough steps for a student can be too many for labels alone. That
needs trainings of the full length, and so do the student's loss weights, and whether the teacher helps at all.

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
        """Measure, choose recipes on val, first by pilots, then by trainings in full, and train with every seed."""
        context, name, seeds = self.context, self.student.name, counted(self.plan.seeds, "seed")
        context.reporter.begin("measure student", f"{name}: timing it to choose how to train it here")
        measured, facts = self._measured(), self._facts()
        candidates = self._candidates(measured, facts)
        pilots = {arm: self._pilots(arm, candidates[arm]) for arm in ARMS}
        runner = JobRunner(context, prepare=self._render)
        tried = [job for arm in ARMS for job in pilots[arm]]
        title = f"{name}: trying {counted(len(tried), 'setting')} on val, for student and twin"
        runner.run(tried, title, measured.threads, part="pilots")
        distilled, alone = (self.choose(arm, candidates[arm], pilots[arm]) for arm in ARMS)
        doubt = self.doubts_teacher(pilots)
        finalists = {"distilled": self.student.finalists(distilled, alone, facts), "alone": self.student.lengths(alone)}
        finals = self._finals(finalists, doubt=doubt)
        trials = [job for arm in ARMS for job in finals[arm]]
        if trials:
            # Beside them what depends on none of them, so that no core waits.
            settled = [] if finals["distilled"] else self._seeds("distilled", distilled)
            title = f"{name}: training the student, {seeds}, and " if settled else f"{name}: "
            title += f"comparing {counted(len(trials), 'longer training')} on val"
            runner.run([*settled, *trials], title, measured.threads, part="finals")
        student, twin = self.choose_finally(finalists, finals, doubt=doubt)
        jobs, what = self._seeds("distilled", student), "student"
        if self.plan.twins:
            jobs, what = [*jobs, *self._seeds("alone", twin)], "student and twin"
        runner.run([*trials, *jobs], f"{name}: training {what}, {seeds}", measured.threads, part="trainings")

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

    def _candidates(self, measured: Measured, facts: SoftLabelFacts) -> dict[str, list[Recipe]]:
        """The recipes of each arm, the first by rule."""
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
        epochs, folder = self.student.pilot_epochs, self.folder / "pilots"
        if epochs == 0 or len(candidates) == 1:
            return []
        return [
            self._job(folder / f"{arm}-{number}", arm, 0, replace(recipe, epochs=epochs))
            for number, recipe in enumerate(candidates)
        ]

    def _finals(self, finalists: dict[str, list[Recipe]], *, doubt: bool) -> dict[str, list[Job]]:
        """Trainings in full with seed 0, for val to choose from: of the student's finalists, and of the twin at every
        length. An arm with a single finalist needs none, unless the teacher is in doubt, and nor does the twin where it
        is trained later."""
        folder = self.folder / "pilots"
        students = [
            self._job(folder / f"distilled-final-{number}", "distilled", 0, recipe)
            for number, recipe in enumerate(finalists["distilled"])
        ]
        lengths = [
            self._job(folder / f"alone-{recipe.epochs}-epochs", "alone", 0, recipe) for recipe in finalists["alone"]
        ]
        return {
            "distilled": students if doubt or len(students) > 1 else [],
            "alone": lengths if doubt or (len(lengths) > 1 and self.plan.twins) else [],
        }

    def _seeds(self, arm: str, recipe: Recipe) -> list[Job]:
        """The trainings of an arm with every seed."""
        run, name = self.context.run, self.student.name
        return [self._job(model_folder(run, name, seed, arm), arm, seed, recipe) for seed in range(self.plan.seeds)]

    def choose(self, arm: str, candidates: Sequence[Recipe], pilots: Sequence[Job]) -> Recipe:
        """Of an arm's pilots the recipe with the lowest loss on val (`potstill.metrics.choice`), which ranks with less
        noise than accuracy."""
        if not pilots:
            return candidates[0]
        losses = self._losses(pilots)
        best = int(np.argmin(losses))
        self._report(arm, f"{_summary(candidates[best])} ({self._metric.loss_title} {losses[best]:.3f})")
        return candidates[best]

    def doubts_teacher(self, pilots: dict[str, list[Job]]) -> bool:
        """Whether the twin has the better pilot where loss weights are "auto". Nothing is decided by that: short
        trainings favor the twin, and what distillation gives comes late (Beyer et al. 2022, arXiv:2106.05237,
        section 4)."""
        return self.student.may_drop_teacher and all(pilots.values()) and self._twin_leads(pilots)

    def choose_finally(
        self, finalists: dict[str, list[Recipe]], finals: dict[str, list[Job]], *, doubt: bool
    ) -> tuple[Recipe, Recipe]:
        """The recipes of student and twin: of each arm's trainings in full the one with the lowest loss on val. Both
        learn without the teacher where it was in doubt, and these trainings agree."""
        chosen = {arm: recipes[0] for arm, recipes in finalists.items()}
        for arm, jobs in finals.items():
            if len(jobs) > 1:
                losses = self._losses(jobs)
                best = int(np.argmin(losses))
                chosen[arm] = jobs[best].recipe
                names = [self._final_name(job) for job in jobs]
                others = "; ".join(f"{names[i]}: {losses[i]:.3f}" for i in range(len(jobs)) if i != best)
                self._report(arm, f"{names[best]} ({self._metric.loss_title} {losses[best]:.3f}; {others})")
        if doubt and self._twin_leads(finals):
            taught, alone = (min(self._losses(finals[arm])) for arm in ARMS)
            means = f"{self._metric.loss_title} {taught:.3f} with it, {alone:.3f} without"
            self._report("distilled", f"no teacher, like its twin, since distillation hurts ({means})")
            chosen["distilled"] = chosen["alone"]
        return chosen["distilled"], chosen["alone"]

    def _final_name(self, job: Job) -> str:
        """What distinguishes a training in full from the others of its arm."""
        recipe = job.recipe
        if recipe.arm == "alone":
            return f"{recipe.epochs / self.student.shared.epochs:.0%} of the student's steps"
        return _summary(recipe)

    def _twin_leads(self, tried: dict[str, list[Job]]) -> bool:
        """Whether the twin's best training is better on val than the student's by more than one standard error of their
        paired difference; a smaller lead is noise."""
        best = {arm: jobs[np.argmin(self._losses(jobs))] for arm, jobs in tried.items()}
        lead = self._val_losses(best["distilled"].folder) - self._val_losses(best["alone"].folder)
        return bool(lead.mean() > lead.std() / np.sqrt(len(lead)))

    def _losses(self, jobs: Sequence[Job]) -> list[float]:
        """The mean loss on val of finished trainings."""
        return [float(self._val_losses(job.folder).mean()) for job in jobs]

    def _report(self, arm: str, chosen: str) -> None:
        self.context.reporter.info(f"{self.student.name} {arm}, chosen on val: {chosen}")

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
