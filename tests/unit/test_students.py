"""What a student's recipe is by rule, before any pilot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support import context_of
from tests.unit.test_planning import config_of, folder_of

from potstill.config.load import from_mapping
from potstill.images.folder import Folder, PhotoFile
from potstill.monitoring.progress import Reporter
from potstill.planning import batch_size, make_plan, num_epochs, num_views, parse_students
from potstill.run.folder import Run
from potstill.students.plan import SoftLabelFacts
from potstill.students.recipe import Job, Recipe
from potstill.students.stage import _Training


@pytest.mark.parametrize(
    ("settings", "photos", "expected"),
    [
        ({"student.weights": "auto"}, 1500, 64),
        ({"student.weights": "none"}, 1500, 16),
        ({"student.weights": "none", "student.method": "dist"}, 1500, 64),
        ({"student.weights": "none", "student.batch_size": 48}, 1500, 48),
        ({"student.weights": "none"}, 100, 12),
        ({"student.weights": "auto"}, 100, 12),
        ({"student.weights": "auto"}, 20, 8),
    ],
)
def test_batches_are_smaller_from_scratch_and_of_few_photos(
    settings: dict[str, object], photos: int, expected: int
) -> None:
    config = from_mapping({"student.models": ["mobilenetv1_025"], **settings})
    (spec,) = parse_students(config)
    assert batch_size(spec, config, photos) == expected


@pytest.mark.parametrize(
    ("settings", "photos", "with_pool", "all_labeled", "views"),
    [
        ({"student.weights": "auto"}, 1200, 50, 150, 24),
        ({"student.weights": "none"}, 1200, 100, 100, 24),
        ({"student.weights": "auto"}, 4000, 19, 57, 15),
        ({"student.weights": "none"}, 4000, 38, 38, 15),
        ({"student.weights": "auto"}, 50, 200, 200, 24),
        ({"student.weights": "none"}, 50, 200, 200, 24),
        ({"student.weights": "auto"}, 6800, 15, 44, 9),
        ({"student.weights": "auto"}, 100_000, 10, 11, 4),
        ({"student.weights": "auto", "student.patience": 3.0}, 4000, 57, 171, 15),
        ({"student.weights": "auto", "student.epochs": 6, "student.patience": 3.0}, 1200, 6, 6, 6),
        ({"student.weights": "none", "student.epochs": 6}, 1200, 6, 6, 6),
    ],
)
def test_epochs_follow_photos_labels_and_starting_weights_and_views_only_photos(
    settings: dict[str, object], photos: int, with_pool: int, all_labeled: int, views: int
) -> None:
    config = from_mapping({"student.models": ["mobilenetv1_025"], **settings})
    (spec,) = parse_students(config)
    assert num_epochs(spec, config, photos, all_labeled=False) == with_pool
    assert num_epochs(spec, config, photos, all_labeled=True) == all_labeled
    assert num_views(config, photos) == views


TWIN = Recipe(epochs=1, batch_size=8, lr=1e-3, weight_decay=0.0, ema=0.0, dtype="float32", soft_labels="")
FACTS = SoftLabelFacts(confidence=0.9, label_noise=0.0, fine_tuned=False, has_unlabeled=False)
STUDENT = replace(TWIN, distill_weight=1.0, feature_weight=1.0)


def _pilot(folder: Path, recipe: Recipe, right: np.ndarray) -> Job:
    """A finished pilot that is right on these of 200 val photos of two classes, always as sure."""
    labels = np.arange(200) % 2
    answers = np.where(right, labels, 1 - labels)
    folder.mkdir()
    np.savez(folder / "val_predictions.npz", logits=2.0 * np.eye(2)[answers], labels=labels)
    return Job(folder, "mobilenetv1_025", 32, "none", 0, recipe)


def _training(folder: Path, settings: dict[str, object]) -> _Training:
    """Of one student, before anything is trained."""
    config = from_mapping({"student.models": ["mobilenetv1_025"], "teacher.model": ["resnet18"], **settings})
    photos = Folder(folder, ("a", "b"), (PhotoFile(folder / "1.png", "train", 0),), flat=False)
    plan = make_plan(photos, config).students
    return _Training(plan.students[0], plan, None, context_of(Run(folder)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "student_right", "doubt"),
    [
        ({}, 180, False),
        ({}, 158, False),  # two photos behind: noise
        ({}, 120, True),
        ({"student.distill_weight": 1.0, "student.feature_weight": 1.0}, 120, False),  # as the user set it
    ],
)
def test_a_teacher_whose_pilots_are_worse_is_in_doubt_where_weights_are_auto(
    tmp_path: Path, settings: dict[str, object], student_right: int, doubt: bool
) -> None:
    pilots = _both_arms(tmp_path, student_right)
    training = _training(tmp_path, settings)
    assert training.doubts_teacher(pilots) == doubt
    assert not training.doubts_teacher({**pilots, "alone": []}), "nothing was tried"


@pytest.mark.parametrize(
    ("doubt", "student_right", "taught"),
    [
        (True, 180, True),  # short pilots were wrong about the teacher
        (True, 158, True),
        (True, 120, False),
        (False, 120, True),  # its pilots were better
    ],
)
def test_a_teacher_in_doubt_is_left_out_where_trainings_in_full_agree(
    tmp_path: Path, doubt: bool, student_right: int, taught: bool
) -> None:
    finals = _both_arms(tmp_path, student_right)
    finalists = {"distilled": [STUDENT], "alone": [TWIN]}
    distilled, alone = _training(tmp_path, {}).choose_finally(finalists, finals, doubt=doubt)
    assert alone == TWIN
    assert distilled == (STUDENT if taught else TWIN)


def _both_arms(folder: Path, student_right: int) -> dict[str, list[Job]]:
    """A finished training of each arm, of which the twin's is right on 160 photos, and each is wrong on others."""
    photos = np.arange(200)
    return {
        "distilled": [_pilot(folder / "distilled", STUDENT, photos < student_right)],
        "alone": [_pilot(folder / "alone", TWIN, photos >= 40)],
    }


def test_each_arm_takes_the_pilot_that_val_is_surest_of(tmp_path: Path) -> None:
    right = {0: 150, 1: 190, 2: 170}
    candidates = {
        "distilled": [replace(STUDENT, lr=lr) for lr in (1e-3, 2e-3, 3e-3)],
        "alone": [replace(TWIN, label_smoothing=share) for share in (0.0, 0.1, 0.2)],
    }
    training = _training(tmp_path, {})
    for arm, recipes in candidates.items():
        pilots = [
            _pilot(tmp_path / f"{arm}-{number}", recipe, np.arange(200) < right[number])
            for number, recipe in enumerate(recipes)
        ]
        assert training.choose(arm, recipes, pilots) == recipes[1]
        assert training.choose(arm, recipes, []) == recipes[0]


@pytest.mark.parametrize("right", [(150, 190), (190, 150)])
def test_the_student_takes_the_loss_weights_that_val_is_surest_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], right: tuple[int, int]
) -> None:
    training = _training(tmp_path, {})
    training = replace(training, context=replace(training.context, reporter=Reporter()))
    finalists = training.student.finalists(STUDENT, TWIN, FACTS)
    finals = [
        _pilot(tmp_path / f"distilled-final-{number}", recipe, np.arange(200) < correct)
        for number, (recipe, correct) in enumerate(zip(finalists, right, strict=True))
    ]
    found = training.choose_finally(
        {"distilled": finalists, "alone": [TWIN]}, {"distilled": finals, "alone": []}, doubt=False
    )
    assert found == (finalists[int(np.argmax(right))], TWIN)
    said = " ".join(capsys.readouterr().err.split())
    weights = ("1 distillation, 1 features, 1 labels", "0.5 distillation, 0 features, 1 labels")[int(np.argmax(right))]
    assert f"distilled, chosen on val: kl, T 1, weights {weights}" in said


def test_labels_may_count_for_more_where_all_photos_have_good_ones() -> None:
    best, twin = replace(STUDENT, lr=1e-3, temperature=2.0), replace(TWIN, lr=3e-3)
    (student,) = make_plan(folder_of(), config_of()).students.students
    first, second = student.finalists(best, twin, FACTS)
    assert first == best
    assert second == replace(best, lr=3e-3, distill_weight=0.5, feature_weight=0.0, task_weight=1.0)
    for facts in (replace(FACTS, has_unlabeled=True), replace(FACTS, label_noise=0.1)):
        assert student.finalists(best, twin, facts) == [best]
    for settings in ({"student.task_weight": 0.3}, {"student.pilot_share": 0.0}):
        (fixed,) = make_plan(folder_of(), config_of(**settings)).students.students
        assert fixed.finalists(best, twin, FACTS) == [best], "as the user set it"


@pytest.mark.parametrize(("right", "best"), [((150, 190, 170), 1), ((190, 150, 150), 0), ((170, 170, 150), 0)])
def test_the_twin_takes_the_length_that_val_is_surest_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], right: tuple[int, int, int], best: int
) -> None:
    training = _training(tmp_path, {"student.epochs": 100})
    training = replace(training, context=replace(training.context, reporter=Reporter()))
    lengths = [
        _pilot(tmp_path / f"alone-{epochs}-epochs", replace(TWIN, epochs=epochs), np.arange(200) < correct)
        for epochs, correct in zip((100, 33, 11), right, strict=True)
    ]
    recipes = [job.recipe for job in lengths]
    found = training.choose_finally(
        {"distilled": [STUDENT], "alone": recipes}, {"distilled": [], "alone": lengths}, doubt=False
    )
    assert found == (STUDENT, recipes[best])
    said = " ".join(capsys.readouterr().err.split())
    assert f"alone, chosen on val: {('100%', '33%', '11%')[best]} of the student's steps (NLL 0." in said


@pytest.mark.parametrize(
    ("shares", "epochs", "expected"),
    [
        ([0.11, 1.0, 0.33], 50, [50, 16, 6]),
        ([1.0, 0.33, 0.11], 3, [3, 1]),
        ([0.5], 50, [25]),
        ([1.0], 50, [50]),
    ],
)
def test_the_twin_tries_lengths_with_the_same_recipe(
    tmp_path: Path, shares: list[float], epochs: int, expected: list[int]
) -> None:
    plan = _training(tmp_path, {"twin.length_shares": shares, "student.epochs": epochs}).student
    twin = plan.alone(FACTS)[1]
    assert plan.lengths(twin) == [replace(twin, epochs=count) for count in expected]
    finalists = {"distilled": [STUDENT], "alone": plan.lengths(twin)}
    finals = _training(tmp_path, {})._finals(finalists, doubt=False)
    assert finals["distilled"] == []
    jobs = finals["alone"]
    assert len(jobs) == (0 if len(expected) == 1 else len(expected))
    assert all(job.seed == 0 for job in jobs)


def test_candidates_of_the_twin_have_the_students_schedule(tmp_path: Path) -> None:
    settings = {"student.lr_factors": [1.0, 0.5], "twin.label_smoothing": [0.0, 0.1]}
    shared = replace(TWIN, epochs=7, batch_size=16, weight_decay=0.02, ema=0.99, crop_pct=0.9)
    twins = replace(_training(tmp_path, settings).student, shared=shared).alone(FACTS)
    assert {(twin.lr, twin.label_smoothing) for twin in twins} == {(r, s) for r in (1e-3, 5e-4) for s in (0.0, 0.1)}
    assert {replace(twin, lr=1e-3, label_smoothing=0.0) for twin in twins} == {shared}
