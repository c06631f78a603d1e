"""Live progress elsewhere: follows every training's metrics.jsonl and hands new lines to an experiment tracker.

The trainings run in processes of their own and know nothing of trackers; what they write to metrics.jsonl anyway is
read here, by one thread of the parent. A tracker that fails never stops the run: the files have everything.
"""

import contextlib
import importlib.util
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from potstill.errors import ConfigError
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run

PACKAGES = {"tensorboard": "tensorboard", "trackio": "trackio", "mlflow": "mlflow", "wandb": "wandb"}
"""Trackers, and the package that each needs."""

PROJECT = "potstill"
POLL_SECONDS = 1.0


class Sink(Protocol):
    """A tracker that is ready to take numbers."""

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        """Take the values of one line. `name` is the training, such as `student/seed-0/distilled`."""

    def close(self) -> None:
        """Hand over what is still waiting."""


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
    if tracker is None:
        return
    if tracker not in PACKAGES:
        raise ConfigError(f"There is no tracker {tracker!r}. Known are: {', '.join(PACKAGES)}.")
    if importlib.util.find_spec(PACKAGES[tracker]) is None:
        raise ConfigError(f"--track {tracker} needs a package. Install it: pip install {PACKAGES[tracker]}")


class Follower:
    """The thread that reads metrics.jsonl files and feeds a tracker, after the last line of an earlier sitting."""

    def __init__(self, run: Run, tracker: str, reporter: Reporter) -> None:
        check_tracker(tracker)
        self._run, self._tracker, self._reporter = run, tracker, reporter
        self._folder = run.path / "tracking"
        self._state_path = self._folder / f"{tracker}.json"
        self._state: dict[str, Any] = {"run": None, "seen": {}}
        if self._state_path.is_file():
            self._state = dict(read_json(self._state_path))
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
            sink, self._state["run"] = _open(self._tracker, self._folder, name, earlier)
            while not self._stop.wait(POLL_SECONDS):
                self._read_new(sink)
            self._read_new(sink)
            self._log_comparison(sink)
            sink.close()
        except Exception as error:  # a server that is down must not cost the training
            self._reporter.info(
                f"{self._tracker} failed ({type(error).__name__}: {error}). The run goes on; all numbers are in the "
                "metrics.jsonl files."
            )

    def _read_new(self, sink: Sink) -> None:
        changed = False
        for stage in (self._run.teacher, self._run.students):
            for path in sorted(stage.rglob("metrics.jsonl")):
                changed |= self._read_file(path, sink)
        if changed:
            write_json(self._state_path, self._state)

    def _read_file(self, path: Path, sink: Sink) -> bool:
        name = _name(self._run, path)
        last = before = self._state["seen"].get(name, 0)
        whole = path.read_bytes().rpartition(b"\n")[0]  # a line that is being written waits for the next look
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
            sink.log(phase, values, step)
            self._state["seen"][phase] = last = step
        return bool(last != before)

    def _log_comparison(self, sink: Sink) -> None:
        path = self._run.comparison / "comparison.json"
        if not (self._run.comparison / "done.json").is_file() or self._state["seen"].get("comparison"):
            return
        comparison = read_json(path)
        values = {"teacher_accuracy": comparison["teacher"]["accuracy"]["value"]}
        for s in comparison["students"]:
            values |= {f"{s['name']}_{arm}_accuracy": s[arm]["accuracy"]["value"] for arm in ("distilled", "alone")}
            values |= {f"{s['name']}_difference_{key}": s["difference"][key] for key in ("value", "low", "high")}
        sink.log("comparison", values, 1)
        self._state["seen"]["comparison"] = 1
        write_json(self._state_path, self._state)


def _name(run: Run, path: Path) -> str:
    stage, *rest = path.parent.relative_to(run.path).parts
    return "/".join(["teacher", *rest] if stage == run.teacher.name else rest)


def _open(tracker: str, folder: Path, name: str, earlier: str | None) -> tuple[Sink, str]:
    """The tracker, and the id by which a later sitting finds the same run of it."""
    sinks: dict[str, type[_TensorBoard | _MLflow | _Wandb | _Trackio]]
    sinks = {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _Wandb, "trackio": _Trackio}
    sink = sinks[tracker](folder, name, earlier)
    return sink, sink.id


class _TensorBoard:
    """One curve per training: `tensorboard --logdir RUN/tracking/tensorboard`."""

    def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
        self.id = name
        self._folder, self._writers = folder / "tensorboard", dict[str, Any]()

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        for key, value in values.items():
            self._writers[name].add_scalar(key, value, step)
        self._writers[name].flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class _MLflow:
    """One MLflow run; the server is the one of MLFLOW_TRACKING_URI, or MLflow's local default."""

    def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        if earlier is None:
            found = self._client.get_experiment_by_name(PROJECT)
            experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
            earlier = self._client.create_run(experiment, run_name=name).info.run_id
        self.id = str(earlier)

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            self._client.log_metric(self.id, f"{name}/{key}", value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self.id)


class _Wandb:
    """One run of Weights & Biases; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=PROJECT, name=name, id=earlier, resume="allow" if earlier else None, dir=str(folder)
        )
        self.id = str(self._run.id)
        self._known = set[str]()

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        if name not in self._known:  # every training counts its own steps
            self._known.add(name)
            self._run.define_metric(f"{name}/step")
            self._run.define_metric(f"{name}/*", step_metric=f"{name}/step")
        self._run.log({f"{name}/{key}": value for key, value in values.items()} | {f"{name}/step": step})

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """One Trackio run, in Trackio's local database: `trackio show --project potstill`."""

    def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(project=PROJECT, name=earlier or name, resume="allow")
        self.id = earlier or name

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        self._trackio.log({f"{name}/{key}": value for key, value in values.items()} | {f"{name}/step": step})

    def close(self) -> None:
        self._trackio.finish()
