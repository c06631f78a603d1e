"""The verdict in words, and which student is deployed."""

from pathlib import Path

import numpy as np
import pytest

from potstill.comparison.stage import beside_teacher, choose, verdict
from potstill.metrics import Interval
from potstill.run.files import write_json
from potstill.run.folder import Run


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (Interval(0.02, 0.005, 0.035), "Distillation made s better: +2.0 points (+0.5 to +3.5), 20% fewer errors"),
        (Interval(0.02, -0.001, 0.041), "No gain measured for s: +2.0 points (-0.1 to +4.1)"),
        (Interval(0.0, 0.0, 0.0), "No gain measured for s"),
        (Interval(-0.02, -0.03, -0.01), "Distillation made s worse: -2.0 points"),
    ],
)
def test_a_gain_is_claimed_only_when_the_whole_interval_is_above_zero(interval: Interval, expected: str) -> None:
    text = verdict("s", interval, 0.2, 0.03, "500 test photos", 3)
    assert text.startswith(expected)
    assert "500 test photos, 3 seeds" in text


@pytest.mark.parametrize("interval", [Interval(0.02, 0.005, 0.035), Interval(-0.02, -0.03, -0.01)])
def test_one_seed_is_not_called_the_last_word(interval: Interval) -> None:
    text = verdict("s", interval, 0.2, 0.03, "500 test photos", 1)
    assert "may differ by luck" in text
    assert "Use the twin" not in text


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (Interval(-0.02, -0.03, -0.001), ""),
        (
            Interval(-0.01, -0.03, 0.01),
            " No difference to its teacher measured: -1.0 points (-3.0 to +1.0), at 1/29 of",
        ),
        (
            Interval(0.02, 0.01, 0.03),
            " It is more accurate than its teacher: +2.0 points (+1.0 to +3.0), at 1/29 of",
        ),
    ],
)
def test_a_student_that_does_not_lag_behind_its_teacher_is_said_to(behind: Interval, expected: str) -> None:
    assert beside_teacher(behind, 28.6).startswith(expected) if expected else not beside_teacher(behind, 28.6)
    assert beside_teacher(behind, 0.5) == "", "a teacher that is smaller than its student is no news"


def _finished(run: Run, name: str, accuracies: list[float]) -> None:
    for seed, accuracy in enumerate(accuracies):
        facts = {"val_accuracy": accuracy, "val_nll_scaled": 0.3, "steps": 10, "seconds": 1.0}
        write_json(run.students / name / f"seed-{seed}" / "distilled" / "done.json", facts)


def test_the_cheapest_student_within_one_standard_error_is_chosen_on_val(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.soft_labels.mkdir(parents=True)
    np.save(run.soft_labels / "val_logits.npy", np.zeros((100, 3), np.float32))
    for name, accuracies in (("large", [0.90, 0.92]), ("middle", [0.89, 0.89]), ("small", [0.80, 0.82])):
        _finished(run, name, accuracies)
    chosen = choose(run, {"large": 300, "middle": 50, "small": 10}, seeds=2)
    assert chosen.name == "middle"  # 0.89 is within 0.029 of 0.91; 0.81 is not
    assert chosen.reason.startswith("accuracy 89.0% on 100 val photos")


def test_the_only_student_is_chosen(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.soft_labels.mkdir(parents=True)
    np.save(run.soft_labels / "val_logits.npy", np.zeros((10, 3), np.float32))
    _finished(run, "one", [0.5])
    assert choose(run, {"one": 1}, seeds=1).name == "one"
