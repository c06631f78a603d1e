"""What `get` prints: a bar per class while it works, then a table, and what to do about classes with too few photos."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from potstill.get.streams import SIDES, Preview, Stream
from potstill.images.reasons import meaning
from potstill.monitoring.display import PLAIN_LINE_SECONDS
from potstill.monitoring.progress import Reporter
from potstill.monitoring.tables import text_table
from potstill.wording import counted


@contextlib.contextmanager
def bars(streams: Sequence[Stream], reporter: Reporter) -> Iterator[Callable[[], None]]:
    """One bar per class; without a terminal a line from time to time. Yields what to call after each photo."""
    if reporter.console.is_terminal and not reporter.console.quiet:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[out]}"),
        )
        with Progress(*columns, TimeRemainingColumn(), console=reporter.console, transient=True) as progress:
            tasks = [progress.add_task(s.concept.label, total=_wanted(s), out="") for s in streams]

            def draw() -> None:
                for task, stream in zip(tasks, streams, strict=True):
                    out = f"{stream.reasons.total():,} left out" if stream.reasons else ""
                    progress.update(task, completed=_have(stream), out=out)

            yield _at_most_every(0.2, draw)
            draw()
    else:

        def line() -> None:
            reporter.info("Downloaded " + ", ".join(f"{s.concept.label} {_have(s):,}/{_wanted(s):,}" for s in streams))

        yield _at_most_every(PLAIN_LINE_SECONDS, line)


def result_table(streams: Sequence[Stream]) -> Table:
    """Class by class: photos in place, and candidates left out by reason."""
    rows, splits = [], _splits({name for s in streams for name, side in s.sides.items() if side.wanted})
    for stream in streams:
        sides = [f"{stream.sides[split].have:,} of {stream.sides[split].wanted:,}" for split in splits]
        reasons = ", ".join(f"{code} {count:,}" for code, count in stream.reasons.most_common())
        rows.append([stream.concept.label, stream.source.name, *sides, reasons])
    return text_table(("class", "source", *splits, "left out, by reason"), rows, right=_from(2, splits))


def preview_table(previews: Sequence[Preview]) -> Table:
    """Class by class: candidates per split and license, and about how many megabytes would be downloaded."""
    splits = _splits({name for preview in previews for name, count in preview.wanted.items() if count})
    header = ("class", "source", "id", *(f"{split} candidates" for split in splits), "licenses", "about MB")
    rows = []
    for preview in previews:
        concept = preview.concept
        sides = [f"{preview.candidates[split]:,} for {preview.wanted[split]:,}" for split in splits]
        licenses = ", ".join(f"{name} {count:,}" for name, count in preview.licenses.most_common(4))
        ids = f"{concept.id} {concept.name}"
        rows.append([concept.label, preview.source, ids, *sides, licenses, f"{preview.megabytes:,.0f}"])
    return text_table(header, rows, right=(*_from(3, splits), len(header) - 1))


def shortages(streams: Sequence[Stream]) -> list[str]:
    """A paragraph for each class that has too few photos: how many, why, and what can be done."""
    texts = []
    for stream in streams:
        short = [
            f"{side.wanted - side.have:,} {split}" for split, side in stream.sides.items() if side.have < side.wanted
        ]
        if not short:
            continue
        label = stream.concept.label
        lines = [
            f"{label}: {' and '.join(short)} missing; {stream.source.name} listed {counted(stream.listed, 'photo')}."
        ]
        if stream.error:
            lines.append(f"  The source stopped: {stream.error}")
        lines += [
            f"  {count:,} {code}: {meaning(code)}"
            + (f" (for example: {example})" if (example := stream.examples[code]) else "")
            for code, count in stream.reasons.most_common()
        ]
        retried = {"server_error", "connection", "timeout", "cut_short", "parked"} & {*stream.reasons}
        if retried:
            lines.append("  Run the same command again to retry those that failed.")
        elif stream.reasons["license"]:
            lines.append(
                "  --allow-nc also accepts licenses that allow only non-commercial use; --license any accepts all."
            )
        else:
            lines.append("  Another source may have more photos: --source commons, --source inaturalist.")
        texts.append("\n".join(lines))
    return texts


def left_out(streams: Sequence[Stream]) -> Counter[str]:
    """All classes together, by reason code."""
    return sum((stream.reasons for stream in streams), Counter[str]())


def _splits(wanted: Set[str]) -> tuple[str, ...]:
    """The columns of a table: unlabeled only where it was asked for."""
    return tuple(split for split in SIDES if split != "unlabeled" or split in wanted)


def _from(first: int, splits: Sequence[str]) -> tuple[int, ...]:
    """The numbers of the columns of these splits."""
    return tuple(range(first, first + len(splits)))


def _have(stream: Stream) -> int:
    return sum(side.have for side in stream.sides.values() if side.wanted)


def _wanted(stream: Stream) -> int:
    return sum(side.wanted for side in stream.sides.values())


def _at_most_every(seconds: float, action: Callable[[], None]) -> Callable[[], None]:
    last = time.monotonic()

    def maybe() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            action()

    return maybe
