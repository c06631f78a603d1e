"""Photos to judge a model by: any split, one class, no class, tables; and the statistics that compare them."""

from pathlib import Path

import numpy as np
import pytest
from tests.support import make_photos, table_of

from potstill import metrics
from potstill.config.schema import ImagesConfig
from potstill.errors import DataError
from potstill.images.new_photos import NewPhotos, read_new_photos


def read(data: Path, **images: object) -> NewPhotos:
    return read_new_photos(data, ImagesConfig(**images), runs=data.parent)


def counts(found: NewPhotos) -> dict[str, int]:
    labels = [label for _, label in found.files]
    return {label: labels.count(label) for label in sorted(set(labels))}


def test_photos_of_all_splits_are_taken(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "data", {"train": 2, "val": 1, "test": 3, "unlabeled": 4})
    assert counts(read(data)) == {"": 12, "disc": 6, "frame": 6, "stripes": 6}
    assert counts(read(data / "test")) == {"disc": 3, "frame": 3, "stripes": 3}


def test_one_class_is_enough_and_none_is_needed(tmp_path: Path) -> None:
    one = make_photos(tmp_path / "one", {"": 3}, classes=["disc"])
    assert counts(read(one)) == {"disc": 3}
    none = read(one / "disc")
    assert counts(none) == {"": 3}
    assert "no class folders: photos without labels" in none.notes[0]


def test_photos_beside_class_folders_are_counted(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "data", {"": 2})
    (data / "disc" / "disc-1.png").rename(data / "loose.png")
    found = read(data)
    assert counts(found) == {"disc": 1, "frame": 2, "stripes": 2}
    assert any("1 photo in no class folder" in note and "loose.png" in note for note in found.notes)


def test_a_table_of_one_class_is_read(tmp_path: Path) -> None:
    table_of(make_photos(tmp_path / "flat", {"": 2}, classes=["disc"]), tmp_path / "table")
    assert counts(read(tmp_path / "table")) == {"disc": 2}
    assert counts(read(tmp_path / "table" / "labels.csv")) == {"disc": 2}


def test_a_row_of_a_photo_that_is_not_there_and_a_bad_column_are_named(tmp_path: Path) -> None:
    data = table_of(make_photos(tmp_path / "flat", {"": 2}), tmp_path / "table")
    with (data / "labels.csv").open("a", encoding="utf-8") as file:
        file.write("gone.png,disc\n")
    found = read(data)
    assert len(found.files) == 6
    assert any("gone.png" in note for note in found.notes), found.notes
    with pytest.raises(Exception, match=r"labels.csv has no column 'kind'"):
        read(data, label_column="kind")


@pytest.mark.parametrize(("make", "says"), [(False, "There is no folder"), (True, "There are no photos in")])
def test_nothing_to_read_is_refused(make: bool, says: str, tmp_path: Path) -> None:
    if make:
        (tmp_path / "new").mkdir()
    with pytest.raises(DataError, match=says):
        read(tmp_path / "new")


def test_a_difference_of_shares_is_newcombes(tmp_path: Path) -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80, and 9/10 against 3/10."""
    for right, total, other, other_total, low, high in (
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
    ):
        found = metrics.difference_of_shares(*(np.array([n]) for n in (right, total, other, other_total)))
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_another_mix_of_classes_is_no_difference() -> None:
    """A model with 95 % of one class and 60 % of the other is as good on photos of which nearly all are the other."""
    total, test_total = np.array([20, 380]), np.array([400, 400])
    right, test_right = np.array([19, 228]), np.array([380, 240])
    assert right.sum() / total.sum() < test_right.sum() / test_total.sum() - 0.15
    found = metrics.difference_of_shares(right, total, test_right, test_total)
    assert found.value == pytest.approx(0.0, abs=1e-12)
    assert found.low < 0 < found.high


@pytest.mark.parametrize(("shares", "sizes"), [((0.9, 0.7, 0.97), (40, 25, 60)), ((0.5, 0.6), (150, 30))])
def test_the_interval_of_a_difference_holds_it_as_often_as_it_says(
    shares: tuple[float, ...], sizes: tuple[int, ...]
) -> None:
    generator, held = np.random.default_rng(0), 0
    total, test_total, drop = np.array(sizes), np.array([66] * len(sizes)), 0.05
    for _ in range(400):
        right = generator.binomial(total, np.array(shares) - drop)
        found = metrics.difference_of_shares(right, total, generator.binomial(test_total, shares), test_total)
        held += found.low <= -drop <= found.high
    assert 0.93 <= held / 400 <= 0.995


def test_samples_of_one_distribution_are_rarely_called_different() -> None:
    generator = np.random.default_rng(0)
    values = [metrics.kolmogorov_smirnov(generator.random(80), generator.random(150))[1] for _ in range(500)]
    assert 0.02 <= np.mean(np.array(values) < 0.05) <= 0.08
    distance, p = metrics.kolmogorov_smirnov(generator.random(80), generator.random(150) ** 2)
    assert distance > 0.15
    assert p < 0.01
    assert metrics.kolmogorov_smirnov(np.arange(50.0), np.arange(50.0)) == (0.0, 1.0)
