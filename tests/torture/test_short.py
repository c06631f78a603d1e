"""A short, seeded part of `make torture`."""

from pathlib import Path

import pytest
from tests.torture.__main__ import CAMPAIGNS, torture

CASES = {"damage": 12, "disks": 4, "kills": 2, "photos": 60, "settings": 200}


@pytest.mark.slow
@pytest.mark.parametrize("part", list(CAMPAIGNS))
def test_nothing_is_lost_and_nothing_is_wrong(part: str, tmp_path: Path) -> None:
    results = torture([part], seed=1, minutes=9, home=tmp_path, most=CASES[part])
    assert [result for result in results if result.verdict == "WRONG"] == []
    assert len(results) == CASES[part]
    again = torture([part], seed=1, minutes=9, home=tmp_path, most=CASES[part])
    assert again == results, "the journal is taken up"
