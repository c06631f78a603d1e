"""What a run will take: every part that stages begin is expected, and the largest come with what makes them shorter."""

import re

import pytest
from tests.unit.test_planning import config_of, folder_of

import potstill
from potstill.compute.machine import Machine
from potstill.compute.precision import Precision
from potstill.estimate import FINE_TUNING, NAMES, TEST, Estimate, estimate
from potstill.planning import Plan, make_plan
from potstill.run.files import read_json

MACHINE = Machine("cpu", 2, 2)


def names_of(parts: list[dict[str, object]]) -> list[object]:
    return [part["name"] for part in parts]


def test_a_run_begins_the_parts_that_were_expected_and_no_others(tiny_run: "potstill.Result") -> None:
    noted = read_json(tiny_run.path / "progress.json")
    assert noted["state"] == "finished"
    assert names_of(noted["parts"]) == [
        "photos",
        "measure teacher",
        "features",
        "head",
        "fold heads",
        "soft labels",
        "measure student",
        "views",
        "trainings",
        "test photos",
        "train views",
    ]
    assert all(part["seconds"] is not None for part in noted["parts"]), noted["parts"]


@pytest.fixture(scope="module")
def long() -> Estimate:
    """Of a run with pilots, lengths of the twin, and a teacher that may be fine-tuned."""
    return estimate(make_plan(folder_of(train=3000), config_of()), MACHINE)


def test_fine_tuning_that_is_perhaps_not_needed_is_counted_apart(long: Estimate) -> None:
    assert {part.name for part in long.parts} == NAMES.keys() - {"unlike photos"}
    certain = sum(part.seconds for part in long.parts if part.name != FINE_TUNING)
    assert long.total == pytest.approx(certain)
    assert long.fine_tuning > 0
    assert re.search(
        r"^About .*; .* more if the teacher has to be fine-tuned \(--teacher.train probe: never\)$", long.lines()[0]
    )
    set_up = make_plan(folder_of(train=3000), config_of(**{"teacher.train": "finetune"}))
    tuned = estimate(set_up, MACHINE)
    assert tuned.fine_tuning == 0
    assert tuned.total == pytest.approx(sum(part.seconds for part in tuned.parts))


def test_the_largest_parts_are_named_with_what_makes_them_shorter(long: Estimate) -> None:
    largest = [line for line in long.lines() if line.startswith(("Largest part: ", "Then: "))]
    assert largest
    assert largest[0].startswith("Largest part: ")
    assert all(" --" in line for line in largest)


def test_what_is_finished_takes_no_time() -> None:
    plan = make_plan(folder_of(), config_of())
    left = estimate(plan, MACHINE, ["1_images", "2_teacher", "3_soft_labels", plan.students.students[0].name])
    assert {part.stage for part in left.parts} == {"5_comparison"}


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model has the same speed: two timings on a busy machine differ."""
    speeds = {"float32": 100.0}
    monkeypatch.setattr("potstill.estimate.fastest_precision", lambda *_, **__: (Precision.on("cpu"), speeds))


@pytest.mark.usefixtures("even")
def test_trainings_that_run_one_by_one_need_no_processes() -> None:
    """On one core a training is run in the process that is there."""
    plan = make_plan(folder_of(train=100), config_of(seeds=1, **{"student.epochs": 1, "student.pilot_share": 0.0}))
    finished = ["1_images", "2_teacher", "3_soft_labels"]
    alone, beside = (
        sum(p.seconds for p in estimate(plan, Machine("cpu", n, n), finished).parts if p.stage == "4_students")
        for n in (1, 2)
    )
    assert alone < beside


@pytest.mark.usefixtures("even")
def test_more_test_photos_take_longer() -> None:
    few, many = (
        sum(p.seconds for p in estimate(make_plan(folder_of(test=n), config_of()), MACHINE).parts if p.name == TEST)
        for n in (20, 20_000)
    )
    assert many > few + 10


@pytest.mark.usefixtures("even")
def test_more_seeds_take_longer() -> None:
    one, three = (
        sum(p.seconds for p in estimate(make_plan(folder_of(), config_of(seeds=n)), MACHINE, ["3_soft_labels"]).parts)
        for n in (1, 3)
    )
    assert three > 1.5 * one


@pytest.mark.usefixtures("even")
def test_without_twins_less_is_trained_and_nothing_is_compared() -> None:
    whole, first = (make_plan(folder_of(), config_of(), twins=twins) for twins in (True, False))
    parts, fewer = (estimate(plan, MACHINE, ["3_soft_labels"]).parts for plan in (whole, first))
    whole_seconds, fewer_seconds = (
        sum(part.seconds for part in each if part.name in ("finals", "trainings")) for each in (parts, fewer)
    )
    assert fewer_seconds < 0.7 * whole_seconds
    assert {part.stage for part in parts} - {part.stage for part in fewer} == {"5_comparison"}
    assert "distilled, without its twin" in first.lines()[-1]
    assert first.for_photos(100).students.twins is False
    assert not any("twin" in hint for hint in estimate(first, MACHINE).hints.values())


@pytest.mark.usefixtures("even")
def test_trainings_that_choose_loss_weights_are_expected_where_all_photos_are_labeled() -> None:
    """Also once it is known that a few of the photos cannot be used."""
    one_by_one, finished = Machine("cpu", 1, 1), ["3_soft_labels"]
    labeled = make_plan(folder_of(), config_of())
    pool = make_plan(folder_of(), config_of(**{"images.per_class": 10}))
    packed = labeled.for_photos(labeled.train_photos - 3)
    assert not labeled.has_unlabeled
    assert not packed.has_unlabeled

    def in_finals(plan: Plan) -> float:
        return sum(part.seconds for part in estimate(plan, one_by_one, finished).parts if part.name == "finals")

    # Two of the student beside the twin's lengths, instead of one with each of three seeds.
    assert pool.has_unlabeled
    assert in_finals(pool) > in_finals(labeled) > 0
    assert in_finals(packed) == pytest.approx(in_finals(labeled), rel=0.1)
