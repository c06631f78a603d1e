"""Nothing before the comparison may look at a test photo or its label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import TINY

import potstill
from potstill import pipeline
from potstill.data.pixels import PixelStore
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each reading of test photos or labels; a reading before the comparison is an AssertionError."""
    read: list[str] = []
    comparing = False
    whole_photo, whole_labels, compare = PixelStore.photo, PixelStore.labels, pipeline.compare

    def watched(store: PixelStore, rows: Any) -> None:
        if np.isin(rows, store.rows("test")).any():
            assert comparing, "a test photo or label was read before the comparison"
            read.append("test")

    def photo(store: PixelStore, row: int) -> Any:
        watched(store, row)
        return whole_photo(store, row)

    def labels(store: PixelStore, rows: np.ndarray) -> np.ndarray:
        watched(store, rows)
        return whole_labels(store, rows)

    def comparison(*arguments: Any) -> None:
        nonlocal comparing
        assert read == []
        comparing = True
        compare(*arguments)

    monkeypatch.setattr(PixelStore, "photo", photo)
    monkeypatch.setattr(PixelStore, "labels", labels)
    monkeypatch.setattr(pipeline, "compare", comparison)
    return read


def test_the_test_split_is_unread_before_the_comparison(photos: Path, tmp_path: Path, read: list[str]) -> None:
    settings = {**TINY, "seeds": 1, "student.epochs": 1, "teacher.probe_epochs": 5}
    potstill.distill(photos, settings=settings, run=tmp_path / "run", reporter=Reporter(quiet=True))
    assert len(read) > 24, "the watch works: the comparison did read them"


@pytest.mark.parametrize("peek", ["photo", "labels"])
@pytest.mark.parametrize("stage", ["train_teacher", "store_soft_labels", "train_students"])
@pytest.mark.usefixtures("read")
def test_a_stage_that_peeks_is_caught(
    stage: str, peek: str, run_copy: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peeking(*arguments: Any) -> None:
        store = PixelStore(arguments[1].run.images)
        rows = store.rows("test")
        getattr(store, peek)(rows if peek == "labels" else int(rows[0]))

    monkeypatch.setattr(pipeline, stage, peeking)
    with pytest.raises(AssertionError, match="before the comparison"):
        potstill.distill(photos, settings=TINY, run=run_copy.path, reporter=Reporter(quiet=True))
