"""The first screen of the report: the questions of the person who wants to use the student, in plain sentences."""

from dataclasses import dataclass

from potstill import metrics
from potstill.metrics import Interval
from potstill.report.findings import Finding
from potstill.run.results import (
    ArmResult,
    Comparison,
    OperatingResult,
    OperatingTarget,
    StudentResult,
    TeacherResult,
    UpdateResult,
)
from potstill.wording import counted

UNEQUAL = 1.5
"""Classes are of unequal size where one has this many times the test photos of another."""

ABOUT_THE_GAIN = ("KD001", "KD003", "KD023")
"""Findings that say what distillation brought, and not whether the student can be relied on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A question and its answer."""

    question: str
    short: str
    """The answer in a few words."""
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """How many photos of a class a model finds."""

    name: str
    photos: int
    distilled: Interval
    alone: Interval
    teacher: Interval


@dataclass(frozen=True, slots=True)
class Column:
    """A number of all three models, for the table of the first screen."""

    title: str
    distilled: Interval
    alone: Interval
    teacher: Interval


@dataclass(frozen=True, slots=True)
class AtOperatingPoint:
    """What each of the three models does at the operating point."""

    target: OperatingTarget
    photos: int
    """Test photos of its class."""
    others: int
    """Test photos of all other classes."""
    distilled: OperatingResult
    alone: OperatingResult
    teacher: OperatingResult


def at_operating_point(comparison: Comparison, student: StudentResult) -> AtOperatingPoint | None:
    """Of a student; None where there is no operating point."""
    target = comparison.operating_point
    found = (student.distilled.operating, student.alone.operating, comparison.teacher.operating)
    if target is None or None in found:
        return None
    photos = comparison.test_per_class[comparison.classes.index(target.class_name)]
    distilled, alone, teacher = (result for result in found if result is not None)
    return AtOperatingPoint(target, photos, comparison.test_photos - photos, distilled, alone, teacher)


def headline(comparison: Comparison) -> str:
    """The title of the page: what counts about the chosen student."""
    student = comparison.student(comparison.chosen.name)
    point, by_class = at_operating_point(comparison, student), student.distilled.by_class
    if point:
        found = point.distilled
        return (
            f"{student.name}: finds {_percent(found.recall.value)} of {point.target.class_name}, at "
            f"{_percent(found.false_alarms.value)} false alarms"
        )
    if by_class and comparison.metric == "macro-f1":
        return f"{student.name}: macro F1 {_percent(by_class.macro_f1.value)} on new photos"
    if by_class and comparison.metric != "accuracy":
        return f"{student.name}: balanced accuracy {_percent(by_class.balanced_accuracy.value)} on new photos"
    return f"{student.name}: {_percent(student.distilled.accuracy.value)} of new photos correct"


def columns(comparison: Comparison) -> list[Column]:
    """What stands beside the accuracy in the table of the first screen."""
    student = comparison.student(comparison.chosen.name)
    models: tuple[ArmResult | TeacherResult, ...] = (student.distilled, student.alone, comparison.teacher)
    found = []
    by_class = [model.by_class for model in models if model.by_class is not None]
    if len(by_class) == len(models) and comparison.metric == "macro-f1":
        found.append(Column("macro F1", *(model.macro_f1 for model in by_class)))
    elif len(by_class) == len(models) and comparison.metric != "accuracy":
        found.append(Column("balanced", *(model.balanced_accuracy for model in by_class)))
    point = at_operating_point(comparison, student)
    if point is None:
        return [*found, *(Column(f"finds {r.name}", r.distilled, r.alone, r.teacher) for r in recalls(comparison))]
    results = (point.distilled, point.alone, point.teacher)
    name = point.target.class_name
    return [
        *found,
        Column(f"finds {name}", *(result.recall for result in results)),
        Column("false alarms", *(result.false_alarms for result in results)),
    ]


def answers(comparison: Comparison, findings: list[Finding]) -> list[Answer]:
    """How good is the student, what did distillation bring, can it be relied on? Of the chosen student. Where photos
    were added to an earlier run, what they brought comes first."""
    student = comparison.student(comparison.chosen.name)
    update = [_what_photos_brought(comparison.update)] if comparison.update else []
    return [
        *update,
        _how_good(comparison, student),
        _what_it_brought(comparison, student),
        _reliable(comparison, findings),
    ]


def _what_photos_brought(update: UpdateResult) -> Answer:
    difference = update.on_old.difference
    measured = update.on_old.is_better or update.on_old.is_worse
    names = "" if update.before == update.after else f" The student was {update.before}, and is {update.after} now."
    start = "continued from those of" if update.warm else "were trained from the start, not from those of"
    pairs = ", ".join(f"{a} and {b}" for a, b in zip(update.on_old.only_after, update.on_old.only_before, strict=True))
    return Answer(
        "What did the added photos bring?",
        f"{100 * difference.value:+.1f} points" if measured else "No difference measured",
        (
            update.verdict,
            update.advice + names,
            f"Photos learned from: {update.learned_before:,} before, {update.learned_after:,} now; student and twin "
            f"{start} {update.run}. Test photos that only the new student, and only the old one, classifies correctly, "
            f"seed by seed: {pairs}.",
        ),
    )


def recalls(comparison: Comparison) -> list[Recall]:
    """Of two classes of unequal size, the rarer one first: accuracy is then mostly that of the larger. Else none."""
    student = comparison.student(comparison.chosen.name)
    small, *others = sorted(student.per_class, key=lambda c: c.photos)
    if len(others) != 1 or others[0].photos < UNEQUAL * small.photos:
        return []
    return [_recall(comparison, student, c.name) for c in (small, others[0])]


def _recall(comparison: Comparison, student: StudentResult, name: str) -> Recall:
    label = comparison.classes.index(name)
    c = next(c for c in student.per_class if c.name == name)
    models: dict[str, ArmResult | TeacherResult]
    models = {"distilled": student.distilled, "alone": student.alone, "teacher": comparison.teacher}
    found = {}
    for who, model in models.items():
        measured, share = model.by_class.recall[label] if model.by_class else None, getattr(c, who)
        # In results from before it was measured: of the mean over the seeds, over photos.
        found[who] = measured or Interval(
            share, *metrics.wilson_interval(round(share * c.photos), c.photos, comparison.confidence)
        )
    return Recall(name, c.photos, **found)


def _how_good(comparison: Comparison, student: StudentResult) -> Answer:
    accuracy, teacher = student.distilled.accuracy, comparison.teacher
    if point := at_operating_point(comparison, student):
        short = f"Finds {_percent(point.distilled.recall.value)} of {point.target.class_name}"
        plain = (
            f"Without the threshold, with the most probable class as the prediction, {_of(accuracy)} of the "
            f"{counted(comparison.test_photos, 'test photo')} are classified correctly."
        )
        return Answer("How good is the small model?", short, (*_at(point), plain))
    larger = f", {teacher.bytes / student.bytes:.0f} times larger," if teacher.bytes else ""
    sentences = [
        f"It classifies {_of(accuracy)} of the {counted(comparison.test_photos, 'test photo')} correctly, which it "
        f"has never seen before. Its teacher{larger} manages {_of(teacher.accuracy)}."
    ]
    both = recalls(comparison)
    if both:
        rare, common = both
        sentences.append(
            f"It finds {_of(rare.distilled)} of the {counted(rare.photos, 'photo')} of {rare.name}, and mistakes "
            f"{_percent(1 - common.distilled.value)} of the {common.photos:,} of {common.name} for {rare.name}."
        )
    elif len(student.per_class) > 1:
        worst = min(student.per_class, key=lambda c: c.distilled)
        sentences.append(
            f"Its weakest class is {worst.name}: {_percent(worst.distilled)} of {counted(worst.photos, 'photo')}."
        )
    return Answer("How good is the small model?", f"{_percent(accuracy.value)} correct", tuple(sentences))


def _at(point: AtOperatingPoint) -> list[str]:
    """What the operating point comes to, in sentences."""
    target, found = point.target, point.distilled
    right = f" Of what it reports, {_of(found.precision)} are {target.class_name}." if found.precision else ""
    return [
        f"It finds {_of(found.recall)} of the {counted(point.photos, 'photo')} of {target.class_name}, and raises a "
        f"false alarm for {_of(found.false_alarms)} of the {point.others:,} others.{right} Its threshold was chosen on "
        f"val to find {100 * target.recall:g} %.",
        f"Its teacher finds {_percent(point.teacher.recall.value)} with false alarms for "
        f"{_percent(point.teacher.false_alarms.value)}.",
    ]


def _what_it_brought(comparison: Comparison, student: StudentResult) -> Answer:
    difference, seeds = student.difference, comparison.seeds
    first, point, rest = student.verdict.partition(". ")
    sentences = [first + ("." if point else ""), *([rest.strip()] if rest.strip() else [])]
    both, at = recalls(comparison), at_operating_point(comparison, student)
    if at and student.class_differences and student.class_differences.false_alarms:
        fewer = student.class_differences.false_alarms
        sentences.append(
            f"Alone, without the teacher, it finds {_percent(at.alone.recall.value)} of {at.target.class_name} with "
            f"false alarms for {_percent(at.alone.false_alarms.value)}. The false alarms of distilled minus alone: "
            f"{fewer.points}."
        )
    elif both:
        rare = both[0]
        sentences.append(
            f"Alone, without the teacher, it finds {_percent(rare.alone.value)} of the photos of {rare.name}; "
            f"distilled, {_percent(rare.distilled.value)}."
        )
    if len(comparison.students) > 1:
        better = sum(s.difference.low > 0 for s in comparison.students)
        worse = sum(s.difference.high < 0 for s in comparison.students)
        none = len(comparison.students) - better - worse
        sentences.append(
            f"It was chosen on val: {comparison.chosen.reason}. Of all {counted(len(comparison.students), 'student')}, "
            f"distillation made {better} better and {worse} worse; for {none} no gain was measured."
        )
    measured = difference.low > 0 or difference.high < 0
    short = f"{100 * difference.value:+.1f} points" if measured else "No gain measured"
    if seeds == 1 and measured:
        short += ", with one seed"
    return Answer("What did distillation bring?", short, tuple(sentences))


def _reliable(comparison: Comparison, findings: list[Finding]) -> Answer:
    accuracy = comparison.student(comparison.chosen.name).distilled.accuracy
    expect = (
        f"On other photos of the same kind expect {100 * accuracy.low:.0f} to {100 * accuracy.high:.0f} % to be "
        f"classified correctly ({metrics.percent(comparison.confidence).replace('%', ' %')} interval)."
    )
    doubts = [finding for finding in findings if finding.code not in ABOUT_THE_GAIN]
    stops = _titles(doubts, "stop")
    cautions = _titles(doubts, "caution")
    if stops:
        return Answer("Can I rely on it?", "No", (f"{_listed(stops)}.", "What to do about it is explained below."))
    if cautions:
        return Answer("Can I rely on it?", "With care", (expect, f"Read first: {_listed(cautions)}."))
    return Answer("Can I rely on it?", "Yes", (expect, "No reason was found to doubt these numbers."))


def _titles(findings: list[Finding], level: str) -> list[str]:
    return list(dict.fromkeys(finding.title for finding in findings if finding.level == level))


def _listed(titles: list[str]) -> str:
    first, *others = titles
    return "; ".join([first, *(title[0].lower() + title[1:] for title in others)])


def _of(interval: Interval) -> str:
    return f"{_percent(interval.value)} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
