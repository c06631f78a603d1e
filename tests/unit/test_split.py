"""The split of a flat folder depends on each photo alone."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import CLASSES, draw_photo, make_photos

from potstill.data.splits import in_share, unit_hash
from potstill.errors import StaleError
from potstill.get.sources.local import _folder_candidates

keys = st.text("0123456789abcdef", min_size=8, max_size=64)


def test_the_numbers_are_the_same_for_ever() -> None:
    """Fixed values: should they ever change, every user's photos would move between train and test."""
    assert unit_hash("a" * 64, seed=0, purpose="test") == 0.061902127226474535
    assert unit_hash("a" * 64, seed=1, purpose="val") == 0.703196008872087


@given(keys, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_contains_every_smaller_one(key: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert not in_share(key, low, seed=0, purpose="test") or in_share(key, high, seed=0, purpose="test")


def test_shares_are_met_and_purposes_and_seeds_independent() -> None:
    names = [f"{n:064x}" for n in range(4000)]
    draws = {
        (seed, purpose): np.array([in_share(n, 0.25, seed=seed, purpose=purpose) for n in names])
        for seed in (0, 1)
        for purpose in ("test", "val")
    }
    assert all(abs(d.mean() - 0.25) < 0.03 for d in draws.values())
    both = draws[0, "test"] & draws[0, "val"]
    assert abs(both.mean() - 0.0625) < 0.02
    assert abs((draws[0, "test"] & draws[1, "test"]).mean() - 0.0625) < 0.02


def _splits(folder: Path) -> dict[str, str]:
    import csv

    with (folder / "1_images/images.csv").open(encoding="utf-8") as file:
        return {row["sha256"]: row["split"] for row in csv.DictReader(file)}


def test_adding_and_renaming_photos_never_moves_one(tmp_path: Path, packer) -> None:
    data = make_photos(tmp_path / "flat", {"": 24})
    packer(data, tmp_path / "before", size=32, duplicate_bits=-1)
    before = _splits(tmp_path / "before")
    for name in CLASSES:
        for number in range(900, 910):
            draw_photo(name, number).save(data / name / f"a-first-{number}.png")
        old = sorted((data / name).iterdir())[-1]
        old.rename(old.with_name("renamed.bin"))
    packer(data, tmp_path / "after", size=32, duplicate_bits=-1)
    after = _splits(tmp_path / "after")
    assert len(before) == 72
    assert len(after) == 102
    assert {key: after[key] for key in before} == before
    assert set(before.values()) == {"train", "val", "test"}


def test_a_larger_val_share_keeps_the_test_photos(tmp_path: Path, packer) -> None:
    data = make_photos(tmp_path / "flat", {"": 24})
    packer(data, tmp_path / "one", size=32)
    packer(data, tmp_path / "two", size=32, val_share=0.4)
    one, two = _splits(tmp_path / "one"), _splits(tmp_path / "two")
    assert {k for k, s in one.items() if s == "test"} == {k for k, s in two.items() if s == "test"}
    assert {k for k, s in one.items() if s == "val"} < {k for k, s in two.items() if s == "val"}


def test_photos_of_ones_own_keep_the_keys_that_decide_their_split(tmp_path: Path) -> None:
    """Another key or group would move photos of folders that were filled before from train to test."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.jpg").write_bytes(b"")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "b.jpg").write_bytes(b"")
    found = {candidate.group: candidate.key for candidate in _folder_candidates(tmp_path)}
    assert found["bring:cat/a.jpg"] == f"bring-{int(unit_hash('cat/a.jpg', seed=0, purpose='key') * 2**53):014x}"


def _stage_files(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "1_images").iterdir()}


def test_touched_photos_do_not_make_a_finished_stage_stale_but_changed_ones_do(tmp_path: Path, packer) -> None:
    data = make_photos(tmp_path / "flat", {"": 6})
    (data / CLASSES[0] / "broken.png").write_bytes(b"no photo")
    packer(data, tmp_path / "run", size=32)
    before = _stage_files(tmp_path / "run")
    for photo in data.rglob("*.png"):
        os.utime(photo, (1, 1))
    packer(data, tmp_path / "run", size=32)
    assert _stage_files(tmp_path / "run") == before
    photo = next((data / CLASSES[1]).iterdir())
    content = bytearray(photo.read_bytes())
    content[-20] ^= 1
    photo.write_bytes(bytes(content))
    with pytest.raises(StaleError, match="listing_sha256"):
        packer(data, tmp_path / "run", size=32)


def test_a_rejected_file_that_was_replaced_makes_the_stage_stale(tmp_path: Path, packer) -> None:
    data = make_photos(tmp_path / "flat", {"": 6})
    (data / CLASSES[0] / "broken.png").write_bytes(b"no photo")
    packer(data, tmp_path / "run", size=32)
    draw_photo(CLASSES[0], 999).save(data / CLASSES[0] / "broken.png")
    with pytest.raises(StaleError):
        packer(data, tmp_path / "run", size=32)
