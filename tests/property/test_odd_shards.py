"""Any tar is listed as Python's tarfile lists it, and damage ends in a DataError, never in another error."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill.errors import DataError
from potstill.images.photo_index import PhotoIndex
from potstill.images.stored import Container
from potstill.images.tar_headers import tar_members
from potstill.images.tar_shards import index_tar

NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=120)
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6)
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


def tar_of(members: list[tuple[str, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in members:
            item = tarfile.TarInfo(name.strip("/") or "x")
            item.size, item.mtime = len(data), 0.5  # type: ignore[assignment]
            tar.addfile(item, io.BytesIO(data))
    return buffer.getvalue()


@given(MEMBERS, FORMATS)
@settings(max_examples=60)
def test_members_are_those_of_tarfile(members: list[tuple[str, bytes]], form: int) -> None:
    data = tar_of(members, form)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(item.name, item.offset_data, item.size, item.isreg()) for item in tar if not item.isdir()]
    assert [tuple(member) for member in tar_members(io.BytesIO(data), Path("x.tar"))] == expected


DEEP = "d/" * 60 + "b"
LABELED = tar_of(
    [("a.jpg", b"x" * 600), ("a.cls", b"1"), (f"{DEEP}.png", b"y"), (f"{DEEP}.json", b'{"label": 2}')],
    tarfile.PAX_FORMAT,
)


def index_of(data: bytes, path: Path) -> PhotoIndex | str:
    """The photos of a shard, or what is wrong with it."""
    path.write_bytes(data)
    try:
        return index_tar(Container.of(path), "")
    except DataError as error:
        return str(error)


@given(st.integers(0, len(LABELED)), st.integers(0, len(LABELED) - 1), st.integers(0, 255))
@settings(max_examples=150)
def test_damage_is_a_data_error_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, end: int, at: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    whole = index_of(LABELED, path)
    assert not isinstance(whole, str)
    assert len(whole.rows) == 2
    data = bytearray(LABELED)
    data[at] = value
    found = index_of(bytes(data[:end]) if value % 2 else bytes(data), path)
    if isinstance(found, str):
        assert str(path) in found
    else:
        assert all(0 <= row["offset"] <= row["offset"] + row["size"] <= len(data) for row in found.rows)
