"""The learning curve: what distillation buys with few labels and with many. One run per number of labels."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from potstill.config.load import from_mapping
from potstill.config.schema import Config
from potstill.errors import ConfigError
from potstill.monitoring.progress import Reporter
from potstill.monitoring.tables import text_table
from potstill.pipeline import distill, dry_run
from potstill.run.files import write_text
from potstill.wording import counted


@dataclass(frozen=True, slots=True)
class Point:
    """One student at one number of labels; shares of test photos, intervals as in comparison.json."""

    per_class: int
    student: str
    teacher: float
    distilled: float
    alone: float
    difference: float
    low: float
    high: float
    test_photos: int
    seeds: int


def learning_curve(
    data: Path, per_class: Sequence[int], config: Config, folder: Path, reporter: Reporter
) -> list[Point]:
    """Run the whole job once for each number of labels per class, into `folder/per-class-N`, and write `curve.csv`.

    Each teacher knows only the labels of its own run. What becomes of the other photos is `images.rest`.

    Raises:
        ConfigError: a number below 2.
    """
    points: list[Point] = []
    for count, settings in _settings(per_class, config):
        reporter.info(_title(count))
        result = distill(data, config=settings, run=folder / f"per-class-{count}", reporter=reporter)
        comparison = result.comparison
        points += [
            Point(
                count,
                student.name,
                comparison.teacher.accuracy.value,
                student.distilled.accuracy.value,
                student.alone.accuracy.value,
                student.difference.value,
                student.difference.low,
                student.difference.high,
                comparison.test_photos,
                comparison.seeds,
            )
            for student in comparison.students
        ]
        write_text(folder / "curve.csv", _csv(points))
    return points


def plan_curve(data: Path, per_class: Sequence[int], config: Config) -> Iterator[str]:
    """What `learning_curve` would do and take, without starting it: the lines of each run. Raises as it does."""
    for count, settings in _settings(per_class, config):
        yield _title(count)
        yield from dry_run(data, settings)


def _settings(per_class: Sequence[int], config: Config) -> list[tuple[int, Config]]:
    """Of each run, by its number of labels. Raises ConfigError for one below 2."""
    if not per_class or min(per_class) < 2:
        raise ConfigError("Name at least one number of labels per class, all 2 or more: --per-class 20,50,100.")
    return [(count, from_mapping({"images.per_class": count}, base=config)) for count in sorted(set(per_class))]


def _title(count: int) -> str:
    return f"{counted(count, 'label')} per class"


def curve_table(points: Sequence[Point]) -> Table:
    """For the terminal."""
    header = ["student", "labels", "teacher", "distilled", "alone", "difference in points (interval)"]
    rows = [
        [
            p.student,
            str(p.per_class),
            f"{p.teacher:.1%}",
            f"{p.distilled:.1%}",
            f"{p.alone:.1%}",
            f"{100 * p.difference:+.1f} ({100 * p.low:+.1f} to {100 * p.high:+.1f})",
        ]
        for p in points
    ]
    return text_table(header, rows, right=range(1, len(header)))


def _csv(points: Sequence[Point]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*asdict(points[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(point) for point in points)
    return buffer.getvalue()
