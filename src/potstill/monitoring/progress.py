"""What a person sees while a run works: bars on a terminal, plain lines elsewhere, everything in the run's log."""

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_SECONDS = 15.0
"""Without a terminal a long job reports at most this often."""

Update = Callable[[int], None]
"""Called with the number of finished items so far."""


class Reporter:
    """Prints and logs. One per command."""

    def __init__(self, *, log: Path | None = None, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, highlight=False, quiet=quiet, soft_wrap=True)
        self.log = log
        self._before_log: list[str] = []

    def log_to(self, log: Path) -> None:
        """From now on keep lines in this file; those said before a file was known go there first."""
        self.log = log
        earlier, self._before_log = self._before_log, []
        self._append("".join(earlier))

    def info(self, text: str) -> None:
        """Print a line and keep it in the log. Square brackets are printed as they are."""
        self.console.print(text, markup=False)
        self.write_log(text)

    def write_log(self, text: str) -> None:
        """Keep a line in the log only."""
        line = f"{datetime.datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n"
        if self.log is None:
            self._before_log.append(line)
        else:
            self._append(line)

    def _append(self, lines: str) -> None:
        if lines and self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(lines)

    @contextlib.contextmanager
    def bar(self, label: str, total: int, *, unit: str = "") -> Iterator[Update]:
        """A bar with the time left; in a file or pipe, a line now and then.

        Args:
            label: what is being done.
            total: number of items.
            unit: their name, in the plural.
        """
        started = time.monotonic()
        if self.console.is_terminal and not self.console.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
            with Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True) as progress:
                task = progress.add_task(label, total=total)
                yield lambda done: progress.update(task, completed=done)
        else:
            yield self._plain_updates(label, total, unit, started)
        self.info(f"{label}: {total:,} {unit} in {duration(time.monotonic() - started)}".replace("  ", " "))

    def _plain_updates(self, label: str, total: int, unit: str, started: float) -> Update:
        last = started
        first: tuple[float, int] | None = None

        def update(done: int) -> None:
            nonlocal last, first
            now = time.monotonic()
            if first is None and done > 0:
                first = now, done  # what came before was starting up, and says nothing of the pace
            if now - last < PLAIN_LINE_SECONDS or not 0 < done < total or first is None:
                return
            last = now
            seconds, items = now - first[0], done - first[1]
            left = f", about {duration(seconds * (total - done) / items)} left" if items > 0 and seconds > 2 else ""
            self.info(f"{label}: {done:,} of {total:,} {unit}{left}")

        return update


def duration(seconds: float) -> str:
    """A length of time for people: `8 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
