"""Numbers and their nouns agree: one photo, two photos."""

import re
from pathlib import Path

import pytest

import potstill
from potstill.report import page
from potstill.wording import counted, noun

SOURCE = Path(potstill.__file__).parent

NOUNS = "photos|students|seeds|views|epochs|classes|files|models|rows|cells|runs|labels|groups|pilots|trainings|tensors"
BY_HAND = re.compile(
    rf"(?<!of )\{{(?!counted)[^{{}}]*(?::,|len\([^{{}}]*|seeds|views|epochs)\}}(?: \w+)? (?:{NOUNS})\b"
)
"""A number that is followed by a word for several."""

NEVER_ONE = ("MAX_", "len(top)", "len(leaves)", "len(found)", "found.total()", "len(students)", "metadata.num_rows")


def test_one_has_no_s() -> None:
    assert counted(1, "photo") == "1 photo"
    assert counted(1970, "photo") == "1,970 photos"
    assert counted(0, "class") == "0 classes"
    assert counted(2, "row names", "rows name") == "2 rows name"
    assert counted(3, "photo of A", "photos of A") == "3 photos of A", "A is no unit here"
    assert counted(3, "MiB") == "3 MiB", "a unit"
    assert counted(4, "epoch") == "4 epochs"
    assert counted(5, "").rstrip() == "5"
    assert noun(1.0, "point") == "point"


def test_no_message_counts_by_hand() -> None:
    lines = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if BY_HAND.search(line) and not any(name in line for name in NEVER_ONE) and "ValueError" not in line
    ]
    assert lines == []
    assert BY_HAND.search('f"{len(pool):,} photos without"'), "it would find one"
    assert BY_HAND.search('f"{self.seeds} seeds"')


@pytest.mark.parametrize(("value", "shown"), [(20.0, "20"), (19.66, "19.7"), (0.0, "0")])
def test_numbers_of_photos_have_decimals_only_where_they_say_something(value: float, shown: str) -> None:
    assert page._environment().from_string("{{ value|tenths }}").render(value=value) == shown
