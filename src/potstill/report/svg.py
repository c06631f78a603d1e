"""Small pieces that the report's figures are drawn from: axes, marks, text. Colors come from the page's style."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._inner(self.low), self._inner(self.high)
        share = (self._inner(value) - low) / (high - low) if high > low else 0.5
        return round(self.start + min(max(share, 0), 1) * (self.end - self.start), 1)

    def _inner(self, value: float) -> float:
        return math.log(max(value, 1e-12)) if self.log else value

    def ticks(self, about: int = 4) -> list[float]:
        """Round values inside the scale."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)) - 1, math.ceil(math.log10(self.high)) + 1)
            for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
                found = [f * 10.0**p for p in powers for f in factors if self.low <= f * 10.0**p <= self.high]
                if len(found) >= 2:
                    return found[:: max(1, math.ceil(len(found) / (about + 2)))]
            return found
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def padded(values: Iterable[float], *, low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """Smallest and largest value with some air around them, inside [low, high]."""
    found = list(values)
    smallest, largest = min(found), max(found)
    air = max((largest - smallest) * share, 1e-3 * max(abs(largest), 1e-3))
    return max(low, smallest - air), min(high, largest + air)


def log_range(values: Iterable[float]) -> tuple[float, float]:
    """A range for a logarithmic scale with some air on both sides."""
    found = [value for value in values if value > 0] or [1.0]
    air = max((max(found) / min(found)) ** 0.12, 1.25)
    return min(found) / air, max(found) * air


def figure(width: float, height: float, title: str, description: str, parts: Sequence[str]) -> str:
    """One figure. Title and description are what a screen reader says."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width * 1.35:g}" role="img" '
        f'aria-label="{escape(title)}. {escape(description)}">' + "".join(parts) + "</svg>"
    )


def text(x: float, y: float, content: str, *, anchor: str = "start", kind: str = "") -> str:
    """A label; (x, y) is the start, middle or end of its base line."""
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{name}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a class of the style sheet."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{kind}"/>'


def path(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    joined = " ".join(f"{x:g},{y:g}" for x, y in points)
    return f'<polyline points="{joined}" class="{kind}"/>'


def rectangle(x: float, y: float, width: float, height: float, kind: str, *, opacity: float | None = None) -> str:
    """A filled box."""
    shade = "" if opacity is None else f' fill-opacity="{opacity:.3g}"'
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}"{shade}/>'


def mark(x: float, y: float, who: str, *, size: float = 5) -> str:
    """The sign of a model: teacher a diamond, distilled a disc, alone a ring; shape tells, not only color."""
    if who == "teacher":
        r = size * 1.25
        return f'<path d="M{x:g} {y - r:g}l{r:g} {r:g}l{-r:g} {r:g}l{-r:g} {-r:g}z" class="mark teacher"/>'
    return f'<circle cx="{x:g}" cy="{y:g}" r="{size:g}" class="mark {who}"/>'


def x_axis(scale: Scale, y: float, top: float, labels: Sequence[tuple[float, str]], title: str = "") -> list[str]:
    """Grid lines from `top` to `y`, tick labels below, a title under them."""
    parts = []
    for value, label in labels:
        parts += [line(scale(value), top, scale(value), y, "grid"), text(scale(value), y + 14, label, anchor="middle")]
    if title:
        parts.append(text((scale.start + scale.end) / 2, y + 31, title, anchor="middle", kind="axis"))
    return parts


def y_axis(scale: Scale, x: float, right: float, labels: Sequence[tuple[float, str]]) -> list[str]:
    """Grid lines from `x` to `right`, tick labels to the left."""
    parts = []
    for value, label in labels:
        parts += [
            line(x, scale(value), right, scale(value), "grid"),
            text(x - 6, scale(value) + 4, label, anchor="end"),
        ]
    return parts


def percent(value: float, digits: int = 0) -> str:
    """0.873 → 87 %."""
    return f"{100 * value:.{digits}f} %"


def percent_ticks(scale: Scale, about: int = 4) -> list[tuple[float, str]]:
    """Tick labels in percent, with as many digits as the range needs."""
    ticks = scale.ticks(about)
    digits = 0 if len(ticks) < 2 or ticks[1] - ticks[0] >= 0.00999 else 1
    return [(value, percent(value, digits)) for value in ticks]


def plain_ticks(scale: Scale, about: int = 4, *, factor: float = 1, sign: str = "") -> list[tuple[float, str]]:
    """Tick labels as decimal numbers, with as many digits as the range needs."""
    ticks = scale.ticks(about)
    step = factor * (ticks[1] - ticks[0]) if len(ticks) > 1 else 1
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    zero = f"{0:.{digits}f}"
    return [(v, zero if abs(v) < 1e-12 else f"{factor * v:{sign}.{digits}f}") for v in ticks]


def short(value: float) -> str:
    """A number for a tick: 0.5, 30, 1.2k, 3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.4g}"


def shorten(name: str, limit: int) -> str:
    """A name that fits: the middle of long ones is left out."""
    return name if len(name) <= limit else name[: limit * 2 // 3] + "…" + name[-(limit - limit * 2 // 3 - 1) :]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(step, 1e-12)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
