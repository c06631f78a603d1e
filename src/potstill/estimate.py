"""What a run will take, from its plan and a few seconds of timing: reported before a long run starts."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from potstill.comparison.agreement import MAX_TRAIN_VIEWS
from potstill.compute.backends import MIN_SECONDS, faster_backend
from potstill.compute.fold_batchnorm import fold
from potstill.compute.machine import Machine
from potstill.compute.precision import Precision
from potstill.compute.selection import fastest_precision
from potstill.compute.timing import photos_per_second
from potstill.models.classifier import build, describe, feature_widths
from potstill.monitoring.overall import Part
from potstill.monitoring.progress import duration
from potstill.planning import Plan, expected_test_photos
from potstill.students.plan import StudentPlan
from potstill.teacher.external import OnnxTeacher
from potstill.teacher.heads import PROBE_BATCH
from potstill.teacher.probe import HEADS_FROM_ALL, MAX_STEPS

START_SECONDS = 2.0
"""Before a model trains or labels: building it, and timing."""

CONVERSION_SECONDS = 25.0
"""To convert the teacher for a faster backend, and to time it there."""

PROCESS_SECONDS = 6.0
"""Of a training in a process of its own, as where several run at once: starting it, and importing torch."""

TRAINING_SECONDS = 2.0
"""Of a training, beside its steps: measuring val, and saving."""

TRAINING_FACTOR = 1.4
"""How much longer a step takes than the forward and backward pass that are timed: views, losses, optimizer, average."""

DECODED_PER_SECOND = 150
"""Photos per second and core, for photos of a few hundred pixels; phone photos take three times as long."""

VIEWS_PER_SECOND = 1500
"""Rendered views of 100 px per second and core."""

HEAD_STEP_SECONDS = 2.5e-6
"""Of a training step of a head, per feature."""

COMPARED_SECONDS = 1.5
"""In the comparison, for each model: loading it, counting and timing what it costs."""

FORWARD_SPEEDUP = 3.0
"""How much faster a model predicts than it trains."""

BACKEND_SPEEDUP = 2.0
"""How much faster labeling is in a backend than in torch, where one is installed."""

LARGE = 0.2
LONG = 3600.0
"""A part that takes this share of the time is named, with the setting that makes it shorter."""

FINE_TUNING, TEST, ON_TRAIN = "fine-tuning", "test photos", "train views"
COMPARISON = "5_comparison"

NAMES = {
    "photos": "photos",
    "measure teacher": "teacher",
    "unlike photos": "teacher",
    "features": "teacher",
    "head": "teacher",
    "fold heads": "teacher",
    FINE_TUNING: "teacher",
    "soft labels": "soft labels",
    "measure student": "students",
    "views": "students",
    "pilots": "students",
    "finals": "students",
    "trainings": "students",
    TEST: "comparison",
    ON_TRAIN: "comparison",
}
"""What each part is counted under in the lines for people."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The parts of a run, and bytes on disk."""

    parts: tuple[Part, ...]
    disk: dict[str, float]
    hints: dict[str, str]
    """Words for parts by their name, and what makes them shorter."""
    optional: bool
    """Whether fine-tuning happens only where the probe turns out not to be good enough."""

    @property
    def fine_tuning(self) -> float:
        """Seconds more where the probe turns out not to be good enough."""
        return sum(part.seconds for part in self.parts if part.name == FINE_TUNING) if self.optional else 0.0

    @property
    def total(self) -> float:
        """Seconds, without fine-tuning that is perhaps not needed."""
        return sum(part.seconds for part in self.parts) - self.fine_tuning

    def lines(self) -> list[str]:
        """For people."""
        size, more = sum(self.disk.values()), ""
        if self.fine_tuning:
            more = f"; {duration(self.fine_tuning)} more if the teacher has to be fine-tuned"
            more += " (--teacher.train probe: never)"
        seconds: dict[str, float] = {}
        for part in self._certain():
            seconds[NAMES[part.name]] = seconds.get(NAMES[part.name], 0.0) + part.seconds
        return [
            f"About {duration(self.total)} ("
            + ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
            + f"){more}",
            *self._largest(),
            f"About {size / 1e9:.2f} GB of disk ("
            + ", ".join(f"{name} {value / 1e9:.2f}" for name, value in self.disk.items())
            + ")",
        ]

    def _certain(self) -> list[Part]:
        return [part for part in self.parts if not (self.optional and part.name == FINE_TUNING)]

    def _largest(self) -> Iterator[str]:
        """What takes most of the time, and what makes it shorter."""
        seconds: dict[str, float] = {}
        for part in self._certain():
            if hint := self.hints.get(part.name):
                seconds[hint] = seconds.get(hint, 0.0) + part.seconds
        largest = [hint for hint in seconds if seconds[hint] > LARGE * self.total]
        for number, hint in enumerate(sorted(largest, key=lambda hint: -seconds[hint])):
            yield f"{'Largest part' if number == 0 else 'Then'}: {duration(seconds[hint])} for {hint}"
        if self.total > LONG:
            yield "For a first try of every step in minutes: --quick"


def estimate(plan: Plan, machine: Machine, finished: Collection[str] = ()) -> Estimate:
    """Time each model for a second, with random weights, and multiply.

    Args:
        finished: names of stages and students of which nothing is left to do.
    """
    parts: list[Part] = []
    if "1_images" not in finished:
        files = len(plan.images.folder.files)
        parts.append(Part("photos", "1_images", files / (DECODED_PER_SECOND * machine.cores)))
    if "3_soft_labels" not in finished:
        parts += _teacher_parts(plan, machine)
    for student in plan.students.students:
        if student.name not in finished:
            parts += _student_parts(student, plan, machine)
    parts = [part for part in _in_order(parts) if plan.students.twins or part.stage != COMPARISON]
    tunes = plan.teacher.config.train == "auto" and plan.teacher.external is None
    return Estimate(tuple(parts), plan.disk, _hints(plan), tunes)


def _teacher_parts(plan: Plan, machine: Machine) -> Iterator[Part]:
    teacher, config, photos = plan.teacher, plan.teacher.config, plan.train_photos
    if teacher.external is not None:
        yield from _external_parts(plan, machine)
        return
    speeds = []
    for name, size in zip(config.model, teacher.sizes, strict=True):
        info = describe(name, plan.images.folder.classes, size=size, feature_stages=config.feature_stages)
        model = fold(build(info), Precision.on(machine.device))
        precision, measured = fastest_precision(model, size, machine, training=False)
        speed, views = measured[precision.name], photos * teacher.stored_views
        yield Part(TEST, COMPARISON, COMPARED_SECONDS + expected_test_photos(plan.images.folder, plan.config) / speed)
        converted = views / speed > MIN_SECONDS and faster_backend(machine)
        if converted:
            speed *= BACKEND_SPEEDUP
        in_shards = speed * machine.label_speedup
        speeds.append(in_shards)
        yield Part("measure teacher", "2_teacher", START_SECONDS + (CONVERSION_SECONDS if converted else 0.0))
        if plan.has_unlabeled and config.unlike == "leave_out":
            yield Part("unlike photos", "2_teacher", photos / speed)
        yield Part("features", "2_teacher", views / in_shards)
        head = _head_steps(plan) * feature_widths(info)[0] * HEAD_STEP_SECONDS
        checked = teacher.checks_labels(plan.labeled_photos)
        if checked:
            yield Part("fold heads", "2_teacher", config.folds * head)
        yield Part("head", "2_teacher", head)
        if config.train != "probe":
            yield Part(FINE_TUNING, "2_teacher", _fine_tuning_seconds(plan, machine, name, size))
        if config.folds > 1 and (plan.has_unlabeled or not checked):
            yield Part("fold heads", "2_teacher", config.folds * head)
    left = (
        max(plan.soft_labels.num_views - config.probe_views, 0)
        if config.train != "finetune"
        else plan.soft_labels.num_views
    )
    yield Part(
        "soft labels", "3_soft_labels", sum(photos * left / speed for speed in speeds) + len(speeds) * START_SECONDS
    )


def _external_parts(plan: Plan, machine: Machine) -> Iterator[Part]:
    """Of a teacher that is a file."""
    external, photos = plan.teacher.external, plan.train_photos
    seconds = views = 0.0
    if isinstance(external, OnnxTeacher):
        speed, _ = photos_per_second(external.model(), external.size, Precision.on(machine.device), training=False)
        seconds = expected_test_photos(plan.images.folder, plan.config) / speed
        views = photos * plan.soft_labels.num_views / (speed * machine.label_speedup)
    yield Part(TEST, COMPARISON, COMPARED_SECONDS + seconds)
    yield Part("measure teacher", "2_teacher", START_SECONDS)
    yield Part("soft labels", "3_soft_labels", START_SECONDS + views)


def _head_steps(plan: Plan) -> int:
    """Of a head, and where there are photos without labels, of those that learn from all photos after it."""
    config, views = plan.teacher.config, plan.teacher.stored_views
    least = config.probe_min_steps
    steps = max(least, config.probe_epochs * plan.labeled_photos * views // PROBE_BATCH)
    if not plan.has_unlabeled or config.unlabeled == "ignore":
        return steps
    all_steps = max(least, config.probe_epochs * plan.train_photos * views // PROBE_BATCH)
    return steps + HEADS_FROM_ALL * min(all_steps, MAX_STEPS)


def _fine_tuning_seconds(plan: Plan, machine: Machine, name: str, size: int) -> float:
    """Of training one of the teacher's models once per fold."""
    teacher, folds = plan.teacher, plan.teacher.config.finetune_folds
    photos = plan.labeled_photos
    if teacher.config.unlabeled == "propagate":
        photos += teacher.finetune_unlabeled(photos, plan.train_photos - photos)
    photos = round(photos * (folds - 1) / folds) if folds > 1 else photos
    views = folds * photos * teacher.finetune_epochs(photos)
    model = build(describe(name, plan.images.folder.classes, size=teacher.finetune_size(size)))
    precision, speeds = fastest_precision(model, model.info.size, machine, training=True)
    return folds * START_SECONDS + views / speeds[precision.name]


def _student_parts(student: StudentPlan, plan: Plan, machine: Machine) -> Iterator[Part]:
    """All trainings of one student and its twin."""
    info = describe(student.model, plan.images.folder.classes, size=student.size)
    precision, speeds = fastest_precision(build(info), info.size, machine, training=True)
    seeds, stage, views = plan.students.seeds, "4_students", plan.train_photos * plan.soft_labels.num_views
    together = speeds[precision.name] * machine.processes
    full = TRAINING_FACTOR * plan.train_photos * student.shared.epochs / together
    longest, *others = (recipe.epochs / student.shared.epochs for recipe in student.lengths(student.shared))

    def part(name: str, trainings: int, length: float) -> Part:
        at_once = min(machine.jobs, max(trainings, 1))
        beside = TRAINING_SECONDS + (PROCESS_SECONDS if at_once > 1 or machine.processes > 1 else 0.0)
        return Part(name, stage, (length * full + trainings * beside) / at_once)

    yield Part("measure student", stage, START_SECONDS)
    if views * info.size**2 * 3 <= plan.students.cache_gb * 1e9:
        yield Part("views", stage, views * (info.size / 100) ** 2 / (VIEWS_PER_SECOND * machine.cores))
    if student.num_pilots:
        yield part("pilots", student.num_pilots, student.num_pilots * student.pilot_epochs / student.shared.epochs)
    twins = plan.students.twins
    finalists = 2 if student.may_learn_mostly_from_labels and not plan.has_unlabeled else 0
    lengths = [longest, *others] if twins and others else []
    settled = seeds if lengths and not finalists else 0  # students that are trained beside the lengths
    if finalists or lengths:
        yield part("finals", settled + finalists + len(lengths), settled + finalists + sum(lengths))
    # That of seed 0 which is chosen is not trained again.
    students_left = seeds - 1 if finalists else seeds - settled
    twins_left = (seeds - 1 if lengths else seeds) if twins else 0
    if students_left + twins_left:
        yield part("trainings", students_left + twins_left, students_left + twins_left * longest)
    for name, photos in (
        (TEST, expected_test_photos(plan.images.folder, plan.config)),
        (ON_TRAIN, min(plan.train_photos, MAX_TRAIN_VIEWS)),
    ):
        scored = 2 * seeds * photos / (FORWARD_SPEEDUP * speeds[precision.name])
        yield Part(name, COMPARISON, COMPARED_SECONDS + scored)


def _in_order(parts: Sequence[Part]) -> Iterator[Part]:
    """Stage by stage. The comparison scores all models in one part, first on test photos, then on train views."""
    yield from (part for part in parts if part.stage != COMPARISON)
    for name in (TEST, ON_TRAIN):
        yield Part(name, COMPARISON, sum(part.seconds for part in parts if part.name == name))


def _hints(plan: Plan) -> dict[str, str]:
    """Of the parts that a setting makes shorter, what they are and which setting that is."""
    teachers, seeds = ", ".join(plan.teacher.config.names), plan.students.seeds
    students = ", ".join(student.name for student in plan.students.students)
    twins = " and their twins" if len(plan.students.students) > 1 else " and its twin"
    twins = twins if plan.students.twins else ""
    smaller = "; --teacher efficientnet_lite0 is faster" if "efficientnet_lite0" not in teachers else ""
    smaller = smaller if plan.teacher.external is None else ""
    fewer_seeds = f"; --seeds 1 takes 1/{seeds} of it" if seeds > 1 else "; --student.patience 0.5 halves it"
    return {
        "features": f"what {teachers} sees in the photos{smaller}; --teacher.probe-views 1 needs fewer views",
        FINE_TUNING: f"fine-tuning {teachers}; --teacher.train probe does without",
        "soft labels": f"labeling with {teachers}{smaller}; --views.count 8 needs fewer views",
        "pilots": f"trying settings for {students}; --student.pilot-share 0 does without",
        "finals": f"training {students}{twins}{fewer_seeds}",
        "trainings": f"training {students}{twins}{fewer_seeds}",
    }
