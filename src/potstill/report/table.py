"""The comparison as a table for the terminal."""

from rich.table import Table

from potstill import metrics
from potstill.metrics import Interval
from potstill.monitoring.tables import text_table
from potstill.report.answers import UNEQUAL, at_operating_point
from potstill.run.folder import Run
from potstill.run.layout import ARMS, model_folder, num_seeds, usable_students
from potstill.run.results import ArmResult, Comparison, Controls, Costs, TeacherResult, read_training
from potstill.wording import counted


def comparison_table(comparison: Comparison) -> Table:
    """Teacher, then each student distilled and alone: accuracy with interval, calibration, agreement and costs."""
    header = ["model", "accuracy", "interval", "NLL", "ECE", "agreement", "parameters", "MMACs", "MB", "ms"]
    teacher = comparison.teacher
    rows = [_row("teacher " + " + ".join(teacher.models), teacher, teacher)]
    for student in comparison.students:
        for arm in ARMS:
            rows.append(_row(f"{student.name} {arm}", student.arm(arm), student))
    return text_table(header, rows, right=range(1, len(header)))


def val_table(run: Run) -> Table:
    """Of students that were trained without their twins: accuracy on val, or mAP, for every seed."""
    seeds, title = num_seeds(run), "accuracy"
    rows = []
    for name in usable_students(run):
        facts = [read_training(model_folder(run, name, seed, ARMS[0])) for seed in range(seeds)]
        accuracy = [each.val_accuracy if each.val_map is None else each.val_map for each in facts]
        title = "mAP" if facts[0].several_labels else "accuracy"
        rows.append([name, f"{sum(accuracy) / seeds:.1%}", ", ".join(f"{value:.1%}" for value in accuracy)])
    return text_table(["student", f"{title} on val", "of each seed"], rows, right=range(1, 3))


def agreement_table(comparison: Comparison) -> Table:
    """How far each student and its twin follow the teacher, on photos that students learn from and on new ones."""
    header = ["predicts the teacher's class", "train views", "val", "test"]
    rows = []
    for student in comparison.students:
        for arm in ARMS:
            agreement = student.arm(arm).agreement
            shares = (agreement.train_views, agreement.val, agreement.test)
            rows.append([f"{student.name} {arm}", *("–" if share is None else f"{share:.1%}" for share in shares)])
    return text_table(header, rows, right=range(1, len(header)))


def class_table(comparison: Comparison) -> Table | None:
    """Balanced accuracy and macro F1 of every model, where classes are of unequal size or something was chosen by
    another metric than accuracy; None where they are not, and in results from before it was measured."""
    sizes = [photos for photos in comparison.test_per_class if photos]
    if comparison.metric == "accuracy" and max(sizes) < UNEQUAL * min(sizes):
        return None
    rows = [
        [name, *(_with_interval(value) for value in (result.by_class.balanced_accuracy, result.by_class.macro_f1))]
        for name, result in _models(comparison)
        if result.by_class is not None
    ]
    return text_table(["every class alike", "balanced accuracy", "macro F1"], rows, right=(1, 2)) if rows else None


def operating_table(comparison: Comparison) -> Table | None:
    """What the thresholds of the operating point find, and at what share of false alarms; None where there is none."""
    target = comparison.operating_point
    if target is None:
        return None
    rows = [
        [name, *(_with_interval(value) for value in (found.recall, found.false_alarms, found.precision))]
        for name, result in _models(comparison)
        if (found := result.operating) is not None
    ]
    header = [
        f"threshold on val for {100 * target.recall:g}%",
        f"finds {target.class_name}",
        "false alarms",
        f"{target.class_name} among what is reported",
    ]
    return text_table(header, rows, right=(1, 2, 3)) if rows else None


def operating_lines(comparison: Comparison) -> list[str]:
    """What an inspector asks of each student, in a sentence."""
    lines, target = [], comparison.operating_point
    for student in comparison.students:
        point = at_operating_point(comparison, student)
        if target is None or point is None:
            continue
        others = [
            f"{who} {found.recall.value:.1%} at {found.false_alarms.value:.1%}"
            for who, found in (("its twin", point.alone), ("the teacher", point.teacher))
        ]
        lines.append(
            f"{student.name} finds {_with_interval(point.distilled.recall)} of {target.class_name}, with false alarms "
            f"for {_with_interval(point.distilled.false_alarms)} of the others ({', '.join(others)}); its threshold "
            f"was chosen on val to find {100 * target.recall:g}%."
        )
    return lines


def _models(comparison: Comparison) -> list[tuple[str, TeacherResult | ArmResult]]:
    arms = [(f"{s.name} {arm}", s.arm(arm)) for s in comparison.students for arm in ARMS]
    return [("teacher " + " + ".join(comparison.teacher.models), comparison.teacher), *arms]


def _with_interval(value: Interval | None) -> str:
    return f"{value.value:.1%} ({100 * value.low:.1f} to {100 * value.high:.1f})" if value else "–"


def comparison_note(comparison: Comparison) -> str:
    """What the numbers of the table are."""
    shorter = [
        f"; {student.name} alone was trained for {student.twin_length:.0%} of the student's steps, chosen on val"
        for student in comparison.students
        if student.twin_length != 1
    ]
    return (
        f"{counted(comparison.test_photos, 'test photo')}, {counted(comparison.seeds, 'seed')}, "
        f"{metrics.percent(comparison.confidence)} intervals over seeds and photos (or groups of them); NLL and ECE "
        f"after temperature "
        f"scaling on val; ms per photo in torch on one thread of {comparison.environment.processor}{''.join(shorter)}"
    )


def controls_table(controls: Controls) -> Table:
    """Every control: accuracy with interval, and the paired differences in points."""
    header = ["model", "accuracy", "interval", "minus its twin", "minus distilled"]
    rows = [
        [
            f"{student.name} {name}",
            f"{100 * result.accuracy.value:.1f}%",
            f"{100 * result.accuracy.low:.1f} to {100 * result.accuracy.high:.1f}",
            result.to_twin.points,
            result.to_distilled.points,
        ]
        for student in controls.students
        for name, result in student.results()
    ]
    return text_table(header, rows, right=range(1, len(header)))


def _row(name: str, result: TeacherResult | ArmResult, costs: Costs) -> list[str]:
    accuracy = result.accuracy
    agreement = result.agreement.test if isinstance(result, ArmResult) else None
    return [
        name,
        f"{accuracy.value:.1%}",
        f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
        f"{result.nll_scaled:.3f}",
        f"{result.ece_scaled:.3f}",
        "" if agreement is None else f"{agreement:.1%}",
        f"{costs.parameters / 1e6:.2f} M" if costs.parameters else "–",
        f"{costs.macs / 1e6:.0f}" if costs.macs else "–",
        f"{costs.bytes / 1e6:.1f}" if costs.bytes else "–",
        f"{costs.milliseconds:.1f}" if costs.milliseconds else "–",
    ]
