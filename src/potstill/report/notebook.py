"""How a finished run shows itself in a notebook: verdict, table and a plot, without any style of the page around it."""

import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from rich.table import Table

from potstill.errors import ConfigError, did_you_mean
from potstill.report import figures
from potstill.report.findings import reasons_not_to_rely
from potstill.report.read import RunFiles
from potstill.report.table import comparison_note, comparison_table
from potstill.run.files import write_text
from potstill.run.results import Comparison

_STYLE = """
.potstill { background: #ffffff; font: 11px system-ui, sans-serif; }
.potstill text { fill: #1d2329; } .potstill .axis { fill: #5b6670; } .potstill .strong { font-weight: 650; }
.potstill .grid { stroke: #dfe3e6; } .potstill .pair { stroke: #5b6670; stroke-width: 1.4; }
.potstill .mark { stroke-width: 2; } .potstill .whisker { stroke-width: 1.5; opacity: .75; }
.potstill .mark.teacher { fill: #6b5b95; stroke: #ffffff; stroke-width: 1; }
.potstill .mark.distilled { fill: #0067a5; stroke: #ffffff; stroke-width: 1; }
.potstill .mark.alone { fill: #ffffff; stroke: #c24e00; }
.potstill .whisker.teacher { stroke: #6b5b95; } .potstill .whisker.distilled { stroke: #0067a5; }
.potstill .whisker.alone { stroke: #c24e00; }
"""
"""The report's light colors (style.css), for figures of class potstill only: a notebook shows other things, too."""

_VIEW_BOX = re.compile(r'viewBox="0 0 (\S+) (\S+)"')

_WIDTH = re.compile(r' width="\S+"')

LEGEND = "Diamond T: teacher; disc: distilled; ring: its twin, alone."


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that a notebook shows, and that can be saved."""

    svg: str = field(repr=False)
    """The whole figure, with its style."""
    title: str

    def save(self, path: Path | str) -> Path:
        """Write the figure to a `.svg` file. Returns its path.

        Raises:
            ConfigError: the path has another suffix.
        """
        path = Path(path)
        if path.suffix.lower() != ".svg":
            raise ConfigError(f"A figure is saved as SVG, not as {path.suffix or 'a file without suffix'}: {path}")
        write_text(path, self.svg)
        return path

    def _repr_svg_(self) -> str:
        return self.svg


def cost_figure(comparison: Comparison, cost: str) -> Figure:
    """Accuracy against one cost, for the teacher and all students with their twins.

    Args:
        cost: "bytes", "macs" or "milliseconds".
    Raises:
        ConfigError: there is no such cost.
    """
    known = {name: (title, factor) for name, title, factor in figures.COSTS}
    if cost not in known:
        raise ConfigError(f"There is no cost {cost!r}; take {', '.join(known)}.{did_you_mean(cost, known)}")
    title, factor = known[cost]
    return Figure(_alone(figures.costs(comparison, cost, title, factor)), f"Accuracy against {title}")


def result_html(files: RunFiles) -> str:
    """Findings that forbid relying on the run, verdicts, the table of all models, and accuracy against cost."""
    comparison = files.comparison
    students = comparison.students
    letters = "; ".join(f"{figures.letter(number)}: {s.name}" for number, s in enumerate(students))
    return "".join(
        [
            *(
                f"<p><strong>Do not rely on these numbers.</strong> {escape(reason)}</p>"
                for reason in reasons_not_to_rely(files)
            ),
            *(f"<p><strong>{escape(student.verdict)}</strong></p>" for student in students),
            html_table(comparison_table(comparison)),
            f"<p><small>{escape(comparison_note(comparison))}.</small></p>",
            cost_figure(comparison, "macs").svg,
            f"<p><small>{escape(LEGEND)} {escape(letters)}.</small></p>",
        ]
    )


def html_table(table: Table) -> str:
    """A table of the terminal as HTML."""
    columns = table.columns
    sides = [f' style="text-align: {column.justify}"' for column in columns]
    header = [f"<th{side}>{escape(str(column.header))}</th>" for side, column in zip(sides, columns, strict=True)]
    rows = zip(*(column.cells for column in columns), strict=True)
    body = [
        "".join(f"<td{side}>{escape(str(cell))}</td>" for side, cell in zip(sides, row, strict=True)) for row in rows
    ]
    return (
        f"<table><thead><tr>{''.join(header)}</tr></thead><tbody>"
        + "".join(f"<tr>{cells}</tr>" for cells in body)
        + "</tbody></table>"
    )


def _alone(svg: str) -> str:
    """A figure of the report as a file of its own: with a namespace, a size, its style and a white background."""
    head, _, rest = svg.removeprefix("<svg ").partition(">")
    found = _VIEW_BOX.search(head)
    assert found is not None
    head = _WIDTH.sub("", head)
    size = f'width="{found[1]}" height="{found[2]}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" class="potstill" {size} {head}><style>{_STYLE}</style>{rest}'
