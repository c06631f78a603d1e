"""Shards: the same bytes whatever their number, and what is there is not made again."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import context_of

from potstill.context import Context
from potstill.data.arrays import RowWriter
from potstill.errors import DamageError
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.shards import MOST, RESULT, shards, write_in_shards


class Ended:
    has_ended = True

    def check(self) -> None: ...

    def stop(self) -> None: ...


@dataclass
class Here:
    """An engine that works in this process, and remembers what it did."""

    started: list[str] = field(default_factory=list)

    has_one_device = False
    largest_node = 1

    def room(self, processes: int) -> None:
        return None

    def nodes_without(self, files: Sequence[Path]) -> list[str] | None:
        return None

    def describe(self) -> list[str]:
        return []

    def start(self, module: str, job: Path, *, threads: int, processes: int = 1) -> Ended:
        self.started.append(job.parent.name)
        importlib.import_module(module).work(job)
        return Ended()


def work(job: Path) -> None:
    """As a task does: the rows from `start` to `stop`, each its number."""
    values = read_json(job)
    rows = np.arange(values["start"], values["stop"])[:, None].repeat(3, 1)
    rows = rows[: len(rows) - values["too_few"]]
    writer = RowWriter(job.with_name(RESULT), rows.shape, np.int32)
    writer.write(rows)
    writer.close()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Here:
    monkeypatch.setattr("potstill.engines.engine._POLL_SECONDS", 0)
    return Here()


def context(run: Path, engine: Here, jobs: int) -> Context:
    plain = context_of(Run(run))
    return replace(plain, engine=engine, machine=replace(plain.machine, jobs=jobs))


def write(folder: Path, engine: Here, *, jobs: int = 2, photos: int = 37, too_few: int = 0) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    writer = RowWriter(folder / "rows.npy", (photos, 3), np.int32)
    values = {"too_few": too_few}
    name = "tests.unit.test_shards"
    write_in_shards(writer, name, values, context(folder, engine, jobs), batch=4, label="Rows", part="")
    return np.load(folder / "rows.npy")


def test_the_rows_are_in_order_whatever_the_number_of_tasks(tmp_path: Path, engine: Here) -> None:
    for jobs in (1, 2, 5):
        rows = write(tmp_path / str(jobs), engine, jobs=jobs)
        assert np.array_equal(rows, np.arange(37)[:, None].repeat(3, 1))
        assert sorted(path.name for path in (tmp_path / str(jobs)).iterdir()) == ["rows.npy", "rows.npy.seal"]
    assert len(engine.started) == 4 + 8 + 10, "10 batches"


def test_shards_that_are_there_are_not_made_again(
    tmp_path: Path, engine: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = engine.start

    def die(module: str, job: Path, *, threads: int, processes: int = 1) -> Ended:
        if len(engine.started) == 3:
            raise KeyboardInterrupt
        return start(module, job, threads=threads)

    monkeypatch.setattr(engine, "start", die)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, engine)
    first = list(engine.started)
    monkeypatch.setattr(engine, "start", start)
    rows = write(tmp_path, engine)
    assert np.array_equal(rows[:, 0], np.arange(37))
    assert len(engine.started) == len(set(engine.started)) == 8
    assert engine.started[:3] == first


def test_a_shard_that_was_damaged_meanwhile_is_made_again(
    tmp_path: Path, engine: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("potstill.shards._append", die)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, engine)
    shard = next(tmp_path.rglob(RESULT))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert np.array_equal(write(tmp_path, engine)[:, 0], np.arange(37))
    assert len(engine.started) == 8 + 1


def test_a_shard_of_another_shape_is_refused(tmp_path: Path, engine: Here) -> None:
    with pytest.raises(DamageError, match="is not the shard that was asked for"):
        write(tmp_path, engine, too_few=1)


@given(photos=st.integers(1, 10**6), at_once=st.integers(1, 1000), batch=st.integers(1, 64))
def test_shards_begin_where_batches_do(photos: int, at_once: int, batch: int) -> None:
    found = shards(photos, at_once, batch)
    assert found[0].start == 0
    assert found[-1].stop == photos
    assert all(one.stop == next_one.start and one.stop % batch == 0 for one, next_one in pairwise(found))
    batches = [-(-len(shard) // batch) for shard in found]
    assert max(batches) - min(batches) <= 1, "as equal as they can be"
    assert max(map(len, found)) < MOST + batch
    assert len(found) % at_once == 0 or batches == [1] * len(found)
