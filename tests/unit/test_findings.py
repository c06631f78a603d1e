"""Each finding is raised by numbers that deserve it, and by no others; each has its section in the docs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reports import edit, export_json, grow, reject, slim_copy
from tests.support import edit_settings

import potstill
from potstill.report.diagnosis import what_is_missing
from potstill.report.findings import TITLES, find
from potstill.report.read import RunFiles
from potstill.run.folder import Run

DOCS = Path(__file__).parents[2] / "docs" / "findings.md"


@pytest.fixture
def calm(tiny_run: "potstill.Result", tmp_path: Path) -> Run:
    """A run that nothing speaks against: 600 test photos, 2 seeds, a clear gain, a good teacher."""
    run = slim_copy(tiny_run.path, tmp_path / "run")
    grow(run, classes=["ant", "bee", "cow"], students=1, photos=600)
    return run


def codes(run: Run, wrong: int = 0) -> list[str]:
    return [finding.code for finding in find(RunFiles(run), wrong)]


def test_by_another_metric_a_student_may_be_wrong_on_more_photos_than_the_largest_class_has(calm: Run) -> None:
    by_class = {
        "balanced_accuracy": {"value": 0.6, "low": 0.55, "high": 0.65},
        "macro_f1": {"value": 0.4, "low": 0.35, "high": 0.45},
        **{name: [] for name in ("recall", "precision", "roc_area", "pr_area", "roc", "pr")},
    }
    better = {**by_class, "balanced_accuracy": {"value": 0.7, "low": 0.65, "high": 0.75}}

    def change(values: dict[str, Any]) -> None:
        values.update(metric="balanced", test_per_class=[560, 20, 20])
        values["teacher"]["by_class"] = better
        values["students"][0]["distilled"]["by_class"] = by_class

    edit(calm.comparison / "comparison.json", change)
    assert "KD011" not in codes(calm)
    assert "KD003" not in codes(calm)
    by_class["balanced_accuracy"].update(value=0.36, low=0.33)
    better["balanced_accuracy"].update(value=0.35)
    edit(calm.comparison / "comparison.json", change)
    messages = {finding.code: finding.message for finding in find(RunFiles(calm), 0)}
    assert "balanced accuracy 36.0 %; always predicting the same class would reach 33.3 %" in messages["KD011"]
    assert "has a balanced accuracy of 36.0 % on the test photos, the teacher 35.0 %" in messages["KD003"]


def test_a_calm_run_has_no_findings(calm: Run) -> None:
    assert codes(calm) == []


def comparison(change: Callable[[dict[str, Any]], None]) -> Callable[[Run], None]:
    return lambda run: edit(run.comparison / "comparison.json", change)


def student(**values: Any) -> Callable[[Run], None]:
    return comparison(lambda c: c["students"][0].update(values))


def distilled(**values: Any) -> Callable[[Run], None]:
    return comparison(lambda c: c["students"][0]["distilled"].update(values))


def agreement(train_views: float, val: float, test: float) -> Callable[[Run], None]:
    return distilled(agreement={"train_views": train_views, "val": val, "test": test})


def curves(losses: list[float]) -> Callable[[Run], None]:
    """Training loss and val NLL of every training."""
    lines = "".join(
        json.dumps({"step": n, "epoch": n, "loss": value, "val_nll": value, "val_accuracy": 0.5}) + "\n"
        for n, value in enumerate(losses)
    )

    def change(run: Run) -> None:
        for path in run.students.rglob("metrics.jsonl"):
            path.write_text(lines, "utf-8")

    return change


def both(*changes: Callable[[Run], None]) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        for one in changes:
            one(run)

    return change


def bits(run: Run) -> None:
    edit_settings(run.path, lambda text: re.sub(r"duplicate_bits = \d+", "duplicate_bits = -1", text))


def counts(**values: int) -> Callable[[Run], None]:
    return lambda run: edit(run.images / "done.json", lambda facts: facts["counts"].update(values))


def fewer_photos_of_a_class(run: Run) -> None:
    path = run.images / "images.csv"
    lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines if not re.match(r"\d+,train/ant/", line) or line.startswith("0,")]
    path.write_text("\n".join(kept) + "\n", "utf-8")


def unlike(run: Run) -> None:
    counts(unlabeled=5)(run)
    (run.teacher / "unlike.csv").write_text("row,path,similarity\n0,a.jpg,-0.2\n1,b.jpg,0.1\n2,c.jpg,0.15\n")


def suspects(run: Run) -> None:
    labels = np.repeat(np.arange(3), 10)
    logits = np.where(labels[:, None] == np.arange(3), 4.0, -4.0)
    logits[0] = logits[-1]
    np.savez(run.teacher / "out_of_fold.npz", row=np.arange(30), labels=labels, logits=logits)


WORSE = {"name": "ant", "photos": 200, "teacher": 0.9, "distilled": 0.6, "alone": 0.9}

PLACED = {"class_name": "ant", "recall": 0.9, "val_photos": 500, "low": 0.87, "high": 0.93}
FOUND = {
    "thresholds": [0.2, 0.2],
    "recall": {"value": 0.8, "low": 0.75, "high": 0.85},
    "false_alarms": {"value": 0.1, "low": 0.05, "high": 0.15},
    "precision": None,
}

CASES: dict[str, tuple[Callable[[Run], None], str]] = {
    "KD001": (student(difference={"value": 0.01, "low": -0.01, "high": 0.03}), r"\+1\.0 points \(-1\.0 to \+3\.0\)"),
    "KD002": (student(difference={"value": -0.02, "low": -0.03, "high": -0.01}), r"-2\.0 points .* Use the twin"),
    "KD003": (comparison(lambda c: c["teacher"]["accuracy"].update(value=0.7)), r"teacher 70\.0 %"),
    "KD004": (comparison(lambda c: c.update(test_per_class=[29, 271, 300])), r"ant: fewer than 30 .* has 29"),
    "KD005": (lambda run: reject(run, "in_test", 4), "4 photos of train or val"),
    "KD006": (lambda run: reject(run, "two_classes", 2), "2 files are in more than one class"),
    "KD007": (distilled(ece_scaled=0.12), r"12\.0 points on average"),
    "KD008": (comparison(lambda c: c.update(seeds=1)), "--seeds 3"),
    "KD009": (counts(val=40), "40 photos choose"),
    "KD010": (
        comparison(lambda c: c["students"][0]["distilled"]["recipe"].update(epochs=2)),
        "2 epochs only show",
    ),
    "KD011": (distilled(accuracy={"value": 0.9, "low": 0.3, "high": 0.95}), r"most common class .* 33\.3 %"),
    "KD012": (suspects, "1 training photo the teacher"),
    "KD013": (fewer_photos_of_a_class, "bee has 10 training photos, ant 1"),
    "KD014": (student(per_class=[WORSE]), r"ant \(-30\.0 on 200 photos\)"),
    "KD015": (distilled(accuracy={"value": 0.6, "low": 0.55, "high": 0.65}), r"90\.0 % on val and 60\.0 % on test"),
    "KD016": (
        lambda run: export_json(run, status="failed", reason="loses 4.0 points", file=None),
        "student-0 as onnx int8: loses 4.0 points. No file was left",
    ),
    "KD018": (lambda run: reject(run, "corrupt", 100), "12.0 % of all files, mostly: corrupt"),
    "KD019": (bits, "duplicate_bits is -1"),
    "KD020": (agreement(0.97, 0.87, 0.88), r"97\.0 % of train views and on 87\.9 % of new photos"),
    "KD021": (both(agreement(0.9, 0.88, 0.88), curves([2.0, 1.0, 0.9, 0.8])), "still falling: train it longer"),
    "KD022": (both(agreement(0.9, 0.88, 0.88), curves([2.0, 1.0, 0.995, 0.99])), "no longer fell: a larger student"),
    "KD023": (
        student(agreement_difference={"value": 0.003, "low": -0.01, "high": 0.02}),
        r"its twin, which never met it, on 96\.0 %: \+0\.3 points \(-1\.0 to \+2\.0\)",
    ),
    "KD024": (unlike, "3 of 5 resemble none"),
    "KD025": (
        comparison(lambda c: c.update(operating_point={**PLACED, "val_photos": 19, "low": 0.82, "high": 0.99})),
        r"to find 90\.0 % rests on 19 val photos of ant.* finds 82 to 99 % of new photos",
    ),
    "KD026": (
        both(comparison(lambda c: c.update(operating_point=PLACED)), distilled(operating=FOUND)),
        r"finds 80\.0 % \(75\.0 to 85\.0\) of the test photos of ant; its threshold was to find 90\.0 %",
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_a_finding_is_raised_by_its_numbers_and_says_them(calm: Run, code: str) -> None:
    change, message = CASES[code]
    change(calm)
    found = {finding.code: finding.message for finding in find(RunFiles(calm), 0)}
    assert code in found
    assert re.search(message, found[code]), found[code]
    allowed = {"KD012": {"KD012"}, "KD011": {"KD011"}}.get(code, {code})
    assert set(found) == allowed


def test_where_the_teacher_is_no_better_nothing_else_is_said_to_be_missing(calm: Run) -> None:
    agreement(0.97, 0.87, 0.88)(calm)
    comparison(lambda c: c["teacher"]["accuracy"].update(value=0.7))(calm)
    assert codes(calm) == ["KD003"]


def test_a_student_that_learned_without_its_teacher_need_not_follow_it(calm: Run) -> None:
    agreement(0.97, 0.87, 0.88)(calm)
    student(agreement_difference={"value": 0.0, "low": 0.0, "high": 0.0})(calm)
    comparison(lambda c: c["students"][0]["distilled"]["recipe"].update(distill_weight=0.0, feature_weight=0.0))(calm)
    assert codes(calm) == []


@pytest.mark.parametrize("place", ["train_views", "val"])
def test_where_agreement_was_not_measured_there_is_no_diagnosis(calm: Run, place: str) -> None:
    shares: dict[str, float | None] = {"train_views": 0.97, "val": 0.87, "test": 0.88, place: None}
    distilled(agreement=shares)(calm)
    assert codes(calm) == []


@pytest.mark.parametrize(
    ("on_train", "views", "on_new", "photos", "missing"),
    [
        (0.97, 1000, 0.88, 1000, "photos"),
        (0.955, 1000, 0.925, 1000, "photos"),
        (0.97, 1000, 0.94, 1000, "nothing"),  # within two standard errors of 95 %
        (0.97, 1000, 0.94, 9000, "photos"),  # and with more photos not
        (0.90, 1000, 0.75, 1000, "photos"),  # most of the disagreement is on new photos only
        (0.90, 1000, 0.86, 1000, "size"),
        (0.90, 1000, 0.91, 1000, "size"),
        (0.94, 1000, 0.92, 1000, "nothing"),  # neither is measurably wrong
        (0.94, 40, 0.80, 40, "nothing"),
        (1.0, 40, 0.80, 40, "photos"),
    ],
)
def test_what_is_missing_is_where_most_of_the_disagreement_is(
    on_train: float, views: int, on_new: float, photos: int, missing: str
) -> None:
    assert what_is_missing(on_train, views, on_new, photos) == missing


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (comparison(lambda c: c["students"][0]["distilled"]["recipe"].update(epochs=2)), "KD010"),
        (distilled(accuracy={"value": 0.9, "low": 0.3, "high": 0.95}), "KD011"),
        (
            both(
                comparison(lambda c: c["students"][0]["distilled"]["recipe"].update(epochs=2)),
                distilled(accuracy={"value": 0.9, "low": 0.3, "high": 0.95}),
            ),
            "KD010",
        ),
    ],
)
def test_of_a_student_that_was_not_trained_only_the_cause_is_said(
    calm: Run, cause: Callable[[Run], None], code: str
) -> None:
    both(*(CASES[other][0] for other in ("KD022", "KD023")))(calm)
    assert set(codes(calm)) == {"KD022", "KD023"}, "of one that was"
    cause(calm)
    assert codes(calm) == [code]


def test_a_loss_that_rose_once_is_no_longer_falling(calm: Run) -> None:
    both(agreement(0.9, 0.88, 0.88), curves([2.0, 1.0, 0.8, 0.9]))(calm)
    assert codes(calm) == ["KD022"]


def test_many_students_are_a_finding(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    run = slim_copy(tiny_run.path, tmp_path / "many")
    grow(run, classes=["ant", "bee", "cow"], students=5, photos=600)
    assert codes(run) == ["KD017"]


def test_contradicted_test_labels_are_a_finding(calm: Run) -> None:
    assert codes(calm, wrong=2) == ["KD012"]


def test_an_export_that_is_right_is_none(calm: Run) -> None:
    export_json(calm)
    assert codes(calm) == []


def test_the_gravest_come_first(calm: Run) -> None:
    reject(calm, "in_test", 1)
    student(difference={"value": -0.02, "low": -0.03, "high": -0.01})(calm)
    comparison(lambda c: c.update(seeds=1))(calm)
    assert codes(calm) == ["KD002", "KD008", "KD005"]


def test_every_code_has_a_test_and_a_section_with_its_title_level_and_advice() -> None:
    assert {*CASES, "KD017"} == set(TITLES)
    text = DOCS.read_text("utf-8")
    sections = dict(re.findall(r"^## (KD\d{3} · .*?)\n(.*?)(?=^## |\Z)", text, re.S | re.M))
    assert list(sections) == [f"{code} · {title}" for code, (_, title) in TITLES.items()]
    for heading, body in sections.items():
        level = TITLES[heading[:5]][0]
        assert body.strip().startswith(f"*{level}.*"), f"{heading} must begin with its level"
        assert "**What to do.**" in body
        assert "**Found when**" in body
