"""Follows every training's metrics.jsonl while the run works, and passes new lines to an experiment tracker.

The trainings run in processes of their own and know nothing of trackers; what they write to metrics.jsonl anyway is
read here, by one thread of the parent. A tracker that fails never stops the run: the files have everything.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.monitoring.progress import Reporter
from potstill.monitoring.trackers import Tracker, find_tracker
from potstill.run.files import REMOVE, read_json, write_json
from potstill.run.folder import Run
from potstill.run.layout import ARMS, comparison_path
from potstill.run.results import read_comparison, several_labels_in

POLL_SECONDS = 1.0


@contextlib.contextmanager
def tracking(run: Run, tracker: str | None, reporter: Reporter) -> Iterator[None]:
    """Follow the run's trainings while the block works; nothing when `tracker` is None.

    Raises:
        ConfigError: no such tracker, or its package is not installed.
    """
    if tracker is None:
        yield
        return
    follower = Follower(run, tracker, reporter)
    try:
        yield
    finally:
        follower.close()


def check_tracker(tracker: str | None) -> None:
    """Raise ConfigError for a tracker that cannot be used."""
    if tracker is not None:
        find_tracker(tracker)


class Follower:
    """The thread that reads metrics.jsonl files and feeds a tracker, from the first line that it has not logged yet."""

    def __init__(self, run: Run, tracker: str, reporter: Reporter) -> None:
        self._open = find_tracker(tracker)
        self._run, self._tracker, self._reporter = run, tracker, reporter
        self._folder = run.path / "tracking"
        self._state_path = self._folder / f"{tracker}.json"
        self._state: dict[str, Any] = {"run": None, "seen": {}}
        if self._state_path.is_file():
            self._state = dict(read_json(self._state_path, REMOVE))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"track-{tracker}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read what is left, add the comparison, and let the tracker finish."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        try:
            # Opened in this thread: some trackers know their run in the thread that opened it only.
            name, earlier = self._run.path.resolve().name, self._state["run"]
            tracker = self._open(self._folder, name, earlier)
            self._state["run"] = tracker.id
            while not self._stop.wait(POLL_SECONDS):
                self._read_new(tracker)
            self._read_new(tracker)
            self._log_comparison(tracker)
            tracker.close()
        except Exception as error:  # a server that is down must not cost the training
            self._reporter.info(
                f"{self._tracker} failed ({type(error).__name__}: {error}). The run continues; all numbers are in the "
                "metrics.jsonl files."
            )

    def _read_new(self, tracker: Tracker) -> None:
        changed = False
        for stage in (self._run.teacher, self._run.students):
            for path in sorted(stage.rglob("metrics.jsonl")):
                changed |= self._read_file(path, tracker)
        if changed:
            write_json(self._state_path, self._state)

    def _read_file(self, path: Path, tracker: Tracker) -> bool:
        name = _name(self._run, path)
        last = before = self._state["seen"].get(name, 0)
        whole = path.read_bytes().rpartition(b"\n")[0]  # a line that is being written waits for the next reading
        for line in whole.splitlines():
            entry = json.loads(line)
            step = int(entry.get("step", entry.get("steps", 0)))
            phase = f"{name}/{entry['phase']}" if "phase" in entry else name
            seen = self._state["seen"].get(phase, 0)
            if step <= seen:
                continue
            values = {
                k: float(v) for k, v in entry.items() if k not in ("step", "steps") and isinstance(v, int | float)
            }
            tracker.log(phase, values, step)
            self._state["seen"][phase] = last = step
        return bool(last != before)

    def _log_comparison(self, tracker: Tracker) -> None:
        path = comparison_path(self._run)
        if not (self._run.comparison / "done.json").is_file() or self._state["seen"].get("comparison"):
            return
        if several_labels_in(path):
            return  # its numbers are others, and are in comparison.json
        comparison = read_comparison(path)
        values = {"teacher_accuracy": comparison.teacher.accuracy.value}
        for student in comparison.students:
            values |= {f"{student.name}_{arm}_accuracy": student.arm(arm).accuracy.value for arm in ARMS}
            values |= {f"{student.name}_difference_{key}": v for key, v in asdict(student.difference).items()}
        tracker.log("comparison", values, 1)
        self._state["seen"]["comparison"] = 1
        write_json(self._state_path, self._state)


def _name(run: Run, path: Path) -> str:
    stage, *rest = path.parent.relative_to(run.path).parts
    return "/".join(["teacher", *rest] if stage == run.teacher.name else rest)
