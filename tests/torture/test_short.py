"""A short, seeded part of `make torture`; changes and power loss take too long for it."""

from pathlib import Path

import pytest
from tests.torture.__main__ import torture

CASES = {"damage": 2, "disks": 1, "pages": 1, "photos": 12, "servers": 1, "settings": 20}
KILLS = {"kills": 1}
"""Long; in the tests of every day, tests/end_to_end/test_kill.py kills runs in every stage."""


@pytest.mark.slow
@pytest.mark.parametrize("cases", [CASES, pytest.param(KILLS, marks=pytest.mark.long)])
def test_nothing_is_lost_and_nothing_is_wrong(cases: dict[str, int], tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    results = torture(list(cases), seed=1, minutes=20, home=tmp_path, journal=journal, most=cases)
    assert [result for result in results if result.verdict == "WRONG"] == []
    assert len(results) == sum(cases.values())
    again = torture(list(cases), seed=1, minutes=20, home=tmp_path, journal=journal, most=cases)
    assert again == results, "the journal is taken up, and nothing is done twice"
