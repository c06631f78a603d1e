"""Writes the formats table of docs/how-to/deploy.md from results.csv and speed.csv.

python benchmarks/export/table.py            # rewrite the page
python benchmarks/export/table.py --check    # exit 1 where it differs
"""

import csv
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "how-to" / "deploy.md"


def table() -> str:
    """Both tables, in Markdown."""
    rows = _read("results.csv")
    photos = sorted({row["photos"] for row in rows})
    lines = [
        f"Real photos of cats, dogs and birds, n = {', '.join(photos)} test photos, 1 seed; 2 cores of an AMD EPYC,",
        "AVX-512, 24 GB, shared with other work: compare milliseconds roughly. Made by `benchmarks/export/train.sh`",
        "and `benchmarks/export/run.py`; versions are in `benchmarks/export/results.csv`. The trainings were short:",
        "what counts is agreement, not accuracy.",
        "",
        "| student | format | precision | accuracy | agreement | largest difference | MB | ms | status |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        size = f"{int(row['bytes']) / 1e6:.2f}" if row["bytes"] else "–"
        note = row["status"]
        if row["calibration"] and row["status"] == "ok":
            note += f" ({row['calibration']})"
        elif row["reason"]:
            note += f": {row['reason']}"
        cells = [row["student"], row["format"], row["precision"], _percent(row["accuracy"]), _percent(row["agreement"])]
        lines.append(f"| {' | '.join([*cells, row['max_difference'] or '–', size, row['ms'] or '–', note])} |")
    if (HERE / "speed.csv").is_file():
        lines += ["", "Timed in turn on the same photos, in one process on one thread:", ""]
        lines += ["| model | precision | runtime | ms | faster than the teacher in torch | … in ONNX Runtime |"]
        lines += ["|---|---|---|--:|--:|--:|"]
        speed = _read("speed.csv")
        for first, second in zip(speed[::2], speed[1::2], strict=True):
            cells = [first["model"], first["precision"], first["runtime"], first["ms"]]
            times = [f"{row['times_faster_than_teacher']} ×" for row in (first, second)]
            lines.append(f"| {' | '.join([*cells, *times])} |")
    return "\n".join(lines)


def _read(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f} %" if share else "–"


def main() -> int:
    """Rewrite or check."""
    before = PAGE.read_text("utf-8")
    block = f"<!-- formats -->\n{table()}\n<!-- end -->"
    after = re.sub(r"<!-- formats -->\n.*?<!-- end -->", lambda _: block, before, flags=re.S)
    if "--check" in sys.argv:
        return int(before != after)
    PAGE.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
