"""The figures of the report, each a function from numbers to SVG text."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from potstill import metrics
from potstill.metrics import Interval
from potstill.report import svg
from potstill.report.answers import AtOperatingPoint
from potstill.report.read import Reliability
from potstill.report.svg import Scale, percent
from potstill.run.forecast import Curve
from potstill.run.layout import ARMS
from potstill.run.results import ByClass, ClassAccuracy, Comparison, Costs, StudentResult
from potstill.wording import counted

CELLS_WITH_NUMBERS = 12
"""Confusion matrices up to this many classes are drawn with numbers; larger ones as a picture."""

CLASSES_SHOWN = 24
"""The class chart shows at most this many: those that gained and those that lost most."""

COSTS = (("bytes", "file size, MB", 1e-6), ("macs", "multiply-adds, millions", 1e-6), ("milliseconds", "ms a photo", 1))


def differences(students: Sequence[StudentResult], confidence: float) -> str:
    """Distilled minus alone with its interval, one row per student, around a line at 0."""
    rows = [(s.name, s.difference) for s in students]
    low, high = svg.padded([-0.005, 0.005, *(bound for _, d in rows for bound in (d.low, d.high))], low=-1, high=1)
    left = 12 + 6.4 * max(len(svg.shorten(name, 24)) for name, _ in rows)
    width, row_height, top = left + 330, 30, 8
    bottom = top + row_height * len(rows)
    x = Scale(low, high, left, width - 20)
    labels = svg.plain_ticks(x, 5, factor=100, sign="+")
    parts = svg.x_axis(x, bottom, top, labels, "points of accuracy, distilled minus alone")
    parts.append(svg.line(x(0), top, x(0), bottom, "zero"))
    for number, (name, d) in enumerate(rows):
        y = top + row_height * (number + 0.5)
        kind = "better" if d.low > 0 else "worse" if d.high < 0 else "open"
        parts += [
            svg.text(left - 10, y + 4, svg.shorten(name, 24), anchor="end"),
            svg.line(x(d.low), y, x(d.high), y, f"interval {kind}"),
            svg.mark(x(d.value), y, f"dot {kind}"),
        ]
    summary = "; ".join(f"{name} {100 * d.value:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})" for name, d in rows)
    title = f"Difference in accuracy with {metrics.percent(confidence)} interval"
    return svg.figure(width, bottom + 38, title, summary, parts)


def costs(comparison: Comparison, cost: str, title: str, factor: float) -> str:
    """Accuracy against one cost, for the teacher, where the cost is known, and all students with their twins."""
    teacher, students = comparison.teacher, comparison.students
    known: list[Costs] = [model for model in (teacher, *students) if getattr(model, cost)]
    intervals = [teacher.accuracy, *(s.arm(arm).accuracy for s in students for arm in ARMS)]
    width, height, left, bottom = 340, 270, 48, 226
    y = Scale(*svg.padded([bound for i in intervals for bound in (i.low, i.high)], low=0, high=1), bottom, 10)
    x = Scale(*svg.log_range([getattr(m, cost) * factor for m in known]), left, width - 14, log=True)
    parts = svg.y_axis(y, left, width - 8, svg.percent_ticks(y, 5))
    parts += svg.x_axis(x, bottom, 10, [(v, svg.short(v)) for v in x.ticks(4)], f"{title} (logarithmic)")
    summary = []
    models: list[tuple[str, Costs, list[tuple[str, Interval]]]]
    models = [("T", teacher, [("teacher", teacher.accuracy)])]
    models += [
        (letter(n), s, [("alone", s.alone.accuracy), ("distilled", s.distilled.accuracy)])
        for n, s in enumerate(students)
    ]
    for name, costing, arms in [model for model in models if model[1] in known]:
        center = x(getattr(costing, cost) * factor)
        spread = {"teacher": 0, "alone": 3.5, "distilled": -3.5}
        if len(arms) == 2:
            points = [(center + spread[who], y(accuracy.value)) for who, accuracy in arms]
            parts.append(svg.line(*points[0], *points[1], "pair"))
        for who, accuracy in arms:
            at = center + spread[who]
            parts += [
                svg.line(at, y(accuracy.low), at, y(accuracy.high), f"whisker {who}"),
                svg.mark(at, y(accuracy.value), who),
            ]
            summary.append(f"{name} {who} {percent(accuracy.value, 1)}")
        above = y(max(accuracy.high for _, accuracy in arms)) - 5
        parts.append(svg.text(center, max(above, 12), name, anchor="middle", kind="strong"))
    return svg.figure(width, height, f"Accuracy against {title}", ", ".join(summary), parts)


def letter(number: int) -> str:
    """A, B, … Z, A1, …: short signs of the students in charts."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def classes(per_class: Sequence[ClassAccuracy]) -> str:
    """Accuracy per class: alone → distilled, and the teacher; ordered by what distillation gained."""
    ordered = sorted(per_class, key=lambda c: c.alone - c.distilled)
    if len(ordered) > CLASSES_SHOWN:
        ordered = ordered[: CLASSES_SHOWN // 2] + ordered[-CLASSES_SHOWN // 2 :]
    left = 14 + 6.2 * max(len(svg.shorten(c.name, 22)) for c in ordered)
    width, row_height, top = left + 320, 26, 8
    bottom = top + row_height * len(ordered)
    x = Scale(
        *svg.padded([share for c in ordered for share in (c.teacher, c.distilled, c.alone)], low=0, high=1, share=0.06),
        left,
        width - 60,
    )
    parts = svg.x_axis(x, bottom, top, svg.percent_ticks(x, 5), "accuracy on the test photos of the class")
    for number, c in enumerate(ordered):
        y = top + row_height * (number + 0.5)
        parts += [
            svg.text(left - 10, y + 4, svg.shorten(c.name, 22), anchor="end"),
            svg.line(x(c.alone), y, x(c.distilled), y, "pair"),
            svg.mark(x(c.teacher), y, "teacher", size=4),
            svg.mark(x(c.alone), y, "alone"),
            svg.mark(x(c.distilled), y, "distilled"),
            svg.text(width - 6, y + 4, f"{100 * (c.distilled - c.alone):+.1f}", anchor="end", kind="number"),
        ]
    summary = "; ".join(
        f"{c.name}: teacher {percent(c.teacher)}, distilled {percent(c.distilled)}, alone {percent(c.alone)}"
        for c in ordered
    )
    return svg.figure(width, bottom + 38, "Accuracy per class", summary, parts)


def confusion(counts: np.ndarray, names: Sequence[str], who: str) -> str:
    """Rows are the true classes, columns the predicted ones, in percent of the row."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    title = f"Confusion matrix, {who}"
    if len(names) > CELLS_WITH_NUMBERS:
        return _confusion_picture(shares, title)
    cell = max(26, min(64, 230 // len(names)))
    left, top = 12 + 6.0 * max(len(svg.shorten(n, 14)) for n in names), 8
    side = cell * len(names)
    parts, summary = [], []
    for i, row in enumerate(names):
        parts.append(svg.text(left - 6, top + cell * (i + 0.5) + 4, svg.shorten(row, 14), anchor="end"))
        for j, column in enumerate(names):
            share, kind = float(shares[i, j]), "cell hit" if i == j else "cell miss"
            x, y = left + cell * j, top + cell * i
            parts.append(svg.rectangle(x + 1, y + 1, cell - 2, cell - 2, kind, opacity=0.06 + 0.8 * share))
            if share >= 0.0005 or i == j:
                label = f"{100 * share:.1f}" if cell > 40 and share < 0.0995 else f"{100 * share:.0f}"
                dark = " strong-cell" if share > 0.55 else ""
                parts.append(svg.text(x + cell / 2, y + cell / 2 + 4, label, anchor="middle", kind=f"number{dark}"))
            summary.append(
                f"{row} taken for {column} {100 * share:.0f} %" if i != j else f"{row} correct {100 * share:.0f} %"
            )
    for j, column in enumerate(names):
        x, y = left + cell * (j + 0.5), top + side + 12
        label = svg.text(0, 0, svg.shorten(column, 14), anchor="end")
        parts.append(f'<g transform="translate({x:g} {y:g}) rotate(-40)">{label}</g>')
    below = 14 + 4.4 * max(len(svg.shorten(n, 14)) for n in names)
    return svg.figure(left + side + 6, top + side + below, title, ", ".join(summary[:40]), parts)


def _confusion_picture(shares: np.ndarray, title: str) -> str:
    """One pixel per pair of classes: correct predictions blue, wrong ones red, the darker the more."""
    n = len(shares)
    pixels = np.zeros((n, n, 4), np.uint8)
    pixels[..., :3] = (213, 94, 0)
    pixels[np.arange(n), np.arange(n), :3] = (0, 114, 178)
    pixels[..., 3] = np.round(255 * np.sqrt(shares)).astype(np.uint8)
    factor = max(1, 300 // n)
    buffer = io.BytesIO()
    Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1), "RGBA").save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    worst = float(np.diag(shares).min())
    return (
        f'<img class="matrix" width="300" height="300" src="data:image/png;base64,{data}" '
        f'alt="{title}: {counted(n, "class")}, one dot per pair; accuracy of the worst class {100 * worst:.0f} %">'
    )


def reliability(before: Reliability, after: Reliability, who: str) -> str:
    """Accuracy of predictions by their confidence, before and after temperature scaling."""
    width, height, left, bottom = 300, 300, 44, 206
    x, y = Scale(0, 1, left, width - 22), Scale(0, 1, bottom, 10)
    parts = svg.y_axis(y, left, width - 22, [(v, percent(v)) for v in (0, 0.5, 1)])
    parts += svg.x_axis(x, 250, 10, [(v, percent(v)) for v in (0, 0.5, 1)], "confidence")
    parts.append(svg.line(x(0), y(0), x(1), y(1), "zero"))
    largest = max(after.count.max(), 1)
    bins = len(after.count)
    for b in range(bins):
        tall = 34 * after.count[b] / largest
        parts.append(svg.rectangle(x(b / bins) + 1, 250 - tall, x(1 / bins) - x(0) - 2, tall, f"bar {who}"))
    for values, kind in ((before, "before"), (after, f"after {who}")):
        # A handful of predictions in a bin is noise that would draw the eye away from the others.
        shown = np.flatnonzero(values.count >= max(3, 0.005 * values.count.sum()))
        parts.append(svg.path([(x(values.confidence[b]), y(values.accuracy[b])) for b in shown], f"curve {kind}"))
        who_marks = "alone" if kind == "before" else who
        parts += [
            svg.mark(x(values.confidence[b]), y(values.accuracy[b]), f"{who_marks} {kind.split()[0]}", size=3)
            for b in shown
        ]
    summary = f"Calibration error {percent(before.ece, 1)} before and {percent(after.ece, 1)} after temperature scaling"
    return svg.figure(width, height, f"Reliability of {who}", summary, parts)


def roc(name: str, label: int, models: Mapping[str, ByClass], point: AtOperatingPoint | None) -> str:
    """ROC curves of a class against all others; the operating point of each model, where there is one, as its mark."""
    marks = {}
    if point:
        marks = {who: getattr(point, who) for who in models}
    return _ranking(
        {who: (model.roc[label], model.roc_area[label]) for who, model in models.items()},
        {who: (result.false_alarms.value, result.recall.value) for who, result in marks.items()},
        (f"ROC curve, {name}", f"false alarms: others taken for {name}", f"found of {name}"),
    )


def pr(name: str, label: int, models: Mapping[str, ByClass]) -> str:
    """PR curves of a class."""
    return _ranking(
        {who: (model.pr[label], model.pr_area[label]) for who, model in models.items()},
        {},
        (f"Precision and recall, {name}", f"found of {name}", f"{name} among what is reported"),
    )


def _ranking(
    models: Mapping[str, tuple[Sequence[float], Interval | None]],
    marks: Mapping[str, tuple[float, float]],
    titles: tuple[str, str, str],
) -> str:
    """Curves over [0, 1], with their areas.

    Args:
        models: for each, the values on an even grid and the area.
        marks: points of each.
        titles: of the figure and both axes.
    """
    width, height, left, bottom = 330, 280, 48, 240
    x, y = Scale(0, 1, left, width - 24), Scale(0, 1, bottom, 24)
    ticks = [(v, percent(v)) for v in (0, 0.25, 0.5, 0.75, 1)]
    parts = svg.y_axis(y, left, width - 24, ticks) + svg.x_axis(x, bottom, 24, ticks, titles[1])
    parts.append(svg.text(left, 14, titles[2], kind="axis"))
    summary = []
    for who, (values, area) in models.items():
        points = [(x(n / (len(values) - 1)), y(value)) for n, value in enumerate(values)]
        parts.append(svg.path(points, f"curve {who}"))
        summary.append(f"{who}: area {area.value:.3f}" if area else who)
    parts += [svg.mark(x(across), y(up), who) for who, (across, up) in marks.items()]
    return svg.figure(width, height, titles[0], "; ".join(summary), parts)


def curves(lines: dict[str, list[list[dict[str, float]]]], key: str, title: str, *, share: bool) -> str:
    """One quantity while training, one thin line per seed.

    Args:
        lines: for each arm, for each seed, the lines of metrics.jsonl.
        share: whether the values are shares, shown in percent.
    """
    found = {
        arm: [[(p["epoch"], p[key]) for p in seed if p.get(key) is not None] for seed in seeds]
        for arm, seeds in lines.items()
    }
    points = [point for seeds in found.values() for seed in seeds for point in seed]
    if not points:
        return ""
    width, height, left, bottom = 340, 240, 48, 198
    x = Scale(0, max(epoch for epoch, _ in points), left, width - 12)
    y = Scale(*svg.padded([v for _, v in points], low=0, high=1 if share else 1e9), bottom, 10)
    labels = svg.percent_ticks(y, 4) if share else svg.plain_ticks(y)
    parts = svg.y_axis(y, left, width - 12, labels)
    parts += svg.x_axis(x, bottom, 10, [(v, f"{v:g}") for v in x.ticks(5)], "epoch")
    for arm in reversed(ARMS):
        for seed in found.get(arm, []):
            parts.append(svg.path([(x(e), y(v)) for e, v in seed], f"curve {arm}"))
            parts += [svg.mark(x(seed[-1][0]), y(seed[-1][1]), arm, size=3)] if seed else []
    ends = [
        f"{arm} ends at " + ", ".join(percent(s[-1][1], 1) if share else f"{s[-1][1]:.3f}" for s in seeds if s)
        for arm, seeds in found.items()
    ]
    return svg.figure(width, height, title, "; ".join(ends), parts)


LOSS_TERMS = (
    ("loss", "total"),
    ("loss/distillation", "distillation"),
    ("loss/features", "features"),
    ("loss/labels", "labels"),
)
"""Keys of metrics.jsonl, and what they are called in the figure."""


def loss_terms(seeds: Sequence[Sequence[dict[str, float]]], arm: str) -> str:
    """The weighted terms of the training loss over the epochs, and their sum; each the mean over the seeds.

    Empty where the run logged no terms.

    Args:
        seeds: for each seed, the lines of metrics.jsonl.
    """
    found = {name: _mean_over_seeds(seeds, key) for key, name in LOSS_TERMS}
    found = {name: points for name, points in found.items() if points}
    if not found.keys() - {"total"}:
        return ""
    if len(found) == 2:  # one term only: it is the total
        del found["total"]
    values = [value for points in found.values() for _, value in points]
    width, height, left, bottom, right = 340, 240, 48, 198, 84
    x = Scale(0, max(epoch for points in found.values() for epoch, _ in points), left, width - right)
    y = Scale(*svg.padded([0, *values], low=0, high=1e9), bottom, 10)
    parts = svg.y_axis(y, left, width - right, svg.plain_ticks(y))
    parts += svg.x_axis(x, bottom, 10, [(v, f"{v:g}") for v in x.ticks(5)], "epoch")
    ends = sorted(((y(points[-1][1]), name) for name, points in found.items()), reverse=True)
    lowest = bottom + 14.0
    for place, name in ends:  # from the bottom up, so that no two names overlap
        lowest = min(place, lowest - 13)
        parts += [
            svg.path([(x(epoch), y(value)) for epoch, value in found[name]], f"curve {arm} term {name}"),
            svg.text(width - right + 6, lowest + 4, name),
        ]
    summary = ", ".join(f"{name} from {points[0][1]:.3f} to {points[-1][1]:.3f}" for name, points in found.items())
    return svg.figure(width, height, f"Loss terms, {arm}", summary, parts)


def _mean_over_seeds(seeds: Sequence[Sequence[dict[str, float]]], key: str) -> list[tuple[float, float]]:
    """(epoch, mean value) of the epochs at which a seed has the key."""
    by_epoch: dict[float, list[float]] = {}
    for line in (line for seed in seeds for line in seed):
        if line.get(key) is not None:
            by_epoch.setdefault(line["epoch"], []).append(line[key])
    return [(epoch, sum(values) / len(values)) for epoch, values in sorted(by_epoch.items())]


def forecast(curves: Sequence[Curve]) -> str:
    """Error on val over the number of photos: measured points, the fit, and the interval around it."""
    width, height, left, bottom = 420, 260, 48, 216
    points = [(p.photos, p.error) for curve in curves for p in curve.points]
    fitted = [(f.photos, f.error) for curve in curves for f in curve.fitted]
    bounds = [error for _, error in points] + [bound for _, error in fitted for bound in (error.low, error.high)]
    x = Scale(*svg.log_range([n for n, _ in (*points, *fitted)]), left, width - 12, log=True)
    y = Scale(*svg.padded(bounds, low=0, high=1), bottom, 10)
    parts = svg.y_axis(y, left, width - 12, svg.percent_ticks(y, 5))
    parts += svg.x_axis(x, bottom, 10, [(v, svg.short(v)) for v in x.ticks(5)], "photos to learn from (logarithmic)")
    for curve in curves:
        upper = [(x(f.photos), y(f.error.high)) for f in curve.fitted]
        lower = [(x(f.photos), y(f.error.low)) for f in reversed(curve.fitted)]
        parts.append(svg.path([*upper, *lower], f"band {curve.arm}"))
        parts.append(svg.path([(x(f.photos), y(f.error.value)) for f in curve.fitted], f"curve {curve.arm}"))
        parts += [svg.mark(x(p.photos), y(p.error), curve.arm) for p in curve.points]
    here = x(max(n for n, _ in points))
    parts.append(svg.line(here, 10, here, bottom, "zero"))
    summary = "; ".join(
        f"{curve.arm}: " + ", ".join(f"{percent(p.error, 1)} with {p.photos:,}" for p in curve.points)
        for curve in curves
    )
    return svg.figure(width, height, f"Error on val over {curves[0].kind} photos", summary, parts)


def bars(rows: Sequence[tuple[str, float, str]], title: str) -> str:
    """Horizontal bars: name, value, label."""
    left = 14 + 6.2 * max(len(name) for name, _, _ in rows)
    width, row_height = left + 300, 26
    x = Scale(0, max(value for _, value, _ in rows) or 1, left, width - 90)
    parts = []
    for number, (name, value, label) in enumerate(rows):
        y = row_height * number + 4
        parts += [
            svg.text(left - 8, y + 14, name, anchor="end"),
            svg.rectangle(left, y + 2, max(x(value) - left, 1), row_height - 10, "bar plain"),
            svg.text(max(x(value), left + 1) + 6, y + 14, label),
        ]
    summary = ", ".join(f"{name} {label}" for name, _, label in rows)
    return svg.figure(width, row_height * len(rows) + 6, title, summary, parts)
