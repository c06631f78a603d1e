"""The first screen of the report: three questions of the person who wants to use the student, in plain sentences."""

from dataclasses import dataclass

from potstill import metrics
from potstill.metrics import Interval
from potstill.report.findings import Finding
from potstill.run.results import ClassAccuracy, Comparison, StudentResult
from potstill.wording import counted

UNEQUAL = 1.5
"""Of two classes, the larger is called so where it has this many times the test photos of the smaller."""

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


def answers(comparison: Comparison, findings: list[Finding]) -> list[Answer]:
    """How good is the student, what did distillation bring, can it be relied on? Of the chosen student."""
    student = comparison.student(comparison.chosen.name)
    return [_how_good(comparison, student), _what_it_brought(comparison, student), _reliable(comparison, findings)]


def recalls(comparison: Comparison) -> list[Recall]:
    """Of two classes of unequal size, the rarer one first: accuracy is then mostly that of the larger. Else none."""
    student = comparison.student(comparison.chosen.name)
    small, *others = sorted(student.per_class, key=lambda c: c.photos)
    if len(others) != 1 or others[0].photos < UNEQUAL * small.photos:
        return []
    return [_recall(c, comparison.confidence) for c in (small, others[0])]


def _recall(c: ClassAccuracy, confidence: float) -> Recall:
    shares = {who: getattr(c, who) for who in ("distilled", "alone", "teacher")}
    # Of the mean over the seeds, over photos: all seeds see the same ones.
    found = {
        who: Interval(share, *metrics.wilson_interval(round(share * c.photos), c.photos, confidence))
        for who, share in shares.items()
    }
    return Recall(c.name, c.photos, **found)


def _how_good(comparison: Comparison, student: StudentResult) -> Answer:
    accuracy, teacher = student.distilled.accuracy, comparison.teacher
    sentences = [
        f"It classifies {_of(accuracy)} of the {counted(comparison.test_photos, 'test photo')} correctly, which it "
        f"has never seen before. Its teacher, {teacher.bytes / student.bytes:.0f} times larger, manages "
        f"{_of(teacher.accuracy)}."
    ]
    both = recalls(comparison)
    if both:
        rare, common = both
        sentences.append(
            f"It finds {_of(rare.distilled)} of the {counted(rare.photos, 'photo')} of {rare.name}, and takes "
            f"{_percent(1 - common.distilled.value)} of the {common.photos:,} of {common.name} for {rare.name}."
        )
    elif len(student.per_class) > 1:
        worst = min(student.per_class, key=lambda c: c.distilled)
        sentences.append(
            f"Its weakest class is {worst.name}: {_percent(worst.distilled)} of {counted(worst.photos, 'photo')}."
        )
    return Answer("How good is the small model?", f"{_percent(accuracy.value)} correct", tuple(sentences))


def _what_it_brought(comparison: Comparison, student: StudentResult) -> Answer:
    difference, seeds = student.difference, comparison.seeds
    first, point, rest = student.verdict.partition(". ")
    sentences = [first + ("." if point else ""), *([rest.strip()] if rest.strip() else [])]
    both = recalls(comparison)
    if both:
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
        return Answer("Can I rely on it?", "No", (f"{_listed(stops)}.", "What to do about it stands below."))
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
