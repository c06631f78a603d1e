"""The accuracy benchmark: which photos a regime trains on, which rows count as finished, and which ones are shown."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import TINY, make_photos

import potstill
from potstill.config.load import from_mapping
from potstill.errors import ConfigError, DataError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import label_efficiency
import regimes
import rows
import run
from tables import newest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {name: value for name, value in TINY.items() if name not in ("student.models", "teacher.model", "seeds")}


@pytest.fixture
def photo_set(photos: Path) -> regimes.PhotoSet:
    return regimes.open_set(f"shapes={photos}", {}, photos)


@pytest.fixture
def job(photo_set: regimes.PhotoSet) -> run.Job:
    """The job that `tiny_run` would be."""
    return run.Job(
        "all-labels", photo_set, regimes.Conditions(), "mobilenetv1_025@32=w.pth", "efficientnet_lite0", 2, SETTINGS
    )


def classes_of_photos(folder: Path, split: str) -> dict[Path, str]:
    """The class folder that each photo lies in, by the file itself."""
    files = [path for path in (folder / split).rglob("*") if path.is_file()]
    assert len({path.resolve() for path in files}) == len(files), "no photo is there twice"
    return {path.resolve(): path.parent.name for path in files}


def test_a_share_of_train_and_val_lies_in_another_class_and_no_test_photo(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "data", {"train": 20, "val": 10, "test": 10})
    names = ("disc", "frame", "stripes")
    moved: dict[float, set[Path]] = {}
    for share in (0.1, 0.2):
        target = tmp_path / str(share)
        regimes.link_with_wrong_labels(data, names, share, target)
        moved[share] = set()
        for split, count in (("train", 20), ("val", 10), ("test", 10)):
            found = classes_of_photos(target, split)
            assert found.keys() == classes_of_photos(data, split).keys()
            wrong = {path for path, name in found.items() if path.parent.name != name}
            of_each = [sum(path.parent.name == name for path in wrong) for name in names]
            assert of_each == [0 if split == "test" else round(share * count)] * 3
            moved[share] |= wrong
    assert moved[0.1] < moved[0.2], "a smaller share is a part of a larger one"
    assert len({path.name for path in moved[0.2]}) == len(moved[0.2])


def test_wrong_labels_fall_on_more_than_one_other_class_and_are_the_same_again(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "data", {"train": 20, "test": 1})
    for name in "ab":
        regimes.link_with_wrong_labels(data, ("disc", "frame", "stripes"), 0.5, tmp_path / name)
    first, again = (classes_of_photos(tmp_path / name, "train") for name in "ab")
    assert first == again
    assert {name for path, name in first.items() if path.parent.name == "disc"} == {"disc", "frame", "stripes"}


def test_a_pool_is_a_folder_beside_the_labeled_photos(photo_set: regimes.PhotoSet, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(next(photo_set.folder.rglob("*.png")).read_bytes())
    with_pool = replace(photo_set, unlabeled=tmp_path / "more")
    folder = regimes.photo_folder(with_pool, regimes.Conditions(pool=True), tmp_path / "built")
    splits = [file.split for file in regimes.read_folder(folder).files]
    assert (splits.count("train"), splits.count("test"), splits.count("unlabeled")) == (42, 24, 1)


def test_without_wrong_labels_and_pool_the_set_itself_is_trained_on(
    photo_set: regimes.PhotoSet, tmp_path: Path
) -> None:
    assert regimes.photo_folder(photo_set, regimes.Conditions(labels=20), tmp_path) == photo_set.folder


def test_sets_take_part_where_they_belong(photo_set: regimes.PhotoSet) -> None:
    many = replace(photo_set, classes=tuple(map(str, range(21))), unlabeled=Path("more"))
    assert [name for name in regimes.REGIMES if many.takes_part(name)] == ["many-classes"]
    few = [name for name in regimes.REGIMES if photo_set.takes_part(name)]
    assert few == [name for name in regimes.REGIMES if name not in ("pool", "many-classes")]
    assert replace(photo_set, unlabeled=Path("more")).takes_part("pool")


def test_a_set_without_a_test_folder_is_refused(tmp_path: Path) -> None:
    make_photos(tmp_path / "flat", {"": 3})
    with pytest.raises(DataError, match=r"has no train/ and test/"):
        regimes.open_set(f"flat={tmp_path / 'flat'}", {}, tmp_path)
    with pytest.raises(ConfigError, match="NAME=FOLDER"):
        regimes.open_set("flat", {}, tmp_path)


def test_a_student_from_scratch_starts_without_its_file(job: run.Job) -> None:
    assert job.settings["student.models"] == ["mobilenetv1_025@32=w.pth"]
    scratch = replace(job, conditions=regimes.Conditions(pretrained=False))
    assert scratch.settings["student.models"] == ["mobilenetv1_025@32"]
    assert replace(scratch, more={}).settings["student.weights"] == "none"
    assert (scratch.key()["pretrained"], job.key()["pretrained"]) == ("False", "True")


def test_one_run_serves_every_regime_with_its_condition_and_no_other(job: run.Job) -> None:
    same = replace(job, regime="label-efficiency")
    assert same.name() == job.name()
    assert same.key() != job.key()
    names = {replace(job, conditions=c).name() for all_of in regimes.REGIMES.values() for c in all_of}
    assert len(names) == len({c for all_of in regimes.REGIMES.values() for c in all_of})


def test_the_digest_of_the_defaults_sees_settings_and_not_the_machine() -> None:
    plain = rows.defaults_digest(from_mapping({}))
    assert rows.defaults_digest(from_mapping({"machine.jobs": 7})) == plain
    assert rows.defaults_digest(from_mapping({"student.ema": 0.5})) != plain


def test_a_default_that_left_older_rows_as_they_were_counts_as_it_was() -> None:
    plain, (name, earlier) = rows.defaults_digest(from_mapping({})), next(iter(rows.SAME_RESULT.items()))
    assert rows.defaults_digest(from_mapping({name: earlier})) == plain
    assert rows.defaults_digest(from_mapping({name: [1.0]})) != plain


def test_the_commit_tells_of_changes_in_src(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "notes.txt").write_text("not code")
    clean = rows.commit(tmp_path)
    assert re.fullmatch("[0-9a-f]{7,}", clean)
    (tmp_path / "src" / "a.py").write_text("2")
    assert rows.commit(tmp_path) == clean + "-dirty"


@pytest.fixture
def trained(tiny_run: "potstill.Result", monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The run folders that the benchmark asked for; each gets the tiny run in place of a training."""
    asked: list[Path] = []

    def distill(data: Path, *, settings: dict[str, Any], run: Path) -> "potstill.Result":
        asked.append(run)
        return tiny_run

    monkeypatch.setattr(run, "distill", distill)
    return asked


@pytest.fixture
def finish(tmp_path: Path) -> Callable[[run.Job], str]:
    return lambda job: run.finish(job, run.Tables.below(tmp_path), tmp_path / "runs")


def test_a_finished_job_has_all_its_rows_and_is_not_trained_again(
    job: run.Job, trained: list[Path], finish: Callable[[run.Job], str], tmp_path: Path
) -> None:
    finish(job)
    tables = run.Tables.below(tmp_path)
    results, (difference,) = tables.results.read(), tables.differences.read()
    assert sorted((row["arm"], row["seed"]) for row in results) == [
        (a, s) for a in ("alone", "distilled") for s in "01"
    ]
    mean = sum(float(row["accuracy"]) for row in results if row["arm"] == "distilled") / 2
    assert float(difference["distilled"]) == pytest.approx(mean, abs=1e-4)
    assert float(difference["minutes"]) > 0
    assert int(difference["n"]) == 24
    before = (tmp_path / "results.csv").read_bytes(), (tmp_path / "differences.csv").read_bytes()
    assert finish(job) == "has its rows already"
    assert before == ((tmp_path / "results.csv").read_bytes(), (tmp_path / "differences.csv").read_bytes())
    assert len(trained) == 1


def test_another_regime_with_the_same_condition_takes_the_rows(
    job: run.Job, trained: list[Path], finish: Callable[[run.Job], str], tmp_path: Path
) -> None:
    finish(job)
    assert finish(replace(job, regime="label-efficiency")) == "has the rows of all-labels"
    assert len(trained) == 1
    tables = run.Tables.below(tmp_path)
    for table in (tables.results, tables.differences):
        first, second = (rows.matching(table.read(), {"regime": name}) for name in ("all-labels", "label-efficiency"))
        assert [{**row, "regime": "label-efficiency"} for row in first] == second
    assert finish(replace(job, regime="few-labels", conditions=regimes.Conditions(labels=20)))
    assert len(trained) == 2


@pytest.mark.parametrize("lost", ["results.csv", "differences.csv"])
def test_a_job_that_was_killed_before_its_last_row_is_finished(
    lost: str, job: run.Job, trained: list[Path], finish: Callable[[run.Job], str], tmp_path: Path
) -> None:
    finish(job)
    whole = (tmp_path / lost).read_text().splitlines(keepends=True)
    (tmp_path / lost).write_text("".join(whole[:-1]))
    finish(job)
    assert len(trained) == 2
    assert (tmp_path / lost).read_text().splitlines(keepends=True) == whole


@pytest.mark.parametrize("change", [{"seeds": 3}, {"teacher": "efficientnet_lite1"}, {"more": {"student.ema": 0.5}}])
def test_a_job_of_other_seeds_teachers_or_defaults_is_another_one(
    change: dict[str, Any], job: run.Job, trained: list[Path], finish: Callable[[run.Job], str]
) -> None:
    finish(job)
    finish(replace(job, **change))
    assert len(set(trained)) == 2


def test_tables_show_the_rows_of_the_newest_defaults_only() -> None:
    made = [("old", "2026-01-02"), ("new", "2026-01-03"), ("old", "2026-01-01"), ("new", "2026-01-01")]
    some = [{"defaults": defaults, "date": date} for defaults, date in made]
    assert newest(some) == [some[1], some[3]]
    same_day = [{"defaults": name, "date": "2026-01-01"} for name in ("a", "b")]
    assert newest(same_day) == [same_day[1]], "of one day, the last in the file"
    assert newest([]) == []


def test_the_page_has_a_table_for_every_regime() -> None:
    page = (ROOT / "docs" / "explanation" / "accuracy.md").read_text("utf-8")
    assert re.findall(r"<!-- accuracy: (\S+) -->", page) == list(regimes.REGIMES)


def test_the_picture_has_a_mark_for_each_number_of_labels_in_a_panel_for_each_set() -> None:
    ends = {"distilled_low": "0.8", "distilled_high": "0.9", "alone_low": "0.5", "alone_high": "0.7"}
    values = {"student": "s", "distilled": "0.85", "alone": "0.6", **ends}
    measured = [
        {"set": name, "labels": labels, "labels_per_class": count, **values}
        for name in ("animals", "flowers")
        for labels, count in (("all", "420"), ("5", "5"), ("50", "50"))
    ]
    drawn, width = label_efficiency.picture(measured)
    assert width > 2 * label_efficiency.WIDTH
    assert drawn.count('class="mark distilled"') == drawn.count('class="mark alone"') == 6 + 1  # and the legend
    assert drawn.count("<polyline") == 4
    first = drawn.index("animals (s)")
    ticks = [drawn.index(f">{text}</text>", first) for text in ("5", "50", "all")]
    assert ticks == sorted(ticks), "from few labels to all, in whatever order the rows are"
    assert "prefers-color-scheme: dark" in drawn
