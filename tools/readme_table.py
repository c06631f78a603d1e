"""Writes the README's result tables from the comparison.json files of real runs, kept in docs/results/.

python tools/readme_table.py            # rewrite the README
python tools/readme_table.py --check    # exit 1 where it differs
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def table(comparison: dict[str, Any]) -> str:
    """Teacher, then each student with its twin beside it, in Markdown."""
    teacher = comparison["teacher"]
    lines = [
        "| model | right on test (95 % interval) | NLL | ECE | file | MMACs | ms |",
        "|---|---|---|---|---|---|---|",
        _row(f"teacher: {' + '.join(teacher['models'])}, {teacher['sizes'][0]} px", teacher, teacher),
    ]
    for student in comparison["students"]:
        start = "" if student["pretrained"] else ", from scratch"
        name = f"{student['model']}, {student['size']} px{start}"
        lines.append(_row(f"**{name}: distilled**", student["distilled"], student))
        lines.append(_row(f"{name}: alone (its twin)", student["alone"], student))
    lines.append("")
    lines += [f"- {student['verdict']}" for student in comparison["students"]]
    environment = comparison["environment"]
    seeds = comparison["seeds"]
    lines.append("")
    lines.append(
        f"n = {comparison['test_photos']} test photos, {seeds} seed{'s' if seeds > 1 else ''}; NLL and ECE after "
        f"temperature scaling on val; ms per photo in torch on one thread of {environment['machine']['cores']} cores, "
        f"{environment['processor']} ({environment['cpu_capability']}), torch {environment['versions']['torch']}."
    )
    return "\n".join(lines)


def _row(name: str, numbers: dict[str, Any], costs: dict[str, Any]) -> str:
    a = numbers["accuracy"]
    cells = [
        name,
        f"{100 * a['value']:.1f} % ({100 * a['low']:.1f} to {100 * a['high']:.1f})",
        f"{numbers['nll_scaled']:.3f}",
        f"{numbers['ece_scaled']:.3f}",
        f"{costs['bytes'] / 1e6:.1f} MB",
        f"{costs['macs'] / 1e6:.0f}",
        f"{costs['milliseconds']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def filled(text: str) -> str:
    """The README with every block between `<!-- results: NAME -->` and `<!-- end -->` made anew."""

    def block(match: re.Match[str]) -> str:
        comparison = json.loads((ROOT / "docs" / "results" / f"{match[1]}.json").read_text("utf-8"))
        return f"<!-- results: {match[1]} -->\n{table(comparison)}\n<!-- end -->"

    return re.sub(r"<!-- results: ([\w-]+) -->\n.*?<!-- end -->", block, text, flags=re.S)


def main() -> int:
    """Rewrite or check."""
    before = README.read_text("utf-8")
    after = filled(before)
    if "--check" in sys.argv:
        return int(before != after)
    README.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
