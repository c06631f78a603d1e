"""Runs side by side: fair comparisons have intervals, unfair ones are refused with the reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.reports import edit, grow, slim_copy
from tests.support import potstill as command

import potstill
from potstill.errors import DataError
from potstill.report.side_by_side import difference, side_by_side
from potstill.run.folder import Run

CLASSES = ["ant", "bee", "cow"]


def made(tiny: Path, target: Path, *, photos: int = 300, **values: float) -> Run:
    run = slim_copy(tiny, target)
    grow(run, classes=CLASSES, students=1, photos=photos, **values)
    return run


@pytest.fixture
def pair(tiny_run: "potstill.Result", tmp_path: Path) -> tuple[Run, Run]:
    """Two runs on the same test photos; the second one's students are worse."""
    return made(tiny_run.path, tmp_path / "a"), made(tiny_run.path, tmp_path / "b", right=0.6)


def test_every_model_of_every_run_has_its_difference_from_the_reference(pair: tuple[Run, Run]) -> None:
    found = side_by_side([run.path for run in pair])
    assert [(r.run, r.arm) for r in found.rows] == [
        (run, arm) for run in "ab" for arm in ("teacher", "distilled", "alone")
    ]
    assert found.rows[1].against is None
    worse = found.rows[4]
    assert worse.against is not None
    assert worse.against.value == pytest.approx(worse.accuracy.value - found.rows[1].accuracy.value)
    assert worse.against.high < 0
    text = "\n".join(found.notes())
    assert "300 test photos, the same in all runs" in text
    assert "Reference: student-0 distilled of a" in text
    assert "different machines" not in text


def test_times_of_different_machines_are_marked(pair: tuple[Run, Run]) -> None:
    edit(pair[1].comparison / "comparison.json", lambda c: c["environment"].update(processor="another"))
    assert "do not compare their ms" in side_by_side([run.path for run in pair]).notes()[-1]


def test_renamed_photos_are_the_same_photos(pair: tuple[Run, Run]) -> None:
    path = pair[1].images / "images.csv"
    path.write_text(path.read_text("utf-8").replace(",test/ant/", ",test/ant/renamed-"), "utf-8")
    assert len(side_by_side([run.path for run in pair]).rows) == 6


def test_other_classes_are_refused(pair: tuple[Run, Run]) -> None:
    edit(pair[1].comparison / "comparison.json", lambda c: c.update(classes=["ant", "bee", "dog"]))
    with pytest.raises(DataError, match=r"(?s)other classes.*ant, bee, cow.*ant, bee, dog"):
        side_by_side([run.path for run in pair])


def test_other_test_photos_are_refused(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    a = made(tiny_run.path, tmp_path / "a", photos=300)
    b = made(tiny_run.path, tmp_path / "b", photos=310)
    with pytest.raises(DataError, match=r"(?s)tested on other photos.*only in a: 0, only in b: 10, in both: 300"):
        side_by_side([a.path, b.path])


def test_other_labels_of_the_same_photos_are_refused(pair: tuple[Run, Run]) -> None:
    path = pair[1].images / "images.csv"
    lines = path.read_text("utf-8").splitlines()
    lines[-1] = lines[-1].replace(",test,cow,", ",test,ant,")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(DataError, match="1 test photo has another label, such as test/cow/"):
        side_by_side([run.path for run in pair])


def test_one_run_is_nothing_to_compare(pair: tuple[Run, Run]) -> None:
    with pytest.raises(DataError, match="name two runs or more"):
        side_by_side([pair[0].path])


def test_the_command_prints_a_table_or_json_and_refuses_with_code_2(pair: tuple[Run, Run]) -> None:
    done = command("compare", pair[0].path, pair[1].path)
    assert done.returncode == 0, done.stderr
    header, _, *rows = done.stdout.splitlines()
    assert header.split() == [
        *("run", "model", "accuracy", "interval", "against", "reference", "train", "views", "test"),
        *("MB", "MMACs", "ms"),
    ]
    assert [row.split()[0] for row in rows[:6]] == ["a"] * 3 + ["b"] * 3
    assert rows[6].startswith("300 test photos")
    found = json.loads(command("compare", pair[0].path, pair[1].path, "--json").stdout)
    assert len(found["rows"]) == 6
    refused = command("compare", pair[0].path)
    assert refused.returncode == 2
    assert "nothing to compare" in refused.stderr


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """60 draws of two models whose true accuracies differ by 5 points, 3 and 2 seeds, 400 photos; 95 % asked for."""
    generator, hits = np.random.default_rng(1), 0
    for _ in range(60):
        hard = generator.random(400)
        first = hard + generator.normal(0, 0.05, (3, 400)) < 0.85
        second = hard + generator.normal(0, 0.05, (2, 400)) < 0.80
        found = difference(first, second, confidence=0.95, resamples=400)
        hits += found.low <= 0.05 <= found.high
    assert hits >= 51


def test_intervals_of_other_confidence_are_refused(pair: tuple[Run, Run]) -> None:
    edit(pair[1].comparison / "comparison.json", lambda c: c.update(confidence=0.975))
    with pytest.raises(DataError, match=r"has 95% intervals, the other 97\.5%"):
        side_by_side([run.path for run in pair])
