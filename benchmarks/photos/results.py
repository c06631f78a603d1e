"""`results.csv`: one line per thing measured, replaced when it is measured again."""

import csv
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

PATH = Path(__file__).with_name("results.csv")
COLUMNS = ("what", "ours", "reference", "ratio", "min", "max", "n", "unit", "hardware", "versions", "command")


def save(
    what: str, ours: Sequence[float], reference: Sequence[float], *, unit: str, hardware: str, command: str
) -> None:
    """Write the medians of both sides, and the median, least and largest ratio of their rounds."""
    ratios = [one / other for one, other in zip(ours, reference, strict=True)]
    names = ("potstill", "pillow", "aiohttp")
    row = {
        "what": what,
        "ours": f"{statistics.median(ours):.4g}",
        "reference": f"{statistics.median(reference):.4g}",
        "ratio": f"{statistics.median(ratios):.2f}",
        "min": f"{min(ratios):.2f}",
        "max": f"{max(ratios):.2f}",
        "n": str(len(ratios)),
        "unit": unit,
        "hardware": hardware,
        "versions": ", ".join([f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]),
        "command": command,
    }
    rows = {}
    if PATH.is_file():
        with PATH.open(encoding="utf-8", newline="") as file:
            rows = {line["what"]: line for line in csv.DictReader(file)}
    rows[what] = row
    with PATH.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows.values())
