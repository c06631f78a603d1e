"""A second student or a further seed costs its own training only: the teacher looks at no photo again."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support import TINY, unseal
from torch import Tensor

import potstill
from potstill.compute.onnx_backbone import _GraphModel
from potstill.models.classifier import Classifier
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Photos that were put through a model, by the model's name, whichever form of it answers.

    Every answer, of `forward`, `both`, `inference.answers` and ONNX Runtime, begins with `features`. A stored teacher
    says its role, one that is being trained does not yet: the name tells both.
    """
    looks: Counter[str] = Counter()

    def counting(form: type[Classifier], original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def features(self: Classifier, pixels: Tensor) -> Tensor:
            exporting = torch.compiler.is_compiling()
            if not exporting and bool(pixels.any()):  # costs are measured on zeros, which are no photo
                looks[self.info.name + (" in ONNX Runtime" if form is _GraphModel else "")] += len(pixels)
            return original(self, pixels)

        return features

    for form in (Classifier, _GraphModel):
        monkeypatch.setattr(form, "features", counting(form, form.features))
    return looks


TEACHER, STUDENT = "efficientnet_lite0", "mobilenetv1_025"


def distill(photos: Path, run: Run, **settings: Any) -> "potstill.Result":
    return potstill.distill(photos, settings={**TINY, **settings}, run=run.path, reporter=Reporter(quiet=True))


def test_another_student_asks_the_teacher_nothing(
    run_copy: Run, tiny_run: "potstill.Result", photos: Path, looks: Counter[str]
) -> None:
    result = distill(photos, run_copy, **{"student.models": [f"{STUDENT}@48"]})
    assert set(looks) == {STUDENT}
    before, after = tiny_run.comparison, result.comparison
    assert [s.size for s in after.students] == [32, 48], "the first student stays in the comparison"
    assert after.teacher.accuracy == before.teacher.accuracy
    assert after.students[0].distilled.accuracy == before.students[0].distilled.accuracy


def test_another_seed_asks_the_teacher_nothing(run_copy: Run, photos: Path, looks: Counter[str]) -> None:
    assert distill(photos, run_copy, seeds=3).comparison.seeds == 3
    assert set(looks) == {STUDENT}


@pytest.mark.parametrize("lost", ["2_teacher", "3_soft_labels", "5_comparison"])
def test_what_was_lost_the_teacher_is_asked_again(lost: str, run_copy: Run, photos: Path, looks: Counter[str]) -> None:
    """The count counts: of a teacher that is new, that labels views, and that looks at the test photos."""
    shutil.rmtree(run_copy.path / lost)
    distill(photos, run_copy)
    at_least = {"2_teacher": 66, "3_soft_labels": 42, "5_comparison": 24}
    assert looks[TEACHER] >= at_least[lost]


@pytest.mark.long
def test_a_teacher_that_answers_in_onnx_runtime_is_counted_too(
    run_copy: Run, photos: Path, looks: Counter[str]
) -> None:
    described = read_json(run_copy.teacher / "model.json")
    described["trained"]["runtime"] = "onnxruntime"
    write_json(run_copy.teacher / "model.json", described)
    unseal(run_copy.path)
    shutil.rmtree(run_copy.soft_labels)
    distill(photos, run_copy)
    assert looks[f"{TEACHER} in ONNX Runtime"] >= 42
