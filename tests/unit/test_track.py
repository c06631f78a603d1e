"""Live progress: what metrics.jsonl says reaches the tracker, once, while the run works; a tracker never stops it."""

import importlib.util
import json
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

import potstill
from potstill.errors import ConfigError
from potstill.monitoring import track
from potstill.monitoring.progress import Reporter
from potstill.monitoring.track import check_tracker, tracking
from potstill.monitoring.trackers import registry, tracker_names
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.results import read_comparison


class Words(Reporter):
    """Keeps what is reported."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "POLL_SECONDS", 0.02)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def write_lines(run: Run, *steps: int, arm: str = "distilled") -> Path:
    path = run.students / "small" / "seed-0" / arm / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for step in steps:
            file.write(json.dumps({"step": step, "epoch": step / 10, "loss": 1 / step, "val_accuracy": None}) + "\n")
    return path


@pytest.mark.parametrize("tracker", tracker_names())
def test_a_missing_package_is_told_with_the_line_that_installs_it(
    tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"--track {tracker} needs a package. Install it: pip install {tracker}"):
        check_tracker(tracker)


def test_an_unknown_tracker_is_refused_and_none_is_fine(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"no tracker 'excel'\. Known are: mlflow, tensorboard, trackio, wandb"):
        check_tracker("excel")
    with tracking(run, None, Words()):
        pass
    assert not run.path.exists()


def scalars(run: Run) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """What TensorBoard itself reads from its files, by (training, tag)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    root, found = run.path / "tracking" / "tensorboard", {}
    for folder in sorted({path.parent for path in root.rglob("events.*")}):
        events = EventAccumulator(str(folder))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found[str(folder.relative_to(root)), tag] = [(e.step, e.value) for e in events.Scalars(tag)]
    return found


def test_tensorboard_has_every_line_once_even_when_the_run_is_stopped_between(run: Run) -> None:
    path = write_lines(run, 1, 2)
    with tracking(run, "tensorboard", Words()):
        write_lines(run, 3)
    with path.open("a") as file:
        file.write('{"step": 4, "loss": 0.2')  # killed while writing
    with tracking(run, "tensorboard", Words()):
        pass
    path.write_text(path.read_text().rpartition("\n")[0] + "\n")
    write_lines(run, 4, 5)
    write_lines(run, 1, arm="alone")
    with tracking(run, "tensorboard", Words()):
        pass
    found = scalars(run)
    assert [step for step, _ in found["small/seed-0/distilled", "loss"]] == [1, 2, 3, 4, 5]
    assert found["small/seed-0/distilled", "loss"][1][1] == pytest.approx(0.5)
    assert [step for step, _ in found["small/seed-0/alone", "epoch"]] == [1]
    assert ("small/seed-0/distilled", "val_accuracy") not in found


def test_a_finished_run_ends_with_the_comparison(tiny_run: "potstill.Result", tmp_path: Path) -> None:
    import shutil

    run = Run(tmp_path / "copy")
    for part in ("2_teacher", "4_students", "5_comparison"):
        shutil.copytree(tiny_run.path / part, run.path / part, ignore=shutil.ignore_patterns("*.safetensors", "*.npy"))
    with tracking(run, "tensorboard", Words()):
        pass
    found = scalars(run)
    comparison = read_comparison(run.comparison / "comparison.json")
    name = comparison.students[0].name
    assert found["comparison", "teacher_accuracy"][0][1] == pytest.approx(comparison.teacher.accuracy.value)
    assert ("comparison", f"{name}_difference_low") in found
    trainings = {training for training, _ in found}
    assert {f"{name}/seed-{s}/{arm}" for s in (0, 1) for arm in ("distilled", "alone")} < trainings
    assert any(training.startswith("teacher") for training in trainings)


class Calls:
    """Takes every call and remembers it."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self.made.append((name, arguments, named))
            return self.result(name)

        return call

    def result(self, name: str) -> Any:
        return None

    def names(self) -> list[str]:
        return [name for name, _, _ in self.made]


class MlflowClient(Calls):
    def result(self, name: str) -> Any:
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="run-7")) if name == "create_run" else None


class WandbRun(Calls):
    id = "run-8"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Calls]:
    """Modules with the names and functions that the documentation of these trackers gives, which note the calls."""
    client, wandb_run, trackio = MlflowClient(), WandbRun(), Calls()
    modules: dict[str, Any] = {
        "mlflow": types.SimpleNamespace(MlflowClient=lambda: client),
        "wandb": types.SimpleNamespace(init=lambda **named: wandb_run),
        "trackio": types.SimpleNamespace(init=trackio.init, log=trackio.log, finish=trackio.finish),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return {"mlflow": client, "wandb": wandb_run, "trackio": trackio}


@pytest.mark.parametrize(
    ("tracker", "last"), [("mlflow", "set_terminated"), ("wandb", "finish"), ("trackio", "finish")]
)
def test_other_trackers_get_every_line_and_are_closed(
    run: Run, fakes: dict[str, Calls], tracker: str, last: str
) -> None:
    write_lines(run, 1, 2)
    words = Words()
    with tracking(run, tracker, words):
        pass
    assert words.lines == []
    calls = fakes[tracker]
    assert calls.names()[-1] == last
    text = repr(calls.made)
    assert "small/seed-0/distilled/loss" in text
    assert calls.names().count("log_metric" if tracker == "mlflow" else "log") == (4 if tracker == "mlflow" else 2)
    state = read_json(run.path / "tracking" / f"{tracker}.json")
    assert state["seen"] == {"small/seed-0/distilled": 2}
    assert state["run"] == {"mlflow": "run-7", "wandb": "run-8", "trackio": "run"}[tracker]


def test_a_tracker_that_fails_is_told_once_and_does_not_stop_the_run(
    run: Run, fakes: dict[str, Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **named: Any) -> None:
        raise ConnectionError("no server")

    monkeypatch.setattr(sys.modules["trackio"], "log", broken)
    write_lines(run, 1, 2)
    words, finished = Words(), False
    with tracking(run, "trackio", words):
        finished = True
    assert finished
    assert words.lines == [
        "trackio failed (ConnectionError: no server). The run continues; all numbers are in the metrics.jsonl files."
    ]


def test_a_server_that_is_down_at_the_start_does_not_stop_the_run(
    run: Run, fakes: dict[str, Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**named: Any) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(sys.modules["wandb"], "init", broken)
    words = Words()
    with tracking(run, "wandb", words):
        write_lines(run, 1)
    assert len(words.lines) == 1
    assert words.lines[0].startswith("wandb failed (ConnectionError: refused). The run continues")


def test_a_tracker_is_opened_and_fed_in_one_thread(
    run: Run, fakes: dict[str, Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trackio refuses numbers from another thread than the one that called its init."""
    threads = set()
    for name in ("init", "log", "finish"):
        monkeypatch.setattr(sys.modules["trackio"], name, lambda *a, **k: threads.add(threading.get_ident()))
    write_lines(run, 1)
    with tracking(run, "trackio", Words()):
        pass
    assert len(threads) == 1


def test_a_tracker_is_one_registration(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_TRACKERS", dict(registry._TRACKERS))
    lines: list[tuple[str, int]] = []

    class Listing:
        def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
            self.id = name

        def log(self, name: str, values: dict[str, float], step: int) -> None:
            lines.append((name, step))

        def close(self) -> None:
            lines.append(("closed", 0))

    registry.register("listing", Listing)
    write_lines(run, 1, 2)
    with tracking(run, "listing", Words()):
        pass
    assert lines == [("small/seed-0/distilled", 1), ("small/seed-0/distilled", 2), ("closed", 0)]
    assert "listing" in tracker_names()
