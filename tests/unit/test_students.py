"""What a student's recipe is by rule, before any pilot."""

import pytest

from potstill.settings import from_mapping
from potstill.students import _batch_size, epochs_for, parse_students, views_for


@pytest.mark.parametrize(
    ("settings", "photos", "expected"),
    [
        ({"student.weights": "auto"}, 1500, 64),
        ({"student.weights": "none"}, 1500, 16),
        ({"student.weights": "none", "student.method": "dist"}, 1500, 64),
        ({"student.weights": "none", "student.batch_size": 48}, 1500, 48),
        ({"student.weights": "none"}, 100, 12),
        ({"student.weights": "auto"}, 100, 12),
        ({"student.weights": "auto"}, 20, 8),
    ],
)
def test_batches_are_smaller_from_scratch_and_of_few_photos(
    settings: dict[str, object], photos: int, expected: int
) -> None:
    config = from_mapping({"student.models": ["mobilenetv1_025"], **settings})
    (spec,) = parse_students(config)
    assert _batch_size(config, spec, photos) == expected


@pytest.mark.parametrize(
    ("settings", "photos", "epochs", "views"),
    [
        ({"student.weights": "auto"}, 1200, 50, 24),
        ({"student.weights": "none"}, 1200, 100, 24),
        ({"student.weights": "auto"}, 4000, 15, 15),
        ({"student.weights": "none"}, 4000, 30, 15),
        ({"student.weights": "none"}, 50, 200, 24),
        ({"student.weights": "auto"}, 100_000, 10, 10),
        ({"student.weights": "none", "student.epochs": 6}, 1200, 6, 6),
    ],
)
def test_from_scratch_takes_twice_as_long_on_the_same_views(
    settings: dict[str, object], photos: int, epochs: int, views: int
) -> None:
    config = from_mapping({"student.models": ["mobilenetv1_025"], **settings})
    (spec,) = parse_students(config)
    assert epochs_for(config, spec, photos) == epochs
    assert views_for(config, photos) == views
