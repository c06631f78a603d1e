"""hypothesis: any folder and any name is read, or refused by a DataError that names it; splits never move a photo."""

import shutil
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill.data.splits import in_share
from potstill.errors import DataError
from potstill.images.folder import check_class_name, check_class_names, list_photos, make_folders, read_folder

ODD = "/\\:*?\"<>|\n\t\r\0\x7f .-_~#%'&+,;=@[]{}()éße\u0301猫🐈\u200b\u2028\u202eİıſ"
names = st.one_of(
    st.text(st.sampled_from(ODD + "abcXYZ01"), max_size=12),
    st.text(max_size=40),
    st.sampled_from(["CON", "con.txt", "train", "Test", "unlabeled", "..", ".", "", "a" * 101, "nul"]),
)
file_names = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
a_new_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def usable(name: str) -> bool:
    try:
        check_class_name(name)
    except DataError as error:
        said = str(error)
    else:
        return True
    assert repr(name) in said
    assert "Rename it." in said
    return False


@settings(max_examples=300, deadline=None)
@given(name=names)
def test_a_name_that_is_taken_is_one_plain_folder_everywhere(name: str) -> None:
    if usable(name):
        assert Path("data", name).name == name, "no path inside, no way out"
        assert len(name.encode()) <= 100
        assert unicodedata.normalize("NFC", name) == name == name.strip()
        assert name.splitlines() == [name], "one line in classes.txt"
        assert not set('/\\:*?"<>|\0\n') & set(name)


@a_new_folder
@given(classes=st.lists(names, min_size=2, max_size=4))
def test_folders_that_are_made_can_be_read(root: Path, classes: list[str]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    try:
        made = make_folders(root, classes)
    except DataError:
        assert not root.exists(), "nothing half made"
        return
    assert all(path.is_dir() for path in made)
    check_class_names(classes)
    for path in made:
        (path / "a.png").write_bytes(b"x")
    if len(set(classes)) >= 2:
        folder = read_folder(root)
        assert folder.classes == tuple(sorted(set(classes)))
        assert len(folder.files) == 2 * len(set(classes))


@a_new_folder
@given(
    layout=st.dictionaries(
        st.sampled_from(["train", "test", "val", "unlabeled", ""]),
        st.dictionaries(names, st.lists(file_names, max_size=3), max_size=3),
        max_size=4,
    )
)
def test_any_tree_is_read_whole_or_refused(root: Path, layout: dict[str, dict[str, list[str]]]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for split, classes in layout.items():
        for name, files in classes.items():
            for file in ["", *files]:
                try:
                    path = root / split / name / file
                    path.parent.resolve().relative_to(root.resolve())
                    if file:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(b"x")
                    else:
                        path.mkdir(parents=True, exist_ok=True)
                except (OSError, ValueError):
                    continue  # a name that this file system does not take, or a way out of the folder
    said = ""
    try:
        folder = read_folder(root)
    except DataError as error:
        said = str(error)
    if said:
        assert str(root) in said or "class name" in said
        return
    assert len(folder.classes) >= 2
    assert list(folder.classes) == sorted(set(folder.classes))
    assert all(file.path.is_file() for file in folder.files)
    assert len({file.path for file in folder.files}) == len(folder.files), "every file once"
    for file in folder.files:
        base = root if folder.flat else root / str(file.split)
        if file.label >= 0:
            assert file.path.relative_to(base).parts[0] == folder.classes[file.label]
    assert {file.path for file in folder.files} <= {path for _, _, path in list_photos(root)}
    assert read_folder(root) == folder, "the same order every time"


@settings(max_examples=100, deadline=None)
@given(
    photo=st.binary(min_size=32, max_size=32),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 9),
)
def test_a_larger_share_moves_photos_one_way_only(photo: bytes, shares: tuple[float, float], seed: int) -> None:
    small, large = sorted(shares)
    if in_share(photo.hex(), small, seed=seed, purpose="test"):
        assert in_share(photo.hex(), large, seed=seed, purpose="test")
