"""What a person reads of `check` and `count`: a few lines and a table."""

from rich.table import Table

from potstill.check.count import Counts
from potstill.check.run import PAGE, CheckResult
from potstill.images.reasons import action, meaning


def summary(result: CheckResult, *, moved: int = 0) -> str:
    """One line per reason, then what happened to the photos."""
    lines = [f"{result.photos:,} photos looked at."]
    for code, number in result.counts().items():
        mark = " (listed only)" if action(code) == "note" else ""
        lines.append(f"  {number:6,} {code}{mark}: {meaning(code)}")
    if len(lines) == 1:
        return lines[0] + " Nothing was found."
    if moved:
        lines.append(f"{moved:,} photos are in {result.root / '.quarantine'}. Look: {result.root / PAGE}")
        lines.append(f"Bring them back: potstill check {result.root} --restore all (or one reason)")
    elif result.to_move:
        lines.append(f"{len(result.to_move):,} photos would go to quarantine. Look: {result.root / PAGE}")
    else:
        lines.append(f"Nothing was moved. Look: {result.root / PAGE}")
    return "\n".join(lines)


def count_table(counts: Counts) -> Table:
    """Classes down, splits across; totals, imbalance and quarantine below."""
    splits = list(counts.by_split)
    names = {"": "photos", "unlabeled": "unlabeled"}
    out = Table("class", show_footer=False)
    for split in splits:
        out.add_column(names.get(split, split), justify="right")
    for label in counts.classes:
        row = [counts.by_split[split].get(label) for split in splits]
        out.add_row(label or "(no class)", *("" if number is None else f"{number:,}" for number in row))
    out.add_section()
    out.add_row("total", *(f"{counts.total(split):,}" for split in splits))
    ratios = [counts.imbalance(split) for split in splits]
    out.add_row("largest : smallest", *(f"{ratio:.1f} : 1" if ratio else "" for ratio in ratios))
    if counts.quarantine:
        reasons = ", ".join(f"{number:,} {code}" for code, number in counts.quarantine.items())
        out.caption = f"in quarantine: {reasons}"
    return out
