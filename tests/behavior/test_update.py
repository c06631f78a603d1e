"""Photos are added to a finished run: a new run goes on from its students, and is compared with it on its photos."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.docs.pages import console_lines
from tests.support import CLASSES, TINY, draw_photo, edit_settings, weight_hashes

import potstill
from potstill.cli import run as command
from potstill.config.load import from_mapping
from potstill.data.pixels import PixelStore
from potstill.errors import ConfigError, DataError, PotstillError
from potstill.metrics import Interval
from potstill.models.classifier import load, load_info
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, sha256_of
from potstill.run.folder import Run
from potstill.run.layout import model_folder
from potstill.run.results import Change, UpdateResult
from potstill.students.job import _starting_model
from potstill.students.recipe import Job
from potstill.suggest.pool import RunPhotos
from potstill.tools.forecast import open_run, plan_forecast

NAME = "mobilenetv1_025-32px"
MACHINE = {name: value for name, value in TINY.items() if name.startswith("machine.")}


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def old(tiny_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as RUN in a folder, and new-photos and a photo beside it. Read only."""
    place = tmp_path_factory.mktemp("update")
    shutil.copytree(tiny_run.path, place / "RUN")
    for number, name in enumerate(CLASSES):
        for split, count in (("train", 6), ("test", 2)):
            (place / "new-photos" / split / name).mkdir(parents=True)
            for other in range(count):
                photo = draw_photo(name, 2000 + 20 * number + other + (10 if split == "test" else 0))
                photo.save(place / "new-photos" / split / name / f"{other}.png")
    draw_photo("disc", 7).save(place / "photo.jpg")
    return place / "RUN"


@pytest.fixture(scope="module")
def updated(old: Path) -> "potstill.Result":
    """Read only."""
    before = contents(old)
    result = potstill.update(old, old.parent / "new-photos", settings=MACHINE, reporter=Reporter(quiet=True))
    assert contents(old) == before, "the run stays as it is"
    assert result.path == old.parent / "RUN-2"
    return result


def test_both_students_are_compared_on_the_old_test_photos_and_on_the_new_ones(
    old: Path, updated: "potstill.Result", tiny_run: "potstill.Result"
) -> None:
    found = updated.comparison.update
    assert found is not None
    before, after = tiny_run.comparison.students[0], updated.comparison.students[0]
    assert found.on_old.photos == tiny_run.comparison.test_photos
    assert found.on_old.before.value == pytest.approx(before.distilled.accuracy.value), "the same photos and weights"
    assert found.on_new is not None
    assert found.on_new.photos == 6
    share = found.on_new.photos / updated.comparison.test_photos
    assert (1 - share) * found.on_old.after.value + share * found.on_new.after.value == pytest.approx(
        after.distilled.accuracy.value
    )
    for change in found.changes:
        pairs = sum(change.only_after) - sum(change.only_before)
        assert change.difference.value == pytest.approx(pairs / (found.seeds * change.photos))
        assert change.difference.value == pytest.approx(change.after.value - change.before.value)
    stores = PixelStore(old / "1_images"), PixelStore(updated.run.images)
    ids = [set(store.index["id"][store.rows("test")].tolist()) for store in stores]
    assert ids[0] < ids[1]
    assert found.learned_before < found.learned_after


def test_student_and_twin_start_where_those_of_the_same_seed_ended(old: Path, updated: "potstill.Result") -> None:
    for seed in range(2):
        for arm in ("distilled", "alone"):
            folder = model_folder(updated.run, NAME, seed, arm)
            job, first = Job.read(folder), load(model_folder(Run(old), NAME, seed, arm))
            start = _starting_model(job, load_info(folder)).net.state_dict()
            assert all(np.array_equal(start[name], value) for name, value in first.net.state_dict().items())
            assert job.recipe.epochs == 1, "a third of three"
            assert read_json(folder / "done.json")["inputs"]["start"] == sha256_of(Path(job.start, "model.safetensors"))
    hashes = [set(weight_hashes(students).values()) for students in (updated.run.students, old / "4_students")]
    assert hashes[0].isdisjoint(hashes[1])


def test_the_report_begins_with_what_the_photos_brought(updated: "potstill.Result") -> None:
    page, found = updated.report.read_text("utf-8"), updated.comparison.update
    assert found is not None
    questions = re.findall(r"<dt>([^<]*\?)</dt>", page)
    assert questions[0] == "What did the added photos bring?"
    assert found.advice in page
    assert str(updated.path.parent) not in page


def test_the_commands_of_the_page_work_and_the_last_line_says_which_to_use(
    old: Path, updated: "potstill.Result", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(old.parent)
    lines = [shlex.split(line.text, comments=True) for line in console_lines() if line.page.name == "update.md"]
    assert len(lines) >= 4
    found = updated.comparison.update
    assert found is not None
    for words in lines:
        assert command([*words[1:], *(["--no-browser"] if words[1] == "open" else [])]) == 0
        out, err = capsys.readouterr()
        if words[1] == "update":
            assert str(old.parent) not in out + err, "paths are printed as they were given"
        if words[1:] == ["update", "RUN", "new-photos"]:
            assert out.splitlines()[-2:] == [found.verdict, found.advice]
        assert out.strip()
    assert not (old.parent / "RUN-3").exists(), "the same command finds its run again"


def test_an_update_that_was_stopped_ends_with_the_same_weights(
    old: Path, updated: "potstill.Result", tmp_path: Path
) -> None:
    shutil.copytree(updated.path, tmp_path / "run")
    run = Run(tmp_path / "run")
    shutil.rmtree(run.comparison)
    (run.students / "done.json").unlink()
    shutil.rmtree(model_folder(run, NAME, 1, "alone"))
    again = potstill.update(
        old, old.parent / "new-photos", settings=MACHINE, into=run.path, reporter=Reporter(quiet=True)
    )
    assert weight_hashes(run.students) == weight_hashes(updated.run.students)
    assert again.comparison.update == updated.comparison.update


def test_what_cannot_be_updated_is_refused_before_anything_is_made(old: Path, run_copy: Run, tmp_path: Path) -> None:
    data, place = old.parent / "new-photos", sorted(old.parent.iterdir())

    def refused(message: str, run: Path = old, kind: type[PotstillError] = ConfigError, **more: object) -> None:
        with pytest.raises(kind, match=message):
            potstill.update(run, data, reporter=Reporter(quiet=True), **more)  # type: ignore[arg-type]

    refused(r"not 3 seeds of .* and its twin to start from.\n.*--from-scratch", settings={"seeds": 3})
    refused("no student mobilenetv1_025-48px to start from", settings={"student.models": ["mobilenetv1_025@48"]})
    refused("packed for models of up to 74 px, and these need 96 px", settings={"teacher.size": 96})
    refused("cannot be that of the run itself", into=old)
    refused("named first", settings={"update.run": "other"})
    refused("There is no run folder", run=tmp_path / "gone", kind=PotstillError)
    edit_settings(run_copy.path, lambda text: re.sub(r'"efficientnet_lite0"', '"file:labels.csv"', text))
    refused("soft labels of the photos that it has", run=run_copy.path)
    edit_settings(run_copy.path, lambda text: text.replace("file:labels.csv", "efficientnet_lite0"))
    shutil.rmtree(run_copy.comparison)
    refused("Nothing was compared", run=run_copy.path, kind=PotstillError)
    with pytest.raises(ConfigError, match=r"update.test_share has no effect without update.run"):
        from_mapping({"update.test_share": 0.2})
    assert sorted(old.parent.iterdir()) == place


def test_what_needs_the_starting_weights_is_refused(updated: "potstill.Result") -> None:
    with pytest.raises(DataError, match="went on from a student of an earlier run"):
        plan_forecast(open_run(updated.path))


def test_photos_of_two_folders_are_not_suggested(updated: "potstill.Result") -> None:
    with pytest.raises(DataError, match=r"in one photo folder(.|\n)*on a folder with all photos"):
        RunPhotos.of(open_run(updated.path))


def change(low: float, high: float) -> Change:
    half = Interval(0.5, 0.4, 0.6)
    return Change(
        photos=8,
        before=half,
        after=half,
        difference=Interval((low + high) / 2, low, high),
        only_after=(1,),
        only_before=(0,),
    )


BETTER, SAME, WORSE = change(0.01, 0.1), change(-0.1, 0.1), change(-0.1, -0.01)


@pytest.mark.parametrize(
    ("on_old", "on_new", "verdict", "advice"),
    [
        (BETTER, None, "Better on 8 test photos of first: +5.5 points", "Use the updated"),
        (SAME, None, "No difference measured on", "Keep using the student of first: nothing shows"),
        (WORSE, None, "Worse on", "Keep using the student of first: the updated one is worse"),
        (SAME, BETTER, "Better on 8 added test photos", "Use the updated"),
        (WORSE, BETTER, "Worse on", "Keep using the student of first: the updated one is worse"),
        (BETTER, WORSE, "Worse on 8 added", "Keep using the student of first: the updated one is worse"),
    ],
)
def test_the_advice_never_hides_a_loss(on_old: Change, on_new: Change | None, verdict: str, advice: str) -> None:
    found = UpdateResult(
        run="first",
        before="s",
        after="s",
        seeds=1,
        learned_before=1,
        learned_after=2,
        warm=True,
        on_old=on_old,
        on_new=on_new,
    )
    assert verdict in found.verdict
    assert found.advice.startswith(advice)
