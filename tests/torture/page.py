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
seed, so that anyone can repeat them. The command goes on where it was stopped, `make torture MINUTES=300` in pieces:
its results are in `benchmarks/torture/`. Remove that folder, or give another `SEED`, to begin anew.

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


def write_page(path: Path, cases: Sequence[Sequence[Any]], seed: int) -> None:
    """One table per part of the campaign, a row for each kind of case.

    Args:
        cases: the results of each; the last one counts.
    """
    by_part: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for made in cases:
        by_part[made[-1].part][made[-1].name][made[-1].verdict] += 1
    lines = [HEAD]
    for part, rows in sorted(by_part.items()):
        of_part = [made for made in cases if made[-1].part == part]
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
        lines += [*_repeated(of_part), _when([result for made in of_part for result in made]), ""]
    machine = environment(decide(MachineConfig()))
    count = f"{len(cases):,} cases"
    lines += [
        f"Seed {seed}, {count}, {machine['processor']}, {platform.system()}, Python {platform.python_version()}. "
        f"Command: `make torture SEED={seed}`.",
        "",
    ]
    write_text(path, "\n".join(lines))


def _repeated(cases: Sequence[Sequence[Any]]) -> list[str]:
    """What went wrong at first, and was repeated after it had been mended."""
    lines = [
        f"- Case {made[-1].number} was wrong at commit {made[0].commit}, and {made[-1].verdict} at {made[-1].commit}: "
        f"{made[-1].name}."
        for made in cases
        if made[0].verdict == WRONG != made[-1].verdict
    ]
    return [*lines, ""] if lines else []


def _when(results: Sequence[Any]) -> str:
    commits = list(dict.fromkeys(result.commit for result in results if result.commit))
    of = f"At commit {' to '.join(dict.fromkeys([commits[0], commits[-1]]))}, " if commits else ""
    return f"{of}{sum(result.seconds for result in results) / 3600:.1f} hours."
