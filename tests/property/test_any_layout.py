"""hypothesis: trees of the names that people give folders and files: every file is a photo or counted, or the folder is
refused with a DataError; never anything else."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill.check.count import count
from potstill.config.schema import ClassesFrom, ImagesConfig
from potstill.errors import DataError
from potstill.images.folder import list_photos, read_folder

FOLDERS = """
train Train TRAINING trn val valid Validation dev eval test Testing TST holdout unlabeled unlabelled unsup pool data
dataset archive images labels seg_train seg_test train_images images_test cat dog owl animals vehicles 0 1 part1 part2
2021-03-04 masks extras __MACOSX @eaDir .ipynb_checkpoints #recycle cat.v2
"""
FILES = """
a.jpg b.PNG cat.1.jpg cat_2.jpg dog-7.jpg 0001.jpg c no_extension odd.xyz Thumbs.db desktop.ini .DS_Store ._a.jpg
notes.txt data.csv x.json clip.mp4 a.jpg.bak
"""
folder_names = st.sampled_from(FOLDERS.split())

paths = st.tuples(st.lists(folder_names, max_size=4), st.sampled_from(FILES.split()))
RULES: tuple[ClassesFrom, ...] = ("folders", "top", "deepest", "names")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def grow(root: Path, files: list[tuple[list[str], str]], folders: list[list[str]]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for folder, name in files:
        path = root.joinpath(*folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    for folder in folders:
        root.joinpath(*folder).mkdir(parents=True, exist_ok=True)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    files=st.lists(paths, max_size=25),
    folders=st.lists(st.lists(folder_names, min_size=1, max_size=3), max_size=3),
    rule=st.sampled_from(RULES),
)
def test_every_file_is_a_photo_or_counted_or_the_folder_is_refused(
    root: Path, files: list[tuple[list[str], str]], folders: list[list[str]], rule: ClassesFrom
) -> None:
    grow(root, files, folders)
    total = sum(path.is_file() for path in root.rglob("*"))
    refusal = ""
    try:
        counts = count(root, ImagesConfig(classes_from=rule))
    except DataError as error:
        refusal = str(error)
    if refusal:
        assert str(root) in refusal or "class name" in refusal
        with pytest.raises(DataError):
            read_folder(root, classes_from=rule)
        return
    used = sum(counts.total(split) for split in counts.by_split)
    assert used + sum(group.files for group in counts.unused) == total
    listed = [path for _, _, path in list_photos(root, classes_from=rule) if path is not None]
    assert len(set(listed)) == len(listed) == used
    try:
        folder = read_folder(root, classes_from=rule)
    except DataError:
        return  # one class, or an empty one
    assert {file.path for file in folder.files} <= set(listed)
    assert len(folder.files) + sum(group.files for group in folder.unused) == total
    assert not {name.lower() for name in folder.classes} & {"train", "val", "test", "unlabeled"}
