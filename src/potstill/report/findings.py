"""What a reader should know before relying on a run. Each finding has a code with a section in docs/findings.md."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from potstill import metrics
from potstill.metrics import Interval
from potstill.report.diagnosis import Missing, diagnose
from potstill.report.read import RunFiles
from potstill.run.results import ClassAccuracy, Comparison, StudentResult
from potstill.wording import counted

Level = Literal["stop", "caution", "note"]

TITLES: dict[str, tuple[Level, str]] = {
    "KD001": ("caution", "No gain measured"),
    "KD002": ("stop", "Distillation made it worse"),
    "KD003": ("caution", "The teacher is no better than the student"),
    "KD004": ("note", "Classes too small to see a difference"),
    "KD005": ("note", "Copies of test photos were left out"),
    "KD006": ("caution", "The same photo in two classes"),
    "KD007": ("caution", "Probabilities are poorly calibrated"),
    "KD008": ("caution", "One seed only"),
    "KD009": ("caution", "Few val photos"),
    "KD010": ("stop", "Trained for a few epochs only"),
    "KD011": ("stop", "The student did not learn"),
    "KD012": ("caution", "Labels that may be wrong"),
    "KD013": ("note", "Classes of very different size"),
    "KD014": ("caution", "A class got worse"),
    "KD015": ("caution", "Val and test disagree"),
    "KD016": ("caution", "An export failed"),
    "KD017": ("note", "Many students on the same test photos"),
    "KD018": ("caution", "Many photos were left out"),
    "KD019": ("caution", "Copies across splits were not looked for"),
    "KD020": ("note", "More photos would help most"),
    "KD021": ("note", "A longer training would help most"),
    "KD022": ("note", "A larger student would help most"),
    "KD023": ("note", "The student follows its teacher no more than its twin does"),
    "KD024": ("caution", "Most photos without labels were left out"),
    "KD025": ("caution", "Few val photos place the threshold"),
    "KD026": ("caution", "The threshold finds less than was asked for"),
}
"""Level and title of every code. Codes are never given a second meaning."""

SMALL_CLASS = 30
FEW_VAL = 100
FEW_EPOCHS = 5
MANY_STUDENTS = 5
UNEVEN = 5
MANY_LOST = 0.05
MANY_UNLIKE = 0.5
WIDE_RECALL = 0.1
"""Between the lowest and the highest recall that a threshold may come to."""
MANY_SUSPECTS = 0.01
"""Share of the training photos: the rule of confident learning always names a few."""
BAD_ECE = 0.05
"""Beside 1 / sqrt(n): with few photos the measured calibration error of a perfect model is large, too."""
GAP_SIGMAS = 3.0

MISSING: dict[Missing, tuple[str, str]] = {
    "photos": (
        "KD020",
        "It has learned what it was shown and does not carry it over: more photos of the same kind, which need no "
        "labels, are the first thing to add.",
    ),
    "length": (
        "KD021",
        "It disagrees on photos that it learned from as well, and its loss was still falling: train it longer.",
    ),
    "size": (
        "KD022",
        "It disagrees on photos that it learned from as well, and its loss no longer fell: a larger student or input "
        "size is the first thing to try.",
    ),
}
"""Code and advice by what is missing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know, with the numbers of this run."""

    code: str
    message: str

    @property
    def level(self) -> Level:
        """stop: do not rely on it. caution: read before relying on it. note: good to know."""
        return TITLES[self.code][0]

    @property
    def title(self) -> str:
        return TITLES[self.code][1]


def find(files: RunFiles, likely_wrong_labels: int) -> list[Finding]:
    """All findings of a run, the gravest first.

    Args:
        likely_wrong_labels: how many test photos teacher and student both contradict, see `photos.wrong_labels`.
    """
    found = [
        *_students(files),
        *_following(files),
        *_operating_point(files),
        *_learning(files),
        *_test_photos(files, likely_wrong_labels),
        *_data(files),
        *_exported(files),
    ]
    order = ("stop", "caution", "note")
    return sorted(found, key=lambda finding: (order.index(finding.level), finding.code))


def reasons_not_to_rely(files: RunFiles) -> list[str]:
    """The findings that forbid relying on a run, in words."""
    return [f"{finding.message} ({finding.code})" for finding in find(files, 0) if finding.level == "stop"]


def _students(files: RunFiles) -> Iterator[Finding]:
    students = files.students
    for s in students:
        name, d = s.name, s.difference
        if d.high < 0:
            yield Finding("KD002", f"{name}: {d.points} against its twin. Use the twin, or change the settings.")
        elif d.low <= 0:
            visible = 100 * s.smallest_visible_difference
            yield Finding(
                "KD001",
                f"{name}: {d.points}, the interval contains 0. With these test photos a difference below about "
                f"{visible:.1f} points cannot be seen.",
            )
        title, own, its = _what_counts(files, s)
        if own.value >= its.value:
            yield Finding(
                "KD003",
                f"{name} distilled has {title} of {_share(own.value)} on the test photos, the teacher "
                f"{_share(its.value)}. A better teacher is the first thing to try.",
            )
        if s.distilled.ece_scaled > BAD_ECE + files.comparison.test_photos**-0.5:
            yield Finding(
                "KD007",
                f"{name} distilled: after temperature scaling its confidence is off by "
                f"{100 * s.distilled.ece_scaled:.1f} points on average.{_balanced(s)}",
            )
        worse = [c for c in s.per_class if _class_worse(c)]
        if worse:
            names = ", ".join(
                f"{c.name} ({100 * (c.distilled - c.alone):+.1f} on {counted(c.photos, 'photo')})" for c in worse[:5]
            )
            yield Finding("KD014", f"{name}: distilled is clearly less accurate than alone on {names}.")
    if len(students) >= MANY_STUDENTS:
        yield Finding(
            "KD017",
            f"{len(students)} students were measured. Of so many {metrics.percent(files.comparison.confidence)} "
            f"intervals, about {len(students) * (1 - files.comparison.confidence):.1f} miss the true value by "
            "chance, and the best of them looks better than it is.",
        )


def _operating_point(files: RunFiles) -> Iterator[Finding]:
    target = files.comparison.operating_point
    if target is None:
        return
    wanted, name = _share(target.recall), target.class_name
    if target.high - target.low > WIDE_RECALL:
        yield Finding(
            "KD025",
            f"The threshold that is to find {wanted} rests on {counted(target.val_photos, 'val photo')} of {name}. One "
            f"that rests on so many finds {100 * target.low:.0f} to {100 * target.high:.0f} % of new photos.",
        )
    for s in files.students:
        found = s.distilled.operating
        if found and found.recall.high < target.recall:
            yield Finding(
                "KD026",
                f"{s.name} distilled finds {_share(found.recall.value)} ({100 * found.recall.low:.1f} to "
                f"{100 * found.recall.high:.1f}) of the test photos of {name}; its threshold was to find {wanted}.",
            )


def _following(files: RunFiles) -> Iterator[Finding]:
    """What keeps students from following their teacher, where that would make them better: else see KD003.

    Nothing of a student that has hardly been trained, or has not learned: KD010 and KD011 say why it does not follow.
    """
    teacher = files.comparison.teacher.accuracy.value
    for s in files.students:
        found = diagnose(files, s)
        if (
            found is None
            or s.distilled.epochs < FEW_EPOCHS
            or s.distilled.accuracy.low <= _most_common(files.comparison)
        ):
            continue
        if found.missing != "nothing" and s.distilled.accuracy.value < teacher:
            code, advice = MISSING[found.missing]
            yield Finding(
                code,
                f"{s.name} distilled agrees with its teacher on {_share(found.on_train)} of train views and on "
                f"{_share(found.on_new)} of new photos (val and test). {advice}",
            )
        if s.agreement_difference is not None and s.agreement_difference.low <= 0:
            yield Finding("KD023", _no_more_than_its_twin(s))


def _no_more_than_its_twin(s: StudentResult) -> str:
    assert s.agreement_difference is not None
    distilled, alone = s.distilled.agreement.test, s.alone.agreement.test
    return (
        f"{s.name} distilled agrees with the teacher on {_share(distilled)} of the test photos, its twin, which never "
        f"met it, on {_share(alone)}: {s.agreement_difference.points}. Another teacher or loss changes little as long "
        "as this holds."
    )


def _what_counts(files: RunFiles, s: StudentResult) -> tuple[str, Interval, Interval]:
    """The number that was chosen by, in words, of a distilled student and of the teacher."""
    own, its = s.distilled.by_class, files.comparison.teacher.by_class
    if own is None or its is None or files.comparison.metric == "accuracy":
        return "an accuracy", s.distilled.accuracy, files.comparison.teacher.accuracy
    if files.comparison.metric == "macro-f1":
        return "a macro F1", own.macro_f1, its.macro_f1
    return "a balanced accuracy", own.balanced_accuracy, its.balanced_accuracy


def _balanced(s: StudentResult) -> str:
    """Why probabilities may be off on purpose."""
    if s.distilled.recipe.get("class_balance", "none") == "none":
        return ""
    return " They are meant for classes of equal size: it was trained to predict as if there were as many of each."


def _class_worse(c: ClassAccuracy) -> bool:
    """Lower than two standard errors of a difference of two independent shares: cautious, for they are paired."""
    variance = sum(share * (1 - share) for share in (c.distilled, c.alone)) / max(c.photos, 1)
    return bool(c.photos >= SMALL_CLASS and c.distilled - c.alone < -2 * np.sqrt(variance))


def _most_common(comparison: Comparison) -> float:
    """Accuracy of always predicting the most common class."""
    return max(comparison.test_per_class) / comparison.test_photos


def _learning(files: RunFiles) -> Iterator[Finding]:
    comparison = files.comparison
    if comparison.seeds == 1:
        yield Finding("KD008", "How much the result depends on the random start is not known. Use --seeds 3 or more.")
    common, guess = _most_common(comparison), 1 / len(comparison.classes)
    for s in files.students:
        epochs, by_class = s.distilled.epochs, s.distilled.by_class
        if epochs < FEW_EPOCHS:
            yield Finding(
                "KD010", f"{s.name}: {counted(epochs, 'epoch only shows', 'epochs only show')} that everything works."
            )
        elif comparison.metric != "accuracy" and by_class:  # whoever finds rare classes may be wrong on more photos
            if by_class.balanced_accuracy.low <= guess:
                yield Finding(
                    "KD011",
                    f"{s.name} distilled: balanced accuracy {_share(by_class.balanced_accuracy.value)}; always "
                    f"predicting the same class would reach {_share(guess)}.",
                )
        elif s.distilled.accuracy.low <= common:
            yield Finding(
                "KD011",
                f"{s.name} distilled: accuracy {_share(s.distilled.accuracy.value)}; always predicting the "
                f"most common class would reach {_share(common)}.",
            )
    val = files.image_facts["counts"].get("val", 0)
    if val < FEW_VAL:
        yield Finding(
            "KD009",
            f"{counted(val, 'photo chooses', 'photos choose')} the twin's settings, temperatures and thresholds; these "
            "choices are noisy.",
        )
    for s in files.students:
        trainings = [files.training(s.name, seed, "distilled") for seed in range(comparison.seeds)]
        on_val = float(np.mean([training.val_accuracy for training in trainings]))
        on_test = s.distilled.accuracy.value
        spread = np.sqrt(on_test * (1 - on_test) * (1 / max(val, 1) + 1 / comparison.test_photos)) + 1e-9
        if abs(on_val - on_test) > GAP_SIGMAS * spread:
            yield Finding(
                "KD015",
                f"{s.name} distilled has an accuracy of {_share(on_val)} on val and {_share(on_test)} on test: the "
                "two splits differ.",
            )


def _test_photos(files: RunFiles, likely_wrong_labels: int) -> Iterator[Finding]:
    comparison = files.comparison
    small = [name for name, n in zip(comparison.classes, comparison.test_per_class, strict=True) if n < SMALL_CLASS]
    if small:
        smallest = min(comparison.test_per_class)
        low, high = metrics.wilson_interval(round(0.8 * smallest), smallest, comparison.confidence)
        yield Finding(
            "KD004",
            f"{_some(small)}: fewer than {SMALL_CLASS} test photos. The smallest class has {smallest}; there, a "
            f"measured accuracy of 80 % could be anything from {100 * low:.0f} to {100 * high:.0f} %.",
        )
    suspects = len(files.suspects or [])
    many = suspects >= MANY_SUSPECTS * files.image_facts["counts"]["train"]
    parts = [
        f"on {counted(likely_wrong_labels, 'test photo')} teacher and student both predict the same other class "
        "with confidence"
        if likely_wrong_labels
        else "",
        f"on {counted(suspects, 'training photo')} the teacher, not trained on them, finds another class more probable"
        if suspects and many
        else "",
    ]
    if any(parts):
        text = "; ".join(filter(None, parts))
        yield Finding("KD012", f"{text[0].upper()}{text[1:]}. Look at them below.")


def _data(files: RunFiles) -> Iterator[Finding]:
    codes = Counter(row["code"] for row in files.rejected)
    if codes["in_test"]:
        yield Finding(
            "KD005",
            f"{counted(codes['in_test'], 'photo of train or val shows', 'photos of train or val show')} the same "
            "picture as a test photo.",
        )
    if files.config["images"]["duplicate_bits"] < 0:
        yield Finding(
            "KD019", "images.duplicate_bits is -1. If train holds copies of test photos, all numbers are too high."
        )
    if codes["two_classes"]:
        yield Finding(
            "KD006", f"{counted(codes['two_classes'], 'file is', 'files are')} in more than one class: left out."
        )
    lost = sum(codes.values()) / (len(files.rejected) + sum(files.image_facts["counts"].values()))
    if lost > MANY_LOST:
        yield Finding("KD018", f"{_share(lost)} of all files, mostly: {codes.most_common(1)[0][0]}.")
    pool = files.image_facts["counts"].get("unlabeled", 0)
    if len(files.unlike) > MANY_UNLIKE * pool:
        yield Finding(
            "KD024",
            f"{len(files.unlike):,} of {pool:,} resemble none of the labeled photos. Look at some of them below.",
        )
    train = files.counts().get("train", Counter())
    sizes = {name: train[name] for name in files.classes}
    largest, smallest = max(sizes, key=lambda n: sizes[n]), min(sizes, key=lambda n: sizes[n])
    if sizes[largest] > UNEVEN * max(sizes[smallest], 1):
        yield Finding(
            "KD013",
            f"{largest} has {counted(sizes[largest], 'training photo')}, {smallest} {sizes[smallest]:,}. Accuracy "
            "over all photos says little about small classes: read the table per class.",
        )


def _exported(files: RunFiles) -> Iterator[Finding]:
    for student, file in files.exported:
        if file.status == "failed":
            reason = file.reason.splitlines()[0]
            yield Finding("KD016", f"{student} as {file.format} {file.precision}: {reason}. No file was left.")


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _some(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
