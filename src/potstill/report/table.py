"""The comparison as a plain text table, for the terminal and for README files."""

from typing import Any


def comparison_table(comparison: dict[str, Any]) -> str:
    """Teacher, then each student distilled and alone: accuracy with interval, calibration, agreement and costs."""
    header = ["model", "accuracy", "interval", "NLL", "ECE", "agreement", "parameters", "MMACs", "MB", "ms"]
    teacher = comparison["teacher"]
    rows = [_row("teacher " + " + ".join(teacher["models"]), teacher, teacher)]
    for student in comparison["students"]:
        for arm in ("distilled", "alone"):
            rows.append(_row(f"{student['name']} {arm}", student[arm], student))
    lines = aligned(header, rows)
    seeds = comparison["seeds"]
    lines.append(
        f"{comparison['test_photos']:,} test photos, {seeds} seed{'s' if seeds > 1 else ''}, "
        f"{comparison['confidence']:.0%} intervals over seeds and photos; NLL and ECE after temperature scaling on "
        f"val; ms per photo in torch on one thread of {comparison['environment']['processor']}"
    )
    return "\n".join(lines)


def aligned(header: list[str], rows: list[list[str]], *, left: int = 1) -> list[str]:
    """Lines of a table; the first `left` columns are texts, the others numbers."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *rows]
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return [line.rstrip() for line in lines]


def _row(name: str, numbers: dict[str, Any], costs: dict[str, Any]) -> list[str]:
    accuracy = numbers["accuracy"]
    agreement = numbers.get("agreement")
    return [
        name,
        f"{accuracy['value']:.1%}",
        f"{100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}",
        f"{numbers['nll_scaled']:.3f}",
        f"{numbers['ece_scaled']:.3f}",
        "" if agreement is None else f"{agreement:.1%}",
        f"{costs['parameters'] / 1e6:.2f} M",
        f"{costs['macs'] / 1e6:.0f}",
        f"{costs['bytes'] / 1e6:.1f}",
        f"{costs['milliseconds']:.1f}",
    ]
