"""How far a whole run is: parts with expected times, corrected by the measured pace."""

import pytest

from potstill.monitoring.overall import Part, WholeRun

PARTS = (
    Part("photos", "1_images", 10),
    Part("features", "2_teacher", 40),
    Part("fine-tuning", "2_teacher", 300),
    Part("pilots", "4_students", 50),
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def whole_run(*parts: Part) -> tuple[WholeRun, Clock]:
    clock = Clock()
    return WholeRun(parts, clock), clock


def test_before_anything_is_measured_the_expectation_counts() -> None:
    whole, clock = whole_run(*PARTS)
    assert whole.left == 400
    whole.begin("photos")
    clock.now += 4
    assert whole.left == 396
    clock.now += 60
    assert whole.left == 390, "a part that takes longer than expected is not over before it says so"


def test_a_part_that_is_not_needed_drops_out_when_a_later_one_begins() -> None:
    whole, _ = whole_run(*PARTS)
    whole.begin("features")
    assert whole.left == 390
    whole.begin("pilots")
    assert whole.left == 50
    assert whole.part == PARTS[3]


def test_what_earlier_stages_did_not_need_drops_out_when_a_stage_begins() -> None:
    whole, _ = whole_run(*PARTS)
    whole.begin("features")
    whole.skip_to("2_teacher")
    assert whole.left == 390
    assert whole.part == PARTS[1], "the stage itself goes on"
    whole.skip_to("4_students")
    assert whole.left == 50
    assert whole.part is None


def test_the_measured_pace_corrects_this_part_and_all_that_follow() -> None:
    whole, clock = whole_run(Part("features", "2_teacher", 100), Part("soft labels", "3_soft_labels", 300))
    whole.begin("features")
    whole.update(0.0)
    clock.now += 7  # starting up says nothing of the pace
    whole.update(0.1)
    clock.now += 160
    whole.update(0.9)
    pace = (160 + 60) / (80 + 60)
    assert whole.left == pytest.approx(300 * pace + 0.1 * (160 + 15 * pace) / (0.8 + 0.15))
    before = whole.left
    whole.begin("soft labels")
    assert whole.left == pytest.approx(300 * pace)
    assert whole.left < before


def test_bars_of_a_resumed_part_do_not_count_what_was_done_before_as_fast() -> None:
    whole, clock = whole_run(Part("features", "2_teacher", 100))
    whole.begin("features")
    whole.update(0.9)
    clock.now += 5
    whole.update(0.95)
    assert whole.left == pytest.approx(5, rel=0.1)


def test_two_students_have_parts_of_the_same_names_and_unexpected_parts_are_taken() -> None:
    twice = (Part("pilots", "4_students", 10), Part("twin", "4_students", 20)) * 2
    whole, clock = whole_run(*twice)
    whole.begin("pilots")
    whole.begin("pilots")
    assert whole.left == 60, "the same part goes on"
    whole.begin("twin")
    clock.now += 3
    whole.begin("something else")
    assert whole.left == 30
    whole.begin("pilots")
    assert whole.left == 30
    whole.begin("twin")
    assert whole.left == 20
    assert whole.measured[1] == 3
    whole.close()
    assert whole.left == 0
    assert whole.share == 1.0
