"""What a run will take, from its plan and a few seconds of timing: reported before a long run starts."""

from dataclasses import dataclass

from potstill.compute.fold_batchnorm import fold
from potstill.compute.machine import Machine
from potstill.compute.precision import Precision
from potstill.compute.selection import fastest_precision
from potstill.models.classifier import build, describe
from potstill.monitoring.progress import duration
from potstill.planning import Plan
from potstill.students.plan import StudentPlan
from potstill.teacher.plan import TeacherPlan

START_SECONDS = 6.0
"""Before a model trains or labels: importing, building, timing."""

DECODED_PER_SECOND = 150
"""Photos per second and core, for photos of a few hundred pixels; phone photos take three times as long."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds per stage, and bytes on disk."""

    seconds: dict[str, float]
    disk: dict[str, float]
    fine_tuning: float = 0.0
    """Seconds more where the probe turns out not to be good enough."""

    def lines(self) -> list[str]:
        """For people."""
        total, size = sum(self.seconds.values()), sum(self.disk.values())
        more = (
            f"; {duration(self.fine_tuning)} more if the teacher has to be fine-tuned (--teacher.train probe: never)"
            if self.fine_tuning
            else ""
        )
        return [
            f"About {duration(total)} ("
            + ", ".join(f"{name} {duration(value)}" for name, value in self.seconds.items())
            + f"){more}",
            f"About {size / 1e9:.2f} GB of disk ("
            + ", ".join(f"{name} {value / 1e9:.2f}" for name, value in self.disk.items())
            + ")",
        ]


def estimate(plan: Plan, machine: Machine) -> Estimate:
    """Time each model for a second, with random weights, and multiply."""
    files = len(plan.images.folder.files)
    seconds = {
        "photos": files / (DECODED_PER_SECOND * machine.cores),
        "teacher": _teacher_seconds(plan.teacher, plan, machine),
        "students": sum(_student_seconds(student, plan, machine) for student in plan.students.students),
    }
    fine_tuning = _fine_tuning_seconds(plan, machine)
    if plan.teacher.config.train == "finetune":
        seconds["teacher"], fine_tuning = seconds["teacher"] + fine_tuning, 0.0
    return Estimate(seconds, plan.disk, fine_tuning)


def _fine_tuning_seconds(plan: Plan, machine: Machine) -> float:
    """Of training every model of the teacher once per fold."""
    teacher, config = plan.teacher, plan.teacher.config
    if config.train == "probe":
        return 0.0
    folds = config.finetune_folds
    photos = round(plan.labeled_photos * (folds - 1) / folds) if folds > 1 else plan.labeled_photos
    views, total = folds * photos * teacher.finetune_epochs(photos), 0.0
    for name, size in zip(config.model, teacher.sizes, strict=True):
        model = build(describe(name, plan.images.folder.classes, size=teacher.finetune_size(size)))
        precision, speeds = fastest_precision(model, model.info.size, machine, training=True)
        total += folds * START_SECONDS + views / speeds[precision.name]
    return total


def _teacher_seconds(teacher: TeacherPlan, plan: Plan, machine: Machine) -> float:
    """Of labeling: every view of the train photos once, and the plain view of all others."""
    views_each = 1 + max(plan.soft_labels.num_views, teacher.config.probe_views)
    views = plan.train_photos * views_each + len(plan.images.folder.files) - plan.train_photos
    total = 0.0
    for name, size in zip(teacher.config.model, teacher.sizes, strict=True):
        info = describe(name, plan.images.folder.classes, size=size, feature_stages=teacher.config.feature_stages)
        model = fold(build(info), Precision.on(machine.device))
        precision, speeds = fastest_precision(model, size, machine, training=False)
        total += START_SECONDS + views / speeds[precision.name]
    return total


def _student_seconds(student: StudentPlan, plan: Plan, machine: Machine) -> float:
    """Of all trainings of one student and its twin."""
    info = describe(student.model, plan.images.folder.classes, size=student.size)
    precision, speeds = fastest_precision(build(info), info.size, machine, training=True)
    seeds = plan.students.seeds
    each = plan.train_photos * student.shared.epochs / speeds[precision.name] + START_SECONDS
    return START_SECONDS + each * student.num_trainings(seeds) / min(machine.jobs, 2 * seeds)
