"""A finished model on new photos: numbers that can be counted by hand, photos that it knows, and drift."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from tests.support import CLASSES, draw_photo, weight_hashes

import potstill
from potstill.cli import run as command
from potstill.errors import DataError
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run

QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def new_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 photos of each class, none of which looks like one of the run."""
    root = tmp_path_factory.mktemp("new") / "camera"
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(900, 910):
            draw_photo(name, number).save(root / name / f"{number}.png")
    return root


def test_its_numbers_can_be_counted(tiny_run: "potstill.Result", new_photos: Path) -> None:
    found = potstill.evaluate(tiny_run.path, new_photos, reporter=QUIET)
    files = [(path, name) for name in CLASSES for path in sorted((new_photos / name).iterdir())]
    predictions = tiny_run.student.predict_many([path for path, _ in files])
    right = [prediction.label == name for prediction, (_, name) in zip(predictions, files, strict=True)]
    assert found.score is not None
    assert found.score.photos == 30
    assert found.score.accuracy.value == pytest.approx(np.mean(right))
    assert found.score.nll == pytest.approx(
        -np.mean([np.log(p.probabilities[name]) for p, (_, name) in zip(predictions, files, strict=True)]), abs=1e-5
    )
    assert found.unsure == pytest.approx(np.mean([not p.known for p in predictions]))
    assert sum(found.predicted.values()) == 30
    assert [one.photos for one in found.per_class] == [10, 10, 10]
    assert np.mean([one.accuracy.value for one in found.per_class]) == pytest.approx(found.score.accuracy.value)
    assert (found.learned_from, found.in_test, found.unknown, found.lacking, found.failed) == ((), 0, {}, (), {})


def test_its_own_test_numbers_are_those_of_the_comparison(tiny_run: "potstill.Result", new_photos: Path) -> None:
    (student,) = tiny_run.comparison.students
    for seed in (0, 1):
        found = potstill.evaluate(tiny_run.path, new_photos, seed=seed, reporter=QUIET)
        assert found.test is not None
        assert found.test.photos == tiny_run.comparison.test_photos
        assert found.test.accuracy.value == pytest.approx(student.distilled.accuracy_per_seed[seed], abs=1e-9)
        assert found.difference is not None
        assert found.score is not None
        assert found.difference.value == pytest.approx(found.score.accuracy.value - found.test.accuracy.value), (
            "both have the same number of photos of each class"
        )


def test_photos_that_it_learned_from_are_left_out(
    tiny_run: "potstill.Result", photos: Path, new_photos: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(new_photos, tmp_path / "data"))
    learned, tested = (sorted((photos / split / "disc").iterdir()) for split in ("train", "test"))
    shutil.copy(learned[0], data / "disc" / "same-bytes.png")
    with Image.open(learned[1]) as image:
        ImageOps.mirror(image).save(data / "disc" / "mirrored.jpg", quality=90)
    shutil.copy(tested[0], data / "disc" / "of-test.png")
    found = potstill.evaluate(tiny_run.path, data, reporter=QUIET)
    assert [Path(path).name for path in found.learned_from] == ["mirrored.jpg", "same-bytes.png"]
    assert found.in_test == 1
    assert found.score is not None
    assert found.score.photos == 31
    assert any("Left out because it learned from the same pictures: 2 photos" in line for line in found.lines())
    with pytest.raises(DataError, match="learned from all of them"):
        potstill.evaluate(tiny_run.path, photos / "train", reporter=QUIET)


def test_another_camera_is_noticed_with_labels_and_without(
    tiny_run: "potstill.Result", new_photos: Path, tmp_path: Path
) -> None:
    for path in new_photos.rglob("*.png"):
        for root in (tmp_path / "labeled" / path.parent.name, tmp_path / "plain"):
            root.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                dark = image.filter(ImageFilter.GaussianBlur(9)).point(
                    lambda value: value // 60
                )  # hardly more than black
            dark.save(root / f"{path.parent.name}-{path.name}")
    labeled, plain, same = (
        potstill.evaluate(tiny_run.path, data, reporter=QUIET)
        for data in (tmp_path / "labeled", tmp_path / "plain", new_photos)
    )
    assert labeled.drift is not None
    assert labeled.drift.outputs_differ
    assert plain.drift == labeled.drift, "labels make no difference"
    assert same.drift is not None
    assert not same.drift.outputs_differ
    assert plain.score is None
    assert plain.unlabeled == 30
    assert any("30 photos without labels: the accuracy is not known" in line for line in plain.lines())


def test_classes_that_are_lacking_or_unknown_are_said(
    tiny_run: "potstill.Result", new_photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(new_photos / "disc", tmp_path / "new" / "disc")
    shutil.copytree(new_photos / "frame", tmp_path / "new" / "frames")
    found = potstill.evaluate(tiny_run.path, tmp_path / "new", reporter=QUIET)
    assert found.score is not None
    assert (found.score.photos, found.lacking, found.unknown) == (10, ("frame", "stripes"), {"frames": 10})
    said = "\n".join(found.lines())
    assert "the class 'frames': 10 photos" in said
    assert "Did you mean 'frame'?" in said
    assert "There are no photos of frame, stripes" in said
    (tmp_path / "other").mkdir()
    for name in ("cat", "frames"):
        shutil.copytree(new_photos / "frame", tmp_path / "other" / name)
    with pytest.raises(DataError, match=r"none of the model's classes. It has: cat, frames. The model has: disc, "):
        potstill.evaluate(tiny_run.path, tmp_path / "other", reporter=QUIET)


def test_a_model_without_its_run_has_nothing_to_compare_with(
    tiny_run: "potstill.Result", new_photos: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_run.student.folder, tmp_path / "model"))
    found, whole = (potstill.evaluate(model, new_photos, reporter=QUIET) for model in (folder, tiny_run.path))
    assert (found.test, found.difference, found.drift) == (None, None, None)
    assert found.score == whole.score
    assert any("nothing to compare with" in line for line in found.lines())
    assert potstill.evaluate(tiny_run.student.folder, new_photos, reporter=QUIET).test == whole.test, "it lies in a run"


def test_before_the_comparison_no_test_photo_is_looked_at(run_copy: Run, new_photos: Path) -> None:
    shutil.rmtree(run_copy.comparison)
    assert potstill.evaluate(run_copy.path, new_photos, reporter=QUIET).test is None


def test_the_command_prints_what_was_found_and_changes_nothing(
    tiny_run: "potstill.Result", new_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(new_photos, tmp_path / "data"))
    before = weight_hashes(tiny_run.path), sorted(tiny_run.path.rglob("*"))
    assert command(["evaluate", str(tiny_run.path), str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score"]["photos"] == 30
    assert found["per_class"][0]["name"] == "disc"
    (data / "disc" / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    assert command(["evaluate", str(tiny_run.path), str(data)]) == 1
    said = capsys.readouterr().out
    for words in (
        "mostly taken for",
        "Accuracy ",
        "On its own 24 test photos",
        "Calibration: ",
        "Could not be read: 1 photo",
    ):
        assert words in said
    assert (weight_hashes(tiny_run.path), sorted(tiny_run.path.rglob("*"))) == before
    assert command(["evaluate", str(tiny_run.path), str(tmp_path / "nothing")]) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_a_teacher_has_no_threshold_and_is_never_unsure(tiny_run: "potstill.Result", new_photos: Path) -> None:
    found = potstill.evaluate(tiny_run.path, new_photos, arm="teacher", reporter=QUIET)
    assert found.unsure is None
    assert found.score is not None
    assert not any("Unsure" in line for line in found.lines())
