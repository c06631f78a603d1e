"""What a student's recipe is by rule, before any pilot."""

import pytest

from potstill.settings import from_mapping
from potstill.students import _batch_size, parse_students


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
