"""A short, seeded part of `make torture`; changes and power loss take too long for it."""

from pathlib import Path

import pytest
from tests.torture.__main__ import torture

CASES = {"damage": 2, "disks": 1, "kills": 1, "pages": 1, "photos": 12, "servers": 1, "settings": 20}


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_is_wrong(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    results = torture(list(CASES), seed=1, minutes=20, home=tmp_path, journal=journal, most=CASES)
    assert [result for result in results if result.verdict == "WRONG"] == []
    assert len(results) == sum(CASES.values())
    again = torture(list(CASES), seed=1, minutes=20, home=tmp_path, journal=journal, most=CASES)
    assert again == results, "the journal is taken up, and nothing is done twice"
