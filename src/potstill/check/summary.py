"""What `check` and `count` print: tables, and what happened to the photos."""

from pathlib import Path

from rich.table import Table

from potstill.check.count import Counts
from potstill.check.run import PAGE, CheckResult
from potstill.images.reasons import action, meaning
from potstill.monitoring.tables import text_table
from potstill.wording import counted

_SPLITS = {"": "photos"}
"""What the column of a split is called, where it is not the split's own name."""


def finding_table(result: CheckResult) -> Table:
    """One row per reason: how many photos, what is done with them, and what the reason means."""
    rows = [
        [code, f"{count:,}", "listed only" if action(code) == "note" else "quarantine", meaning(code)]
        for code, count in result.counts().items()
    ]
    return text_table(("reason", "photos", "action", "meaning"), rows, right=(1,))


def large_move(result: CheckResult) -> str:
    """The question before more of a class is moved than is usual."""
    shares = ", ".join(f"{share:.0%} of {label}" for label, share in result.too_much.items())
    return f"This would move {shares} to quarantine. See {result.root / PAGE}. Move them?"


def conclusion(result: CheckResult, *, moved: int = 0, page: Path | None) -> str:
    """What happened to the photos, and where to see them. `page` is None where none was written."""
    see = f" See {page}" if page else ""
    if not result.findings:
        return "No problems found."
    if moved:
        return (
            f"Moved {counted(moved, 'photo')} to {result.root / '.quarantine'}.{see}\n"
            f"To restore them: potstill check {result.root} --restore all (or one reason)"
        )
    if result.to_move:
        return f"{counted(len(result.to_move), 'photo')} would be moved to quarantine.{see}"
    return f"No photo needs to be moved.{see}"


def count_table(counts: Counts) -> Table:
    """Classes down, splits across; then totals, imbalance and quarantine."""
    splits = list(counts.by_split)
    rows = []
    for label in counts.classes:
        numbers = [counts.by_split[split].get(label) for split in splits]
        rows.append([label or "(no class)", *("" if number is None else f"{number:,}" for number in numbers)])
    totals = ["total", *(f"{counts.total(split):,}" for split in splits)]
    ratios = [counts.imbalance(split) for split in splits]
    imbalance = ["largest : smallest", *(f"{ratio:.1f} : 1" if ratio else "" for ratio in ratios)]
    header = ["class", *(_SPLITS.get(split, split) for split in splits)]
    table = text_table(header, rows, right=range(1, len(header)))
    table.add_section()
    table.add_row(*totals)
    table.add_row(*imbalance)
    if counts.quarantine:
        reasons = ", ".join(f"{number:,} {code}" for code, number in counts.quarantine.items())
        table.caption = f"in quarantine: {reasons}"
        table.caption_justify = "left"
    return table
