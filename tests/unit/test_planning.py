"""The plan: decided from names alone, printable, and what every stage is given."""

from dataclasses import replace
from pathlib import Path

import pytest

from potstill.config.load import from_mapping
from potstill.config.schema import Config
from potstill.errors import ConfigError, ModelError
from potstill.images.earlier import EarlierPhotos
from potstill.images.folder import Folder, PhotoFile
from potstill.planning import (
    expected_labeled_photos,
    expected_test_photos,
    expected_train_photos,
    make_plan,
    with_students,
)
from potstill.students.plan import SoftLabelFacts


def folder_of(classes: int = 3, train: int = 100, test: int = 20, *, flat: bool = False) -> Folder:
    """A folder by names only: planning opens no file."""
    names = tuple(f"class-{number}" for number in range(classes))
    files = [PhotoFile(Path(f"{n}.jpg"), None if flat else "train", n % classes) for n in range(train)]
    files += [PhotoFile(Path(f"t{n}.jpg"), None if flat else "test", n % classes) for n in range(test)]
    return Folder(Path("photos"), names, tuple(files), flat)


def config_of(**settings: object) -> Config:
    return from_mapping({"teacher.model": ["resnet18"], "student.models": ["mobilenetv1_025"], **settings})


def test_train_photos_are_those_that_are_neither_test_nor_val() -> None:
    assert expected_train_photos(folder_of(), config_of()) == 85
    assert expected_train_photos(folder_of(flat=True), config_of(**{"images.test_share": 0.5})) == 51


def test_added_photos_count_beside_those_of_the_run() -> None:
    counts = {"train": 40, "val": 9, "test": 24, "unlabeled": 5}
    for share, labeled, tested in ((0.0, 142, 24), (0.2, 121, 48)):
        earlier = EarlierPhotos(Path("run"), ("a", "b", "c"), counts, share)  # type: ignore[arg-type]
        folder = replace(folder_of(flat=True), earlier=earlier)
        assert expected_labeled_photos(folder, config_of()) == labeled
        assert expected_train_photos(folder, config_of()) == labeled + 5
        assert expected_test_photos(folder, config_of()) == tested


def test_val_folders_and_left_out_photos_are_not_trained_on_and_unlabeled_ones_are() -> None:
    folder = folder_of()
    val = tuple(PhotoFile(Path(f"v{n}.jpg"), "val", n % 3) for n in range(60))
    unlabeled = tuple(PhotoFile(Path(f"u{n}.jpg"), "unlabeled", -1) for n in range(7))
    more = Folder(folder.root, folder.classes, folder.files + val + unlabeled, flat=False)
    assert expected_train_photos(more, config_of()) == 107, "all of train where there is a val folder"
    few = {"images.per_class": 5}
    assert expected_train_photos(folder, config_of(**few)) == 85, "the others are labeled by the teacher"
    assert expected_train_photos(folder, config_of(**few, **{"images.rest": "out"})) == 15


def test_what_changes_once_the_photos_are_packed_is_told() -> None:
    plan = make_plan(folder_of(train=10_000), config_of())
    assert plan.for_photos(plan.train_photos).changes(plan) == []
    soft_labels, student = plan.for_photos(1200).changes(plan)
    assert soft_labels == "Soft labels: 24 views of each photo"
    assert "150 epochs" in student


def test_every_stage_gets_what_was_decided() -> None:
    plan = make_plan(folder_of(), config_of(**{"teacher.size": 64, "student.models": ["mobilenetv1_025@96"]}))
    (student,) = plan.students.students
    assert plan.teacher.sizes == (64,)
    assert student.input_size == plan.images.largest_size == 96
    assert plan.images.short_side == round(1.15 * 96)
    assert plan.soft_labels.num_views == 24
    assert student.shared.epochs == 200
    assert plan.comparison.seeds == plan.students.seeds == 3
    assert set(plan.disk) == {"photos", "teacher's features", "soft labels", "rendered views"}
    assert all(size > 0 for size in plan.disk.values())


def test_the_number_of_packed_photos_decides_where_it_is_known() -> None:
    folder, config = folder_of(train=10_000), config_of()
    expected, packed = make_plan(folder, config), make_plan(folder, config, train_photos=1200)
    assert expected.students.students[0].shared.epochs == 39
    assert packed.students.students[0].shared.epochs == 150
    assert (packed.train_photos, packed.soft_labels.num_views) == (1200, 24)


@pytest.mark.parametrize(
    ("settings", "epochs", "pilot_epochs"),
    [
        ({}, 150, 15),
        ({"images.per_class": 10}, 50, 15),
        ({"student.epochs": 20}, 20, 6),
        ({"student.patience": 2.0}, 300, 30),
        ({"student.pilot_share": 0.0}, 150, 0),
    ],
)
def test_where_all_photos_are_labeled_trainings_are_longer_but_pilots_are_not(
    settings: dict[str, object], epochs: int, pilot_epochs: int
) -> None:
    folder, config = folder_of(train=1412), config_of(**settings)
    (student,) = make_plan(folder, config, train_photos=1200).students.students
    assert (student.shared.epochs, student.pilot_epochs) == (epochs, pilot_epochs)


@pytest.mark.parametrize("difference", [-3, 0, 3])
def test_packed_photos_are_not_taken_for_unlabeled_ones(difference: int) -> None:
    """Some could not be used, or fewer were drawn for val than the share says."""
    labeled = make_plan(folder_of(train=1412), config_of())
    packed = labeled.for_photos(labeled.train_photos + difference)
    assert not packed.has_unlabeled
    assert packed.students.students[0].shared.epochs == 150
    assert not any("with a label" in line for line in packed.lines())


@pytest.mark.parametrize(("classes", "weight"), [(3, 1.0), (30, 0.5), (80, 0.25)])
def test_features_weigh_less_where_there_are_many_classes(classes: int, weight: float) -> None:
    plan = make_plan(folder_of(classes, train=classes), config_of())
    assert plan.students.students[0].distillation.feature_weight == weight


def facts_of(
    confidence: float = 0.9, label_noise: float = 0.0, fine_tuned: bool = False, has_unlabeled: bool = False
) -> SoftLabelFacts:
    return SoftLabelFacts(
        confidence=confidence, label_noise=label_noise, fine_tuned=fine_tuned, has_unlabeled=has_unlabeled
    )


def test_where_labels_are_wrong_the_student_learns_from_the_teacher_only() -> None:
    (student,) = make_plan(folder_of(), config_of()).students.students
    noisy = facts_of(label_noise=0.1)
    assert {recipe.task_weight for recipe in student.distilled(noisy)} == {0.0}
    assert {recipe.task_weight for recipe in student.distilled(facts_of(label_noise=0.05))} == {0.3}
    assert {recipe.label_smoothing for recipe in student.alone(noisy)} == {0.0, 0.1, 0.2}, (
        "the twin gets its remedy too"
    )
    (fixed,) = make_plan(folder_of(), config_of(**{"student.task_weight": 0.5})).students.students
    assert {recipe.task_weight for recipe in fixed.distilled(noisy)} == {0.5}, "what the user set is kept"


def test_a_last_stage_on_labels_follows_where_there_are_photos_without() -> None:
    (student,) = make_plan(folder_of(), config_of()).students.students
    pool, noisy = facts_of(has_unlabeled=True), facts_of(has_unlabeled=True, label_noise=0.1)
    assert {recipe.last_epochs for recipe in student.distilled(facts_of())} == {0}
    assert {recipe.last_epochs for recipe in student.distilled(pool)} == {6}
    assert {recipe.last_epochs for recipe in student.alone(pool)} == {0}, "the twin learns from labels all the time"
    assert {recipe.last_epochs for recipe in student.distilled(noisy)} == {0}
    (fixed,) = make_plan(folder_of(), config_of(**{"student.last_epochs": 2})).students.students
    assert {recipe.last_epochs for recipe in fixed.distilled(noisy)} == {2}


def test_features_of_networks_that_were_tuned_apart_are_not_learned() -> None:
    (student,) = make_plan(folder_of(), config_of()).students.students
    assert {recipe.feature_weight for recipe in student.distilled(facts_of(fine_tuned=True))} == {0.0}
    (fixed,) = make_plan(folder_of(), config_of(**{"student.feature_weight": 0.5})).students.students
    assert {recipe.feature_weight for recipe in fixed.distilled(facts_of(fine_tuned=True))} == {0.5}


def test_the_temperature_is_left_open_until_the_teacher_is_trained() -> None:
    (student,) = make_plan(folder_of(), config_of()).students.students
    assert {recipe.temperature for recipe in student.distilled(facts_of(confidence=0.995))} == {4.0}
    (fixed,) = make_plan(folder_of(), config_of(**{"student.temperature": 2.5})).students.students
    assert {recipe.temperature for recipe in fixed.distilled(facts_of(confidence=0.995))} == {2.5}


def test_candidates_are_rates_and_with_a_search_a_softer_teacher_and_no_features() -> None:
    (student,) = make_plan(folder_of(), config_of()).students.students
    assert [recipe.lr for recipe in student.distilled(facts_of())] == pytest.approx([3e-3, 0.99e-3])
    assert len(student.alone(facts_of())) == 4, "two rates, with and without label smoothing"
    assert student.num_pilots == 6
    (searching,) = make_plan(folder_of(), config_of(**{"student.search": "weights"})).students.students
    extra = searching.distilled(facts_of())[2:]
    assert [(recipe.temperature, recipe.feature_weight) for recipe in extra] == [(2.0, 1.0), (1.0, 0.0)]
    (single,) = make_plan(folder_of(), config_of(**{"student.pilot_share": 0.0})).students.students
    assert single.num_pilots == 0


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([1.0, 0.33, 0.11], " (alone for 100, 33 or 11 epochs, chosen on val)"),
        ([0.5, 0.25], " (alone for 50 or 25 epochs, chosen on val)"),
        ([0.5], " (alone for 50 epochs)"),
        ([1.0], "distilled and alone"),
    ],
)
def test_lengths_that_the_twin_tries_are_named(shares: list[float], text: str) -> None:
    plan = make_plan(folder_of(), config_of(**{"twin.length_shares": shares, "student.epochs": 100}))
    assert plan.lines()[-1].endswith(text)


def test_a_method_that_needs_more_classes_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="needs at least 5 classes, there are 3"):
        make_plan(folder_of(3), config_of(**{"student.method": "dkd"}))
    assert make_plan(folder_of(5), config_of(**{"student.method": "dkd"}))


def test_unknown_models_are_refused() -> None:
    with pytest.raises(ModelError, match="There is no model 'mobilenet_v9'"):
        make_plan(folder_of(), config_of(**{"student.models": ["mobilenet_v9"]}))


def test_a_wrong_teacher_is_reported_before_candidates_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.planning.candidates", lambda *_: pytest.fail("a candidate was timed"))
    config = from_mapping({"teacher.model": ["resnet_18"], "budget.max_milliseconds": 5.0})
    with pytest.raises(ModelError, match="There is no model 'resnet_18'"):
        with_students(config, folder_of())


def test_without_students_there_is_the_default_one() -> None:
    config = with_students(from_mapping({"teacher.model": ["resnet18"]}), folder_of())
    assert config.student.models == ("mobilenetv3_small_100",)
    given = config_of()
    assert with_students(given, folder_of()) is given


def test_the_lines_say_what_each_stage_does() -> None:
    photos, teacher, soft_labels, student = make_plan(folder_of(), config_of(**{"student.weights": "none"})).lines()
    assert photos.startswith("Photos: 120 files in 3 classes, about 85 to train on")
    assert teacher == "Teacher: resnet18 at 224 px, linear probe, 5 folds; fine-tuned if that is better"
    assert soft_labels == "Soft labels: 24 views of each photo"
    assert student == (
        "Student: mobilenetv1_025 at 128 px, from scratch, 200 epochs in batches of 10, 6 pilots, then trained with 3 "
        "seeds, distilled and alone (alone for 200, 66, 22, 8 or 2 epochs, chosen on val)"
    )
