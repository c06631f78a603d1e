"""Arrays written row by row come back as they were, wherever the writer was killed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from potstill.data.arrays import RowReader, RowWriter
from potstill.errors import StaleError
from potstill.run.files import remove_sealed

shapes = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))
dtypes = st.sampled_from([np.uint8, np.float16, np.float32, np.int64])
in_tmp = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def _values(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


@in_tmp
@given(shape=shapes, dtype=dtypes, cut=st.integers(0, 10_000), pieces=st.integers(1, 4))
def test_interrupted_at_any_byte_it_goes_on_after_the_last_whole_row(
    tmp_path: Path, shape: tuple[int, ...], dtype: type, cut: int, pieces: int
) -> None:
    path = tmp_path / "rows.npy"
    values = _values(shape, dtype)
    first = RowWriter(path, shape, dtype)
    first.write(values)
    del first  # killed before close
    assert not path.exists()
    growing = path.with_name("rows.npy.growing")
    data = growing.read_bytes()
    growing.write_bytes(data[: cut % (len(data) + 1)])
    writer = RowWriter(path, shape, dtype)
    assert writer.done == cut % (len(data) + 1) // (len(data) // shape[0])
    for part in np.array_split(values[writer.done :], pieces):
        writer.write(part)
    writer.close()
    assert (np.load(path, allow_pickle=False) == values).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.npy", "rows.npy.seal"]
    for leading in (1, 2):
        reader = RowReader(path, leading=leading)
        assert (reader.shape, reader.dtype) == (shape, np.dtype(dtype))
        positions = np.indices(shape[:leading]).reshape(leading, -1)[:, ::-1]
        assert (reader(*positions) == values[tuple(positions)]).all()
    remove_sealed(path)


def test_closing_too_early_is_a_bug(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "a.npy", (4, 2), np.float32)
    with pytest.raises(AssertionError):
        writer.close()
    with pytest.raises(AssertionError):
        writer.write(np.ones((1, 3)))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((5, 3)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StaleError, match="damaged"):
        RowReader(path)
