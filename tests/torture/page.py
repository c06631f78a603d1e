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
seed, so that anyone can repeat them. The command goes on where it was stopped: `make torture MINUTES=300` in pieces.

- **right**: the same result as an undisturbed run, bit for bit
- **refused**: one error that names what is wrong, exit code 2, no traceback
- **wrong**: anything else
"""


ABOUT = {
    "changes": "What changes around a run: two commands at once, commands that read while one works, a photo added, "
    "removed, replaced, renamed or touched between stop and resume, a clock that is wrong, other packages, and a run "
    "folder that may only be read.",
    "damage": "A file of a finished or interrupted run is damaged at rest, then a command is run. Where `distill` "
    "refuses, its advice is followed, and the run must then end as it should.",
    "disks": "One file cannot be opened for writing; then the same command again.",
    "kills": "The whole job, from photos to an exported file, killed up to three times, then finished. Right: the same "
    "weights, numbers and files, and no process, lock or unfinished file left.",
    "photos": "Each within 2 s of a core and 500 MB; those of more than 16 megapixels within 20 s and 1,500 MB.",
    "power": "The process ends at a sync or rename; what was not synced is lost. Then the same command again.",
}


def write_page(path: Path, results: Sequence[Any], seed: int) -> None:
    """One table per part of the campaign, a row for each kind of case."""
    by_part: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for result in results:
        by_part[result.part][result.name][result.verdict] += 1
    lines = [HEAD]
    for part, rows in sorted(by_part.items()):
        about = [ABOUT[part], ""] if part in ABOUT else []
        lines += [
            f"## {part.capitalize()}",
            "",
            *about,
            "| what | cases | right | refused | wrong |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {sum(counts.values())} | {counts[RIGHT]} | {counts[REFUSED]} | {counts[WRONG]} |"
            for name, counts in sorted(rows.items())
        ]
        total = sum(rows.values(), Counter())
        lines += [f"| **all** | {sum(total.values())} | {total[RIGHT]} | {total[REFUSED]} | {total[WRONG]} |", ""]
    machine = environment(decide(MachineConfig()))
    commits = [result.commit for result in results if result.commit]
    of = f" at commit {' to '.join(dict.fromkeys([commits[0], commits[-1]]))}" if commits else ""
    hours = sum(result.seconds for result in results) / 3600
    lines += [
        f"Seed {seed}, {len(results):,} cases{of}, {hours:.1f} hours of one core of {machine['processor']}, "
        f"{platform.system()}, Python {platform.python_version()}. Command: `make torture SEED={seed}`.",
        "",
    ]
    write_text(path, "\n".join(lines))
