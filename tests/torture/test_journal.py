"""The campaign's own books: what is made, repeated and shown."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.torture import __main__ as campaign
from tests.torture.cases import RIGHT, WRONG, Case, Outcome
from tests.torture.page import write_page


def test_what_went_wrong_is_repeated_first_and_both_results_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    broken = {1, 3}

    def cases(seed: int, home: Path) -> Iterator[Case]:
        number = -1
        while True:
            number += 1

            def run(folder: Path, number: int = number) -> Outcome:
                made.append(number)
                return Outcome(WRONG if number in broken else RIGHT)

            yield Case("a kind", f"case {number}", run)

    def make(most: int, again: bool = False) -> list[campaign.Result]:
        made.clear()
        return campaign.torture(
            ["kills"], 0, 1, tmp_path, journal=tmp_path / "results/seed-0.jsonl", most={"kills": most}, again=again
        )

    monkeypatch.setitem(campaign.CAMPAIGNS, "kills", cases)
    make(4)
    assert made == [0, 1, 2, 3]
    make(5)
    assert made == [4], "goes on"
    broken.remove(3)
    results = make(6, again=True)
    assert made == [1, 3, 5]
    assert make(6) == results
    assert made == [], "all are made, and what is still wrong is repeated only if asked for"

    journal = tmp_path / "results/seed-0.jsonl"
    lines = journal.read_text("utf-8").splitlines()
    journal.write_text("\n".join(line for line in lines if '"number": 2,' not in line) + "\n", "utf-8")
    results = make(6)
    assert made == [2], "a journal of several parts may have gaps"

    write_page(tmp_path / "page.md", list(campaign.by_case(results).values()), 0)
    page = (tmp_path / "page.md").read_text("utf-8")
    assert "| a kind | 6 | 5 | 0 | 1 |" in page, "the last result of each case counts"
    assert "- Case 3 was wrong at commit" in page
    assert "Case 1 was" not in page, "it still is"
