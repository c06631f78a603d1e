"""Any table and any archive is read, or refused with a DataError, and nothing is read or written elsewhere."""

import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill.config.schema import ImagesConfig
from potstill.errors import DataError
from potstill.images.folder import Folder
from potstill.images.source import open_photos

NAMES = ("a.jpg", "b.jpg", "sub/c.jpg", "sub/d e.jpg", "train/é.jpg", "test/1.jpg", "unlabeled/u.jpg")

cells = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(
        ["cat", "dog", "train", "test", "val", "", "1", "../a.jpg", "/a.jpg", "C:\\a.jpg", "a", "c", ".", ".."]
    ),
    st.text(max_size=12),
)
headers = st.lists(
    st.one_of(st.sampled_from(["path", "label", "split", "group", "id", "file_name", "class"]), st.text(max_size=6)),
    min_size=1,
    max_size=4,
)
a_new_folder = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def read(photos: Path, name: str, data: bytes, **settings: Any) -> Folder | None:
    """The folder with this table; None where it is refused."""
    (photos / name).write_bytes(data)
    message = ""
    try:
        folder = open_photos(photos, ImagesConfig(labels=name, **settings))
    except DataError as error:
        message = str(error)
    if message:
        assert len(message) < 5000, "no message is as long as the table"
        return None
    assert len(folder.classes) >= 2
    assert len({file.path for file in folder.files}) == len(folder.files)
    for file in folder.files:
        assert file.path.is_file()
        assert file.path.resolve().is_relative_to(photos.resolve())
        assert (file.label < 0) == (file.split == "unlabeled")
    assert open_photos(photos, ImagesConfig(labels=name, **settings)) == folder, "the same every time"
    return folder


@a_new_folder
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_any_bytes(photos: Path, name: str, data: bytes) -> None:
    read(photos, name, data)


@a_new_folder
@given(header=headers, rows=st.lists(st.lists(cells, max_size=4), max_size=12), delimiter=st.sampled_from(",;\t"))
def test_any_rows(photos: Path, header: list[str], rows: list[list[str]], delimiter: str) -> None:
    text = "\n".join(delimiter.join(row) for row in [header, *rows])
    read(photos, "t.csv", text.encode("utf-8", "replace"))


@a_new_folder
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(["cat", "dog", ""]), st.sampled_from(["train", "test", ""])),
        min_size=5,
        max_size=14,
        unique_by=lambda row: row[0],
    )
)
def test_plain_rows_are_read_as_they_say(photos: Path, rows: list[tuple[str, str, str]]) -> None:
    text = "path,label,split\n" + "".join(",".join(row) + "\n" for row in rows)
    folder = read(photos, "t.csv", text.encode())
    if folder is None:
        return
    found = {file.path.relative_to(photos).as_posix(): file for file in folder.files}
    for name, label, _ in rows:
        if label:
            assert folder.classes[found[name].label] == label


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), cells), lambda inner: st.lists(inner, max_size=2)
)


@a_new_folder
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["file_name", "label", "split", "group", "x"]), values), max_size=8)
)
def test_any_json_lines(photos: Path, rows: list[dict[str, object]]) -> None:
    read(photos, "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


@a_new_folder
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.lists(st.sampled_from(["cat", "dog", "bird", "salt, pepper", "a;b", ""]), max_size=3),
            st.sampled_from([";", "|", "; ", ","]),
        ),
        min_size=4,
        max_size=10,
    ),
    without=st.sampled_from(["refuse", "none", "unlabeled"]),
)
def test_any_lists_of_labels(photos: Path, rows: list[tuple[str, list[str], str]], without: str) -> None:
    text = "path,labels\n" + "".join(f'{name},"{between.join(names)}"\n' for name, names, between in rows)
    folder = read(photos, "t.csv", text.encode(), labels_per_photo="several", without_label=without)
    if folder is None:
        return
    assert folder.several_labels
    for file in folder.files:
        assert file.label == (
            file.labels[0] if file.labels else -1 if file.split == "unlabeled" else len(folder.classes)
        )
        said = {label for name, names, _ in rows for label in names if file.path.relative_to(photos).as_posix() == name}
        said |= {part for label in said for part in label.split(";")}
        assert {folder.classes[label] for label in file.labels} <= said


@a_new_folder
@given(
    members=st.dictionaries(
        st.one_of(st.sampled_from([*NAMES, "../x", "/x"]), st.text(max_size=12)), st.binary(max_size=8), max_size=6
    ),
    cut=st.one_of(st.none(), st.integers(1, 400)),
)
def test_any_zip(tmp_path: Path, members: dict[str, bytes], cut: int | None) -> None:
    inside = tmp_path / "inside"
    shutil.rmtree(inside, ignore_errors=True)
    inside.mkdir()
    with zipfile.ZipFile(inside / "a.zip", "w") as archive, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Duplicate name", UserWarning)  # of names that differ after a NUL only
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name.encode("utf-8", "replace").decode()), data)
    whole = (inside / "a.zip").read_bytes()
    (inside / "a.zip").write_bytes(whole[:-cut] if cut else whole)
    try:
        folder = open_photos(inside / "a.zip", ImagesConfig(), runs=inside / "runs")
    except DataError:
        folder = None
    assert {path.name for path in inside.iterdir()} <= {"a.zip", "runs"}
    assert {path.name for path in tmp_path.iterdir()} == {"inside"}
    for file in folder.files if folder else ():
        assert file.path.resolve().is_relative_to((inside / "runs" / ".unpacked").resolve())
