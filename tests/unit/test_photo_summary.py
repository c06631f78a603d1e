"""What `count` and `distill` say of the photos before anything is done with them."""

import json
import re
from pathlib import Path

import pytest
from tests.support import make_photos

from potstill.check.count import Counts, count
from potstill.cli import run
from potstill.config.schema import ImagesConfig
from potstill.errors import DataError
from potstill.images.folder import Folder, PhotoFile
from potstill.images.summary import folder_lines, uneven_lines


def folder(**counts: int) -> Folder:
    """Photos of two classes: `train_a=3` is three photos of a for training."""
    files = []
    for name, number in counts.items():
        split, _, label = name.partition("_")
        files += [PhotoFile(Path(f"{name}-{n}.jpg"), split, "ab".find(label)) for n in range(number)]  # type: ignore[arg-type]
    return Folder(Path("photos"), ("a", "b"), tuple(files), flat=False)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"train": {"a": 100, "b": 100}, "test": {"a": 50, "b": 3}}, "'b' has 3 photos in test; .* be 26"),
        ({"train": {"a": 100, "b": 100}, "val": {"a": 50, "b": 1}, "test": {"a": 9, "b": 9}}, "'b' has 1 photo in val"),
        ({"train": {"a": 100, "b": 100}, "test": {"a": 50}}, "'b' has 0 photos in test"),
        ({"train": {"a": 1000, "b": 20}, "test": {"a": 250, "b": 5}}, None),  # rare, but evenly split
        ({"train": {"a": 100, "b": 100}, "test": {"a": 50, "b": 20}}, None),
        ({"train": {"a": 9, "b": 9}, "test": {"a": 2, "b": 1}}, None),
        ({"": {"a": 100, "b": 3}}, None),
        ({"train": {"a": 100, "b": 100}, "test": {"a": 50, "b": 50}, "unlabeled": {"": 70}}, None),
    ],
)
def test_a_class_with_too_few_photos_in_a_split_is_named(counts: dict[str, dict[str, int]], says: str | None) -> None:
    lines = uneven_lines(counts)
    assert len(lines) == (says is not None)
    if says:
        assert re.search(f"^Uneven split: {says}", lines[0]), lines[0]


def test_distill_says_it_too_and_how_many_labels_it_uses() -> None:
    photos = folder(train_a=100, train_b=100, test_a=50, test_b=2)
    said = "\n".join(folder_lines(photos, ImagesConfig(per_class=50)))
    assert "Uneven split: 'b' has 2 photos in test" in said
    assert "Labels: those of 50 photos to train on per class; the others without their labels" in said
    assert "the others are left out" in "\n".join(folder_lines(photos, ImagesConfig(per_class=50, rest="out")))
    assert "Labels:" not in "\n".join(folder_lines(photos, ImagesConfig()))


def test_empty_folders_are_told_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "cat", "dog", "--into", str(tmp_path / "new")]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == str(tmp_path / "new" / "train" / "cat")
    assert said.err.endswith(f"then: potstill count {tmp_path / 'new'}\n")
    assert "No photos yet: put them into the class folders" in "\n".join(count(tmp_path / "new").lines())


def test_one_class_is_counted_with_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_photos(tmp_path / "photos", {"": 2}, classes=["disc"])
    assert any(
        line.startswith("One class only: disc. A classifier needs") for line in count(tmp_path / "photos").lines()
    )
    make_photos(tmp_path / "photos", {"": 2}, classes=["frame"])
    assert not any("One class only" in line for line in count(tmp_path / "photos").lines())
    assert run(["count", str(tmp_path / "photos" / "disc")]) == 2
    said = capsys.readouterr().err
    assert f"If it is one class of several (disc, frame), name the folder above it: {tmp_path / 'photos'}." in said


def test_count_says_what_distill_would_draw_and_what_to_type_next(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photos.parent)
    assert run(["count", photos.name, "--images.classes-from", "deepest"]) == 0
    said = capsys.readouterr().out
    assert f"  potstill check {photos.name} --images.classes-from deepest --dry-run " in said
    assert f"  potstill distill {photos.name} --images.classes-from deepest --dry-run " in said


def test_count_proposes_a_check_of_photos_with_several_labels_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "photos"
    make_photos(root, {"": 2}, classes=["disc", "frame"])
    paths = [path.relative_to(root) for path in sorted(root.rglob("*.*"))]
    table = "".join(f"{path.as_posix()},{path.parent.name};round\n" for path in paths)
    (root / "labels.csv").write_text(f"path,label\n{table}")
    words = ["count", str(root), "--labels", "labels.csv", "--images.labels-per-photo", "several"]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "potstill distill" in said
    (proposed,) = [line.partition("#")[0].split() for line in said.splitlines() if "potstill check" in line]
    assert run([*proposed[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["photos"] == 4


def test_count_names_the_splits_that_are_drawn(tmp_path: Path) -> None:
    def said(*folders: str) -> str:
        root = tmp_path / "-".join(folders).replace("/", "")
        for folder in folders:
            for name in ("disc", "ring"):
                (root / folder / name).mkdir(parents=True)
                (root / folder / name / "1.jpg").write_bytes(b"x")
        return "\n".join(count(root).lines())

    assert "When you distill, 25% are drawn for test, then 15% of the rest for val (--images.test-share" in said("")
    assert "When you distill, 25% are drawn for test (--images.test-share)." in said("train", "valid")
    assert "When you distill, 15% are drawn for val (--images.val-share)." in said("train", "test")
    assert "When you distill" not in said("train", "val", "test")


def test_an_empty_folder_is_told_what_init_makes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"such as .*/cat and .*/dog(.|\n)*init cat dog .* makes train/CLASS and test"):
        count(tmp_path)
    assert not count_of_unfinished(tmp_path).next_lines("x", checkable=True)


def count_of_unfinished(root: Path) -> Counts:
    for name in ("cat", "dog"):
        (root / "train" / name).mkdir(parents=True)
    return count(root)
