"""What a person sees while a run works: bars on a terminal, plain lines elsewhere, everything in the run's log."""

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from potstill.monitoring.display import Display, display_for
from potstill.monitoring.overall import Part, WholeRun
from potstill.monitoring.record import Doing, Record
from potstill.wording import counted

Update = Callable[[int], None]
"""Called with the number of finished items so far."""


class Reporter:
    """Prints and logs. One per command."""

    def __init__(self, *, log: Path | None = None, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, highlight=False, quiet=quiet, soft_wrap=True, force_jupyter=False)
        self.log = log
        self._before_log: list[str] = []
        self._whole: WholeRun | None = None
        self._record: Record | None = None
        self._display: Display | None = None
        self._doing = Doing("")

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
    def whole_run(self, run: Path, parts: Sequence[Part]) -> Iterator[None]:
        """Show, and write to the run's progress.json, how far a whole run is while the block works on it.

        Args:
            parts: what the run consists of, in the order in which stages begin them by name.
        """
        self._whole = WholeRun(parts)
        self._record = Record(run, self._whole)
        self._display = display_for(self.console, self.info)
        try:
            yield
        except BaseException as error:
            self._record.write(self._doing, "stopped", _reason(error))
            raise
        else:
            self._whole.close()
            self._record.write(Doing("Finished"), "finished")
        finally:
            self._display.close()
            self._whole = self._record = self._display = None

    def begin(self, part: str, text: str) -> None:
        """The next part of the run begins; `text` says in plain words what is done and why."""
        if self._whole is not None:
            self._whole.begin(part)
            self._show(Doing(text))

    def begin_stage(self, stage: str) -> None:
        """What earlier stages did not need drops out of the time that is left."""
        if self._whole is not None:
            self._whole.skip_to(stage)

    @contextlib.contextmanager
    def bar(
        self, label: str, total: int, *, unit: str = "", part: str = "", of: tuple[int, int] = (0, 1)
    ) -> Iterator[Update]:
        """A bar with the time left; in a file or pipe, a line now and then.

        Args:
            label: what is being done, in plain words.
            total: number of items.
            unit: their name, in the singular.
            part: of the whole run, where there is one. The time left is then that of the whole run.
            of: which of how many bars of its part this is, counted from 0.
        """
        started = time.monotonic()
        if self._whole is not None:
            if part:
                self._whole.begin(part)
            self._show(Doing(label, unit, 0, total))
            yield lambda done: self._step(Doing(label, unit, done, total), of if part else None)
        else:
            yield from self._own_bar(label, total, unit)
        self.info(f"{label}: {counted(total, unit).rstrip()} in {duration(time.monotonic() - started)}")

    def _step(self, doing: Doing, of: tuple[int, int] | None) -> None:
        if self._whole is not None and of is not None:
            self._whole.update((of[0] + doing.done / max(doing.total, 1)) / of[1])
        self._show(doing)

    def _show(self, doing: Doing) -> None:
        self._doing = doing
        if self._whole is None or self._record is None or self._display is None:
            return
        left = self._whole.left
        self._record.write(doing)
        all_in_all = duration(_rounded(self._whole.elapsed + left))
        self._display.show(
            str(doing), self._whole.share, f"{duration(_rounded(left))} left of about {all_in_all} in all"
        )

    def _own_bar(self, label: str, total: int, unit: str) -> Iterator[Update]:
        """A bar of its own, where it is not part of a whole run."""
        display = display_for(self.console, self.info)
        first: tuple[float, int] | None = None

        def update(done: int) -> None:
            nonlocal first
            now = time.monotonic()
            if first is None and done > 0:
                first = now, done  # what came before was starting up, and says nothing of the pace
            if not 0 < done < total or first is None:
                return
            seconds, items = now - first[0], done - first[1]
            left = f"about {duration(seconds * (total - done) / items)} left" if items > 0 and seconds > 2 else ""
            display.show(str(Doing(label, unit, done, total)), done / total, left)

        display.show(str(Doing(label, unit, 0, total)), 0.0, "")
        try:
            yield update
        finally:
            display.close()


def _rounded(seconds: float) -> float:
    """No more exact than an estimate is: to 5 seconds, to half a minute from ten minutes on."""
    step = 5 if seconds < 600 else 30
    return max(step * round(seconds / step), 1)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"{type(error).__name__}: {error}".splitlines()[0]


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
