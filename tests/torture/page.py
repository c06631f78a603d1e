"""docs/reference/torture.md, from the campaign's journal."""

import platform
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.torture.cases import REFUSED, RIGHT, WRONG

from potstill.compute.device import decide, environment
from potstill.config.schema import MachineConfig
from potstill.run.files import write_text

HEAD = """# Torture

What was done to Potstill on purpose, and what came of it. `make torture` makes this page; cases are drawn from a
seed, so that anyone can repeat them.

- **right**: the same result as an undisturbed run, bit for bit
- **refused**: one error that names what is wrong, exit code 2, no traceback
- **wrong**: anything else
"""


def write_page(path: Path, results: Sequence[Any], seed: int) -> None:
    """One table per part of the campaign, a row for each kind of case."""
    by_part: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for result in results:
        by_part[result.part][result.name][result.verdict] += 1
    lines = [HEAD]
    for part, rows in sorted(by_part.items()):
        lines += [f"## {part.capitalize()}", "", "| what | cases | right | refused | wrong |", "|---|---|---|---|---|"]
        lines += [
            f"| {name} | {sum(counts.values())} | {counts[RIGHT]} | {counts[REFUSED]} | {counts[WRONG]} |"
            for name, counts in sorted(rows.items())
        ]
        total = sum(rows.values(), Counter())
        lines += [f"| **all** | {sum(total.values())} | {total[RIGHT]} | {total[REFUSED]} | {total[WRONG]} |", ""]
    machine = environment(decide(MachineConfig()))
    hours = sum(result.seconds for result in results) / 3600
    lines += [
        f"Seed {seed}, {len(results):,} cases, {hours:.1f} hours of one core of {machine['processor']}, "
        f"{platform.system()}, Python {platform.python_version()}. Command: `make torture SEED={seed}`.",
        "",
    ]
    write_text(path, "\n".join(lines))
