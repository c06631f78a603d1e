"""Photos without labels that resemble none of the labeled ones: found, listed, and used by nobody."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests import support
from tests.support import TINY, context_of, make_photos, run_on

from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.unlike import Unlike, read_unlike, used_rows, write_unlike
from potstill.errors import DataError, StaleError
from potstill.run.folder import Run
from potstill.run.layout import unlike_path
from potstill.teacher import unlike
from potstill.teacher.unlike import find_unlike, similarities

JUNK = 12


def groups(random: np.random.Generator, *, count: int, spread: float = 1.0) -> np.ndarray:
    """Photos of three classes: three directions, and noise."""
    centers = np.random.default_rng(0).normal(size=(3, 64)) * 2
    return centers[np.arange(count) % 3] + random.normal(0, spread, (count, 64))


def test_photos_of_another_kind_are_found_and_those_of_the_classes_are_not() -> None:
    random = np.random.default_rng(1)
    labeled, same, other = groups(random, count=60), groups(random, count=200), random.normal(0, 1, (50, 64)) * 2
    positions, similarity = find_unlike(np.concatenate([labeled, same, other]), 60)
    found = set(positions.tolist())
    assert set(range(260, 310)) <= found
    assert len(found & set(range(60, 260))) <= 10
    assert (np.diff(similarity) >= 0).all(), "the least similar first"


def test_a_labeled_photo_is_compared_with_others_only() -> None:
    features = groups(np.random.default_rng(2), count=40)
    twice = np.concatenate([features, features])
    own, copies = np.split(similarities(twice, 40), 2)
    assert (copies > own).all(), "a copy has the original beside it, the original has not"


@settings(max_examples=25, deadline=None)
@given(labeled=st.integers(2, 30), pool=st.integers(1, 30), seed=st.integers(0, 99))
def test_any_number_of_photos_can_be_compared(labeled: int, pool: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(labeled + pool, 5))
    found = similarities(features, labeled)
    assert found.shape == (labeled + pool,)
    assert np.isfinite(found).all()
    assert (np.abs(found) <= 1 + 1e-5).all()
    positions, _ = find_unlike(features, labeled)
    assert ((positions >= labeled) & (positions < labeled + pool)).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(3).normal(size=(50, 8))
    whole = similarities(features, 20)
    monkeypatch.setattr(unlike, "_BLOCK", 7)
    assert similarities(features, 20) == pytest.approx(whole, abs=1e-6)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, packer: Any) -> PixelStore:
    """Six labeled photos per class, twelve more without labels, and twelve of nothing but noise."""
    folder = tmp_path_factory.mktemp("mixed")
    data = make_photos(folder / "data", {"train": 6, "val": 4, "test": 1, "unlabeled": 4})
    random = np.random.default_rng(0)
    for number in range(JUNK):
        pixels = random.integers(0, 256, (80, 96, 3), np.uint8)
        Image.fromarray(pixels).save(data / "unlabeled" / f"noise-{number}.png")
    return packer(data, folder / "run", size=64)


def teach(run: Run, **settings: Any) -> list[str]:
    """Stages 2 and 3; returns what was said."""
    teacher = TeacherConfig(
        train="probe",
        **{
            "model": (TINY["teacher.model"][0],),
            "weights": "package",
            "size": 64,
            "probe_views": 2,
            "probe_min_steps": 60,
            "folds": 2,
            "min_gain": 0,
            **settings,
        },
    )
    said: list[str] = []
    context = context_of(run)
    context.reporter.info = said.append  # type: ignore[method-assign]
    support.teach(teacher, ViewsConfig(), context)
    support.label(teacher, ViewsConfig(), 4, context)
    return said


def names_of(store: PixelStore, rows: np.ndarray) -> set[str]:
    """File names without number."""
    lines = (store.folder / "images.csv").read_text("utf-8").splitlines()[1:]
    return {Path(lines[row].split(",")[1]).name.partition("-")[0] for row in rows}


def test_they_are_left_out_of_teacher_and_soft_labels(mixed: PixelStore, tmp_path: Path) -> None:
    run = run_on(mixed, tmp_path / "run")
    said = teach(run)
    pool = mixed.rows("unlabeled")
    left_out = read_unlike(run)
    kept = len(pool) - len(left_out)
    assert names_of(mixed, np.array([photo.row for photo in left_out])) >= {"noise"}
    assert f"{len(pool)} photos without labels: {kept} used, {len(left_out)} unlike any" in "\n".join(said)
    used = used_rows(run, mixed)
    assert names_of(mixed, used) == {"disc", "frame", "stripes"}
    assert len(used) == len(mixed.rows("train")) + kept
    soft = SoftLabels.open(run)
    assert (soft.photos == used).all()
    partners = soft.views["partner"]
    assert np.isin(partners[partners >= 0], used).all(), "none is blended with a photo that is left out"
    features = np.load(run.teacher / "features.npy", mmap_mode="r")
    assert len(features) == len(used)
    of_first_views = soft.features(np.arange(len(used)), np.zeros(len(used), int))
    assert (of_first_views == features[:, 1, : of_first_views.shape[-1]]).all(), "what was looked at is used again"
    assert not (run.teacher / "plain.npy").exists()


def test_they_may_be_kept(mixed: PixelStore, tmp_path: Path) -> None:
    run = run_on(mixed, tmp_path / "run")
    said = teach(run, unlike="keep")
    assert not unlike_path(run).exists()
    assert len(SoftLabels.open(run).photos) == len(mixed.rows("train", "unlabeled"))
    assert not [line for line in said if "unlike any" in line]


def test_the_first_of_several_teachers_decides_for_all(
    mixed: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_on(mixed, tmp_path / "run")
    said = teach(run, model=("efficientnet_lite0", "mobilenetv1_025"), weights="none", unlabeled="ignore")
    assert len([line for line in said if "unlike any" in line]) == 1
    assert len(SoftLabels.open(run).photos) == len(used_rows(run, mixed))


def test_what_is_left_out_is_an_input_of_the_soft_labels(mixed: PixelStore, tmp_path: Path) -> None:
    run = run_on(mixed, tmp_path / "run")
    teach(run)
    rows = np.array([photo.row for photo in read_unlike(run)])
    write_unlike(run, rows[:-1], np.zeros(len(rows) - 1))
    with pytest.raises(StaleError, match="3_soft_labels was made from other"):
        teach(run)


def test_an_interrupted_look_goes_on(mixed: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = run_on(mixed, tmp_path / "whole"), run_on(mixed, tmp_path / "cut")
    teach(whole)
    with monkeypatch.context() as patch:
        patch.setattr(unlike, "find_unlike", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            teach(cut)
    assert (cut.teacher / "plain.npy").is_file()
    patched = []
    with monkeypatch.context() as patch:
        store = unlike.store_features
        patch.setattr(unlike, "store_features", lambda *args: (patched.append(1), store(*args)))
        teach(cut)
    assert not patched, "no photo is looked at twice"
    assert unlike_path(cut).read_bytes() == unlike_path(whole).read_bytes()


def test_the_list_is_read_as_it_was_written_or_refused(mixed: PixelStore, tmp_path: Path) -> None:
    run = run_on(mixed, tmp_path / "run")
    assert read_unlike(run) == []
    row = int(mixed.rows("unlabeled")[0])
    write_unlike(run, np.array([row]), np.array([-0.12345], np.float32))
    (found,) = read_unlike(run)
    assert found == Unlike(row, found.path, -0.1235)
    assert found.path.startswith("unlabeled/")
    unlike_path(run).write_text("row,path\nx,y\n")
    with pytest.raises(DataError, match="is damaged"):
        read_unlike(run)
