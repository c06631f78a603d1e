"""Tables of the terminal lose no column and no letter, in a pipe and on a narrow terminal."""

import io

import pytest
from rich.console import Console

from potstill.monitoring.tables import print_table, text_table
from potstill.tools.curve import Point, curve_table

LONG = "mobilenetv3_small_100_with_a_very_long_name_" * 4
TABLE = text_table(["model", "accuracy", "note"], [[LONG, "91.0%", "[red]kept[/]"], ["b", "7.5%", ""]], right=(1,))


def test_a_pipe_gets_whole_lines_without_colors_and_markup() -> None:
    out = io.StringIO()
    print_table(TABLE, out)
    header, rule, first, second = out.getvalue().splitlines()
    assert header.split() == ["model", "accuracy", "note"]
    assert set(rule) <= {"─", " "}
    assert first.split() == [LONG, "91.0%", "[red]kept[/]"]
    assert second.index("7.5%") + 4 == first.index("91.0%") + 5, "numbers end in one column"
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_folds_and_loses_nothing(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(TABLE)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert LONG in "".join(line.split()[0] for line in lines[2:] if line.strip())
    assert "…" not in out.getvalue()


def test_the_learning_curve_has_a_row_per_number_of_labels() -> None:
    points = [Point(n, "small", 0.9, 0.8, 0.7, 0.1, -0.01, 0.2, 300, 3) for n in (20, 50)]
    out = io.StringIO()
    print_table(curve_table(points), out)
    _, _, first, second = out.getvalue().splitlines()
    assert first.split() == ["small", "20", "90.0%", "80.0%", "70.0%", "+10.0", "(-1.0", "to", "+20.0)"]
    assert second.split()[:2] == ["small", "50"]
