"""Writes the tables of README and docs from the results of real runs: nobody types a measured number twice.

python tools/tables.py            # rewrite the pages
python tools/tables.py --check    # exit 1 where one differs

A block `<!-- KIND: WHAT -->` … `<!-- end -->` is filled from docs/results/WHAT.json, a run's comparison.json (kinds
results, summary, by-class, operating), from benchmarks/WHAT, a CSV file (kinds formats, runtimes, speed, photos,
peers, stages), or from the rows of the regime WHAT in benchmarks/accuracy (kind accuracy).
"""

import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from potstill.run.results import ArmResult, Costs, Interval, TeacherResult, read_comparison
from potstill.wording import counted, noun

ROOT = Path(__file__).resolve().parent.parent


def pages() -> list[Path]:
    """README and docs, in order."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def results(name: str) -> list[str]:
    """Teacher, then each student with its twin beside it."""
    comparison = read_comparison(ROOT / "docs" / "results" / f"{name}.json")
    teacher = comparison.teacher
    lines = [
        "| model | accuracy on test (95 % interval) | NLL | ECE | file | MMACs | ms |",
        "|---|---|---|---|---|---|---|",
        _model(f"teacher: {' + '.join(teacher.models)}, {teacher.sizes[0]} px", teacher, teacher),
    ]
    for student in comparison.students:
        start = "" if student.pretrained else ", from scratch"
        named = f"{student.model}, {student.size} px{start}"
        lines.append(_model(f"**{named}: distilled**", student.distilled, student))
        lines.append(_model(f"{named}: alone (its twin)", student.alone, student))
    lines += ["", *(f"- {student.verdict}" for student in comparison.students), ""]
    environment, seeds = comparison.environment, comparison.seeds
    lines.append(
        f"n = {comparison.test_photos} {noun(comparison.test_photos, 'test photo')}, {counted(seeds, 'seed')}; NLL "
        f"and ECE after temperature scaling on val; ms per photo in torch on one thread of "
        f"{counted(environment.machine['cores'], 'core')}, "
        f"{environment.processor} ({environment.cpu_capability}), torch {environment.versions['torch']}."
    )
    return lines


SETS = {
    "solar": "Solar cells, functional or defective: 50 labeled photos of each, 1,500 without labels (`potstill demo`)",
    "flowers-20": "Five kinds of flowers: 20 labeled photos of each, 1,954 without labels",
    "animals-20": "Five kinds of animals: 20 labeled photos of each, 2,038 without labels",
    "birds": "51 kinds of birds: 26 photos of each, all labeled",
    "animals-wrong-20": "Cats, dogs and birds: one in five labels of the training and validation photos is wrong",
    "animals-pool": "Cats, dogs and birds: every training photo labeled, and 5,517 others without labels",
}
"""What the runs in docs/results are."""


def summary(names: str) -> list[str]:
    """One row for each student of the runs named, joined by +."""
    lines = [
        "| photos | small model | teacher | without distillation | with | difference (95 % interval) | errors |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    notes = []
    for name in names.split("+"):
        comparison = read_comparison(ROOT / "docs" / "results" / f"{name}.json")
        for student in comparison.students:
            gain, fewer = student.difference, student.relative_error_reduction
            lines.append(
                _row(
                    SETS[name],
                    f"{student.model}, {student.size} px, {student.bytes / 1e6:.1f} MB",
                    *(f"{100 * arm.accuracy.value:.1f} %" for arm in (comparison.teacher, student.alone)),
                    f"**{100 * student.distilled.accuracy.value:.1f} %**",
                    f"{100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})",
                    f"{-100 * fewer:+.0f} %".replace("-", "−") if fewer is not None else "–",
                )
            )
        notes.append(f"{counted(comparison.test_photos, 'test photo')} and {counted(comparison.seeds, 'seed')}")
    return [*lines, "", f"Accuracy on test photos that no training saw: {'; '.join(notes)}."]


def by_class(name: str) -> list[str]:
    """What every model recognizes of each class, and what its threshold for the operating point finds."""
    comparison = read_comparison(ROOT / "docs" / "results" / f"{name}.json")
    (student,), target = comparison.students, comparison.operating_point
    assert target is not None
    recalls = [f"{c}: recognized" for c in comparison.classes]
    header = ["model", *recalls, f"with a threshold: {target.class_name} found", "false alarms"]
    lines = [_row(*header), "|---" + "|--:" * (len(header) - 1) + "|"]
    models = {"teacher": comparison.teacher, "**distilled**": student.distilled, "alone (its twin)": student.alone}
    for label, result in models.items():
        assert result.by_class
        assert result.operating
        cells = [*result.by_class.recall, result.operating.recall, result.operating.false_alarms]
        lines.append(_row(label, *(_share(cell) for cell in cells)))
    counts = ", ".join(f"{n} {c}" for n, c in zip(comparison.test_per_class, comparison.classes, strict=True))
    note = f"Test photos: {counts}; {counted(comparison.seeds, 'seed')}, 95 % intervals. Each model's threshold was "
    return [*lines, "", note + f"placed to find {100 * target.recall:.0f} % of the {target.val_photos} on val."]


def operating(name: str) -> list[str]:
    """One sentence: what the student finds at its operating point, and its twin."""
    comparison = read_comparison(ROOT / "docs" / "results" / f"{name}.json")
    (student,), target = comparison.students, comparison.operating_point
    distilled, alone = student.distilled.operating, student.alone.operating
    assert target
    assert distilled
    assert alone
    found, by_twin = (f"{100 * r.recall.value:.0f} % at {100 * r.false_alarms.value:.0f} %" for r in (distilled, alone))
    return [
        f"In the demo, asked to find {100 * target.recall:.0f} % of the {target.class_name} ones, the student finds "
        f"{found} false alarms, its twin {by_twin}."
    ]


def _share(value: Interval | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value.value:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _model(name: str, result: TeacherResult | ArmResult, costs: Costs) -> str:
    a = result.accuracy
    return _row(
        name,
        f"{100 * a.value:.1f} % ({100 * a.low:.1f} to {100 * a.high:.1f})",
        f"{result.nll_scaled:.3f}",
        f"{result.ece_scaled:.3f}",
        f"{costs.bytes / 1e6:.1f} MB",
        f"{costs.macs / 1e6:.0f}",
        f"{costs.milliseconds:.1f}",
    )


def formats(name: str) -> list[str]:
    """What export does to students."""
    rows = read_rows(name)
    lines = [
        f"Real photos of cats, dogs and birds, n = {', '.join(sorted({row['photos'] for row in rows}))} test photos, "
        "1 seed; 2 cores of an AMD EPYC,",
        "AVX-512, 24 GB, shared with other work: compare milliseconds roughly. Made by `benchmarks/export/train.sh`",
        "and `benchmarks/export/run.py`; versions are in `benchmarks/export/results.csv`. The trainings were short and",
        "the v3 and v4 students started from nothing: what counts is agreement, not accuracy.",
        "",
        "| student | format | precision | accuracy | agreement | largest difference | MB | ms | status |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        size = f"{int(row['bytes']) / 1e6:.2f}" if row["bytes"] else "–"
        note = row["status"]
        if row["calibration"] and row["status"] == "ok":
            note += f" ({row['calibration']}{'; nearest' if row['reason'] else ''})"
        elif row["reason"]:
            note += f": {row['reason']}"
        shares = [_percent(row["accuracy"]), _percent(row["agreement"])]
        cells = [row["student"], row["format"], row["precision"], *shares]
        lines.append(_row(*cells, row["max_difference"] or "–", size, row["ms"] or "–", note))
    return lines


def runtimes(name: str) -> list[str]:
    """Exported files against the teacher."""
    lines = ["Timed in turn on the same photos, in one process on one thread:", ""]
    lines += ["| model | precision | runtime | ms | faster than the teacher in torch | … in ONNX Runtime |"]
    lines += ["|---|---|---|--:|--:|--:|"]
    rows = read_rows(name)
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        times = [f"{row['times_faster_than_teacher']} ×" for row in (first, second)]
        lines.append(_row(first["model"], first["precision"], first["runtime"], first["ms"], *times))
    return lines


def speed(name: str) -> list[str]:
    """Ratios of the speed benchmarks."""
    lines = ["| what | ours | reference | ratio (range) | n | goal |", "|---|--:|--:|--:|--:|---|"]
    rows = read_rows(name)
    for row in rows:
        sides = [f"{float(row[side]):.3g}" for side in ("ours", "reference")]
        ratio = f"{float(row['ratio']):.2f} ({float(row['min']):.2f} to {float(row['max']):.2f})"
        lines.append(_row(f"{row['what']} ({row['unit']})", *sides, ratio, row["n"], row.get("goal") or "–"))
    return [*lines, "", f"Hardware: {', '.join(sorted({row['hardware'] for row in rows}))}."]


def accuracy(regime: str) -> list[str]:
    """Distilled against alone in one regime, by set and student."""
    rows = newest([row for row in read_rows("accuracy/differences.csv") if row["regime"] == regime])
    if not rows:
        return ["Not measured yet."]
    lines = [
        "| set | student | teacher | labels per class | accuracy: teacher | alone | distilled | difference "
        "(95 % interval) | fewer errors | NLL alone | distilled | distilled − teacher | MACs of teacher's | n, seeds "
        "| minutes |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        fewer = row["relative_error_reduction"]
        lines.append(
            _row(
                row["set"],
                f"{row['student']}, {row['size']} px" + ("" if row["pretrained"] == "True" else ", from scratch"),
                row["teacher"],
                row["labels"],
                *(_percent(row[key]) for key in ("teacher_accuracy", "alone", "distilled")),
                _points(row["difference"], row["low"], row["high"]),
                f"{100 * float(fewer):.0f} %" if fewer else "–",
                f"{float(row['nll_alone']):.3f}",
                f"{float(row['nll_distilled']):.3f}",
                _points(row["to_teacher"], row["to_teacher_low"], row["to_teacher_high"]),
                f"1/{1 / float(row['macs_share']):.0f}",
                f"{row['n']}, {row['seeds']}",
                f"{float(row['minutes']):.0f}",
            )
        )
    made = sorted({(row["date"], row["commit"], row["hardware"]) for row in rows})
    return [*lines, "", f"Measured: {'; '.join(f'{date}, commit {commit}, {where}' for date, commit, where in made)}."]


def peers(name: str) -> list[str]:
    """Other tools on the photos of a run, and Potstill's distilled student beside them."""
    rows = read_rows(name)
    if not rows:
        return ["Not measured yet."]
    lines = [
        "| set, regime | tool | accuracy (95 % interval) | Potstill distilled | Potstill − tool | n, seeds | minutes |"
    ]
    lines += ["|---|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        interval = f"{100 * float(row['low']):.1f} to {100 * float(row['high']):.1f}"
        lines.append(
            _row(
                f"{row['set']}, {row['regime']}",
                row["version"],
                f"{_percent(row['accuracy'])} ({interval})",
                _percent(row["potstill"]),
                _points(row["difference"], row["difference_low"], row["difference_high"]),
                f"{row['n']}, {row['seeds']}",
                f"{float(row['minutes']):.0f}",
            )
        )
    settings = dict.fromkeys(f"- {row['tool']}: {row['settings']}" for row in rows)
    return [*lines, "", *settings]


def newest(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that were measured with the same defaults as the latest one (of one day, the last in the file)."""
    if not rows:
        return []
    latest = max(enumerate(rows), key=lambda item: (item[1]["date"], item[0]))[1]
    return [row for row in rows if row["defaults"] == latest["defaults"]]


def stages(name: str) -> list[str]:
    """Where the demo's time goes."""
    rows = read_rows(name)
    lines = [f"| stage | teacher in torch | teacher {rows[0]['auto']} |", "|---|--:|--:|"]
    columns = ("torch_seconds", "auto_seconds")
    lines += [_row(row["stage"], *(f"{float(row[key]):.0f} s" for key in columns)) for row in rows]
    lines.append(_row("all", *(f"{sum(float(row[key]) for row in rows):.0f} s" for key in columns)))
    return [*lines, "", f"Hardware: {rows[0]['hardware']}, one run each."]


KINDS: dict[str, Callable[[str], list[str]]] = {
    "results": results,
    "summary": summary,
    "by-class": by_class,
    "operating": operating,
    "formats": formats,
    "runtimes": runtimes,
    "speed": speed,
    "accuracy": accuracy,
    "peers": peers,
    "stages": stages,
}


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of benchmarks/NAME."""
    with (ROOT / "benchmarks" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(share: str) -> str:
    return f"{100 * float(share):.1f} %" if share else "–"


def _points(value: str, low: str, high: str) -> str:
    if not value:
        return "–"
    return f"{100 * float(value):+.1f} ({100 * float(low):+.1f} to {100 * float(high):+.1f})".replace("-", "−")


def filled(text: str) -> str:
    """The page with every block made anew."""

    def block(match: re.Match[str]) -> str:
        kind, what = match[1], match[2]
        return "\n".join([f"<!-- {kind}: {what} -->", *KINDS[kind](what), "<!-- end -->"])

    return re.sub(rf"<!-- ({'|'.join(KINDS)}): ([\w./+-]+) -->\n.*?<!-- end -->", block, text, flags=re.S)


def main() -> int:
    """Rewrite or check."""
    stale = []
    for page in pages():
        before = page.read_text("utf-8")
        after = filled(before)
        if before != after:
            stale.append(page)
            if "--check" not in sys.argv:
                page.write_text(after, "utf-8")
    for page in stale:
        print(page.relative_to(ROOT))
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
