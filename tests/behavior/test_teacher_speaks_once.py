"""A second student or a further seed costs its own training only: the teacher looks at no photo again."""

import pytest
from tests.support import TINY

import potstill
from potstill.models.classifier import Classifier
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run


def test_another_student_asks_the_teacher_nothing(
    run_copy: Run, tiny_run: "potstill.Result", photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {"teacher": 0, "student": 0}
    both = Classifier.both

    def counting(self: Classifier, pixels):
        asked[self.info.trained.get("role", "student")] += len(pixels)
        return both(self, pixels)

    monkeypatch.setattr(Classifier, "both", counting)
    more = {**TINY, "student.models": ["mobilenetv1_025@48"]}
    result = potstill.distill(photos, settings=more, run=run_copy.path, reporter=Reporter(quiet=True))
    assert asked["teacher"] == 0
    assert asked["student"] > 0
    before, after = tiny_run.comparison, result.comparison
    assert [s.size for s in after.students] == [32, 48], "the first student stays in the comparison"
    assert after.teacher.accuracy == before.teacher.accuracy
    assert after.students[0].distilled.accuracy == before.students[0].distilled.accuracy
