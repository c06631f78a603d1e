"""Draws docs/pictures/label-efficiency.svg and .png: accuracy against labels per class, distilled and alone.

python tools/label_efficiency.py            # the PNG needs Debian's chromium

From the rows of the regime label-efficiency in benchmarks/accuracy/differences.csv, one panel per set.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tables import ROOT, newest, read_rows

from potstill.report import svg
from potstill.report.svg import Scale
from potstill.run.files import write_text
from potstill.run.layout import ARMS

NAME = "label-efficiency"
PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT, TOP, BOTTOM = 300, 292, 74, 240
"""Of one panel, and where its vertical axis begins and ends."""

STYLE = """
:root { --card: #ffffff; --ink: #1d2329; --soft: #5b6670; --rule: #dfe3e6; --distilled: #0067a5; --alone: #c24e00 }
@media (prefers-color-scheme: dark) { :root {
  --card: #1b2026; --ink: #e8ecef; --soft: #a3aeb8; --rule: #323a42; --distilled: #5fb4f0; --alone: #f5934e } }
text { font: 11px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink) }
text.axis { fill: var(--soft) } text.strong { font-weight: 650; font-size: 13px }
.card { fill: var(--card) } .grid { stroke: var(--rule) }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.whisker { stroke-width: 1.5 } .mark { stroke-width: 2 }
.curve.distilled, .whisker.distilled { stroke: var(--distilled) } .mark.distilled { fill: var(--distilled) }
.curve.alone, .whisker.alone, .mark.alone { stroke: var(--alone) } .mark.alone { fill: var(--card) }
.curve.alone { stroke-dasharray: 6 3 }
"""
"""The colors and signs of the report, for a picture that stands alone."""

Rows = Sequence[dict[str, str]]


def picture(rows: Rows) -> tuple[str, int]:
    """The whole picture as SVG, and its width: a legend, and one panel per set and student."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["student"]), []).append(row)
    bounds = [float(row[f"{arm}_{end}"]) for row in rows for arm in ARMS for end in ("low", "high")]
    y = Scale(*svg.padded(bounds, low=0, high=1, share=0.04), BOTTOM, TOP)
    width = WIDTH * len(groups) + 16
    parts = [f"<style>{STYLE}</style>", f'<rect width="{width}" height="{HEIGHT}" rx="10" class="card"/>', *_legend()]
    for number, ((name, student), members) in enumerate(groups.items()):
        members.sort(key=lambda row: float(row["labels_per_class"]))
        parts += _panel(f"{name} ({student})", members, y, WIDTH * number)
    said = "; ".join(
        f"{row['set']}, {row['labels']}: {float(row['distilled']):.1%} distilled, {float(row['alone']):.1%} alone"
        for row in rows
    )
    title = "Accuracy on test photos against labels per class, with 95 % intervals"
    drawn = svg.figure(width, HEIGHT, title, said, parts)
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n", width


def _legend() -> list[str]:
    parts = [svg.text(16, 24, "Accuracy on test photos, 95 % interval", kind="strong")]
    for x, arm, text in ((20, "distilled", "distilled"), (96, "alone", "alone (its twin)")):
        parts += [svg.mark(x, 39, arm), svg.text(x + 10, 43, text)]
    return parts


def _panel(title: str, rows: Rows, y: Scale, left: float) -> list[str]:
    """One set: both curves, a mark and an interval for each number of labels."""
    start, end = left + 52, left + WIDTH - 8
    labels = [float(row["labels_per_class"]) for row in rows]
    x = Scale(*svg.log_range(labels), start, end, log=True)
    ticks = [(n, "all" if row["labels"] == "all" else row["labels"]) for n, row in zip(labels, rows, strict=True)]
    parts = svg.y_axis(y, start, end, svg.percent_ticks(y, 5))
    parts += svg.x_axis(x, BOTTOM, TOP, ticks, f"labels per class (logarithmic; all: {max(labels):.0f})")
    parts.append(svg.text((start + end) / 2, TOP - 10, title, anchor="middle", kind="axis"))
    for arm, aside in (("alone", 2), ("distilled", -2)):  # so that neither hides the other's interval
        at = [x(n) + aside for n in labels]
        parts.append(svg.path([(p, y(float(row[arm]))) for p, row in zip(at, rows, strict=True)], f"curve {arm}"))
        for p, row in zip(at, rows, strict=True):
            low, high = (y(float(row[f"{arm}_{end}"])) for end in ("low", "high"))
            parts += [svg.line(p, low, p, high, f"whisker {arm}"), svg.mark(p, y(float(row[arm])), arm, size=4)]
    return parts


def photograph(drawn: Path, width: int) -> None:
    """The SVG as a PNG beside it, of twice its size, as a light page shows it."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--force-device-scale-factor=2", f"--window-size={width},{HEIGHT}"]
    command += [f"--screenshot={drawn.with_suffix('.png')}", drawn.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    """Draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    rows = [row for row in newest(read_rows("accuracy/differences.csv")) if row["regime"] == NAME]
    if not rows:
        sys.exit("benchmarks/accuracy/differences.csv has no rows of label-efficiency yet: see its run.py.")
    drawn, width = picture(rows)
    write_text(PICTURES / f"{NAME}.svg", drawn)
    photograph(PICTURES / f"{NAME}.svg", width)


if __name__ == "__main__":
    main()
