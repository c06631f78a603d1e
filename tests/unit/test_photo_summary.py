"""What `count` and `distill` say of the photos before anything is done with them."""

import re
from pathlib import Path

import pytest
from tests.support import make_photos

from potstill.check.count import count
from potstill.cli import run
from potstill.config.schema import ImagesConfig
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
