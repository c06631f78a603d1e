"""Losses for classes of unequal size, and settings that change nothing where they are not used."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.test_students import FACTS, STUDENT, TWIN, _pilot, _training

from potstill.config.load import from_mapping
from potstill.errors import ConfigError
from potstill.images.folder import Folder, PhotoFile
from potstill.models.classifier import describe
from potstill.planning import make_plan
from potstill.students.loss import Shares, _balanced_distill, balanced_task_loss
from potstill.students.recipe import Job
from potstill.training import losses

SHARES = torch.tensor([0.9, 0.1])


def test_adjusted_logits_of_equal_shares_are_the_same_predictions() -> None:
    logits = torch.randn(5, 4)
    equal = losses.adjusted(logits, torch.full((4,), 0.25))
    assert torch.allclose(equal.softmax(-1), logits.softmax(-1))


def test_the_minimum_of_the_adjusted_loss_predicts_as_if_classes_were_equally_frequent() -> None:
    targets = torch.tensor([[0.9, 0.1]])  # what is known of every photo: the shares
    logits = torch.zeros(1, 2, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        losses.task_loss(losses.adjusted(logits, SHARES), targets).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert logits.detach().softmax(-1)[0].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)


def test_weights_count_every_class_alike_and_have_the_mean_one() -> None:
    weights = losses.weights_of(torch.eye(2), SHARES)
    assert weights.tolist() == pytest.approx([1 / 1.8, 5.0])
    assert float((weights * SHARES).sum()) == pytest.approx(1)
    assert losses.weights_of(torch.tensor([[0.0, 0.0], [0.5, 0.5]]), SHARES).tolist() == pytest.approx(
        [0.0, (1 / 1.8 + 5) / 2]
    )


@pytest.mark.parametrize("balance", ["logit-adjusted", "weighted"])
def test_with_equal_shares_both_losses_are_the_plain_ones(balance: str) -> None:
    recipe, equal = replace(STUDENT, class_balance=balance, label_smoothing=0.1), torch.full((3,), 1 / 3)
    logits, teacher, targets = torch.randn(6, 3), torch.randn(6, 3), torch.eye(3)[[0, 1, 2, 0, 1, 2]]
    plain = losses.task_loss(logits, targets, label_smoothing=0.1)
    assert torch.allclose(balanced_task_loss(logits, targets, recipe, equal), plain, atol=1e-5)
    distilled = losses.distill_loss(logits, teacher, temperature=recipe.temperature)
    assert torch.allclose(_balanced_distill(recipe, logits, teacher, targets, equal), distilled, atol=1e-5)


def test_a_student_that_gives_the_teachers_probabilities_at_the_shares_of_the_classes_has_no_loss() -> None:
    recipe, teacher = replace(STUDENT, class_balance="logit-adjusted"), torch.randn(6, 2)
    student = teacher - SHARES.log()
    none = _balanced_distill(recipe, student, teacher, torch.zeros(6, 2), SHARES)
    assert torch.allclose(none, torch.zeros(6), atol=1e-6)


class _Stored:
    """Soft labels of 40 photos without mix-up, of which a quarter has a label."""

    photos = np.arange(40)
    views = np.zeros((40, 2))

    class logits:  # noqa: N801
        shape = (40, 2, 2)

        def __new__(cls, photo: np.ndarray, view: np.ndarray) -> np.ndarray:  # type: ignore[misc]
            return np.log(np.tile([0.7, 0.3], (len(photo), 1)))


def test_shares_are_those_of_the_labels_and_of_the_teachers_probabilities(tmp_path: Path) -> None:
    labels = np.array([0] * 8 + [1] * 2 + [-1] * 30)
    job = Job(tmp_path / "distilled", "m", 32, "none", 0, STUDENT)
    shares = Shares.of(job, _Stored(), labels)  # type: ignore[arg-type]
    assert shares.labels.tolist() == pytest.approx([0.8, 0.2])
    assert shares.teacher.tolist() == pytest.approx([0.7, 0.3], abs=1e-6)


def test_a_training_by_accuracy_has_the_inputs_that_it_always_had(tmp_path: Path) -> None:
    job = Job(tmp_path / "alone", "m", 32, "none", 0, replace(TWIN, operating_point="recall:a=0.9"))
    fields = {"metric", "class_balance", "operating_point", "compile"}
    assert job.inputs().keys() == {"model", "size", "weights", "seed"} | (asdict(TWIN).keys() - fields)
    other = replace(job, recipe=replace(TWIN, metric="balanced", class_balance="weighted"))
    assert other.inputs() == {**job.inputs(), "metric": "balanced", "class_balance": "weighted"}


def test_by_another_metric_student_and_twin_both_try_the_adjusted_loss(tmp_path: Path) -> None:
    for settings, expected in (
        ({}, {"none"}),
        ({"metric": "balanced"}, {"none", "logit-adjusted"}),
        ({"metric": "recall:b"}, {"none", "logit-adjusted"}),
        ({"metric": "macro-f1", "class_balance": "weighted"}, {"weighted"}),
        ({"class_balance": "logit-adjusted"}, {"logit-adjusted"}),
    ):
        student = _training(tmp_path, settings).student
        for candidates in (student.distilled(FACTS), student.alone(FACTS)):
            assert {recipe.class_balance for recipe in candidates} == expected
            assert len(candidates) == len(set(candidates))
        assert student.num_pilots == 6 * len(expected)


def test_a_rare_class_decides_by_balanced_accuracy_and_not_by_accuracy(tmp_path: Path) -> None:
    labels, place = np.repeat([0, 1], [180, 20]), np.concatenate([np.arange(180) / 180, np.arange(20) / 20])
    common, rare = place < np.where(labels == 0, 0.97, 0.2), place < np.where(labels == 0, 0.8, 0.9)
    for settings, best in (({}, 0), ({"metric": "balanced"}, 1), ({"metric": "recall:b"}, 1)):
        training = _training(tmp_path, settings)
        (tmp_path / "1_images").mkdir(exist_ok=True)
        (tmp_path / "1_images" / "classes.txt").write_text("a\nb\n")
        candidates = [replace(TWIN, lr=lr) for lr in (1e-3, 2e-3)]
        pilots = []
        for number, right in enumerate((common, rare)):
            folder = tmp_path / f"{number}-{settings.get('metric', '').replace(':', '')}"
            pilots.append(_pilot(folder, candidates[number], np.ones(200, bool)))
            predicted = np.where(right, labels, 1 - labels)
            np.savez(folder / "val_predictions.npz", logits=2.0 * np.eye(2)[predicted], labels=labels)
        assert training.choose("alone", candidates, pilots) == candidates[best], settings


@pytest.mark.parametrize("settings", [{"metric": "recall:defectiv"}, {"operating_point": "recall:defectiv=0.9"}])
def test_a_class_that_is_not_there_is_refused_before_anything_is_made(settings: dict[str, str], tmp_path: Path) -> None:
    config = from_mapping({"student.models": ["mobilenetv1_025"], "teacher.model": ["resnet18"], **settings})
    photos = Folder(tmp_path, ("defective", "fine"), (PhotoFile(tmp_path / "1.png", "train", 0),), flat=False)
    name = next(iter(settings))
    with pytest.raises(ConfigError, match=rf"{name}: there is no class 'defectiv'. Did you mean 'defective'"):
        make_plan(photos, config)


def test_the_shift_of_a_teacher_is_added_before_the_softmax() -> None:
    from potstill.deploy.deployable import Deployable
    from potstill.models.classifier import build

    model = build(describe("mobilenetv1_025", ["a", "b"], size=32)).eval()
    photo = torch.randint(0, 255, (40, 40, 3), dtype=torch.uint8)
    with torch.inference_mode():
        plain = Deployable(model, temperature=2.0)(photo)
        shifted = Deployable(model, temperature=2.0, shift=(1.0, -1.0))(photo)
    logits = 2 * plain.log() + torch.tensor([1.0, -1.0])
    assert torch.allclose(shifted, (logits / 2).softmax(-1), atol=1e-6)
