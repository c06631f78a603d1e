"""What a person sees while a run works: a bar with the time left on a terminal, plain lines elsewhere."""

import ast
import io
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import potstill
from potstill.errors import PotstillError
from potstill.monitoring import progress
from potstill.monitoring.overall import Part
from potstill.monitoring.progress import Reporter, duration
from potstill.run.files import read_json


def test_on_a_terminal_a_bar_shows_how_many_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter, screen, now = Reporter(), io.StringIO(), 0.0
    reporter.console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with reporter.bar("Decoding photos", 40, unit="photo") as update:
        for done in range(1, 9):
            update(done)
            now += 1
    shown = screen.getvalue()
    assert "Decoding photos: 8 of 40 photos" in shown
    assert "about 32 s left" in shown
    assert "\x1b[" in shown


def test_elsewhere_plain_lines_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Reporter().bar("Decoding photos", 1000, unit="photo") as update:
        for done in range(0, 1001, 50):
            update(done)
            now += 5
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\r" not in said
    lines = said.splitlines()
    assert lines[0] == "Decoding photos: 150 of 1,000 photos, about 1 min 25 s left"
    assert lines[-1] == "Decoding photos: 1,000 photos in 1 min 45 s"
    assert len(lines) == 7, "one line each 15 seconds, and one at the end"


def test_quick_jobs_get_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter().bar("Scoring", 3, unit="model") as update:
        for done in (1, 2, 3):
            update(done)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_log_has_every_line_with_its_time_and_brackets_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter(log=tmp_path / "run" / "log.txt")
    reporter.info("class [bold]x[/bold] " + "long " * 60)
    line = (tmp_path / "run" / "log.txt").read_text("utf-8")
    assert line[:4].isdecimal()
    assert line.count("\n") == 1
    assert "class [bold]x[/bold] long" in line
    assert "class [bold]x[/bold] long" in capsys.readouterr().err


def test_quiet_prints_nothing_and_still_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(log=tmp_path / "log.txt", quiet=True)
    with reporter.bar("Scoring", 1, unit="model") as update:
        update(1)
    said = capsys.readouterr()
    assert said.out + said.err == ""
    assert "Scoring: 1 model in" in (tmp_path / "log.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (12_000, "3 h 20 min"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_was_said_before_the_log_was_known_stands_first_in_it(tmp_path: Path) -> None:
    reporter = Reporter(quiet=True)
    reporter.info("license")
    reporter.log_to(tmp_path / "log.txt")
    reporter.info("work")
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["license", "work"]


PARTS = [Part("photos", "1_images", 30), Part("pilots", "4_students", 60), Part("twin", "4_students", 120)]


def test_a_whole_run_says_the_time_left_of_all_of_it_at_most_every_15_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    reporter = Reporter()
    with reporter.whole_run(tmp_path, PARTS):
        reporter.begin_stage("1_images")
        with reporter.bar("Decoding photos", 30, unit="photo", part="photos") as update:
            for done in range(30):
                now += 1
                update(done + 1)
        with reporter.bar("s: trying 6 settings on val", 60, unit="step", part="pilots") as update:
            for done in range(60):
                now += 1
                update(done + 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Decoding photos: 15 of 30 photos, 3 min 15 s left of about 3 min 30 s in all",
        "Decoding photos: 30 of 30 photos, 3 min left of about 3 min 30 s in all",
        "Decoding photos: 30 photos in 30 s",
        "s: trying 6 settings on val: 15 of 60 steps, 2 min 45 s left of about 3 min 30 s in all",
        "s: trying 6 settings on val: 30 of 60 steps, 2 min 30 s left of about 3 min 30 s in all",
        "s: trying 6 settings on val: 45 of 60 steps, 2 min 15 s left of about 3 min 30 s in all",
        "s: trying 6 settings on val: 60 of 60 steps, 2 min left of about 3 min 30 s in all",
        "s: trying 6 settings on val: 60 steps in 1 min",
    ]


def test_the_bars_of_one_part_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    reporter = Reporter(quiet=True)
    with reporter.whole_run(tmp_path, PARTS[1:]):
        with reporter.bar("fold 1 of 2", 100, part="pilots", of=(0, 2)) as update:
            update(1)
            now += 30
            update(100)
        with reporter.bar("fold 2 of 2", 100, part="pilots", of=(1, 2)) as update:
            update(1)
        now += 3
        reporter.begin("twin", "training")
        now += 3
        reporter.begin("twin", "training")
    parts = read_json(tmp_path / "progress.json")["parts"]
    assert [part["seconds"] for part in parts] == [33.0, 3.0], "each fold is a half of its part"


def test_progress_json_says_what_is_done_and_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    reporter = Reporter(quiet=True)

    def noted() -> Any:
        return read_json(tmp_path / "progress.json")

    with pytest.raises(PotstillError, match="too bad"), reporter.whole_run(tmp_path, PARTS):  # noqa: PT012
        reporter.begin("photos", "Looking at photos")
        assert (noted()["state"], noted()["stage"], noted()["doing"]) == ("working", "1_images", "Looking at photos")
        with reporter.bar("Trying", 60, unit="step", part="pilots") as update:
            now += 1.9
            update(6)
            assert (noted()["doing"], noted()["done"]) == ("Trying", 0), (
                "other work is written down at once, then seldom"
            )
            now += 0.2
            update(12)
            now += 20
            update(30)
            assert {key: noted()[key] for key in ("stage", "doing", "done", "total", "unit")} == {
                "stage": "4_students",
                "doing": "Trying",
                "done": 30,
                "total": 60,
                "unit": "steps",
            }
            assert noted()["seconds"] == 22.1
            assert noted()["seconds_left"] == pytest.approx(137.8, abs=0.1)
            raise PotstillError("too bad\nmore words")
    assert (noted()["state"], noted()["reason"]) == ("stopped", "PotstillError: too bad")
    with reporter.whole_run(tmp_path, PARTS):
        reporter.begin("photos", "Looking at photos")
    assert (noted()["state"], noted()["share"], noted()["seconds_left"]) == ("finished", 1.0, 0.0)


def test_on_a_terminal_one_bar_is_for_the_whole_run(tmp_path: Path) -> None:
    reporter, screen = Reporter(), io.StringIO()
    reporter.console = Console(file=screen, force_terminal=True, width=120)
    with reporter.whole_run(tmp_path, PARTS):
        with reporter.bar("Decoding photos", 3, unit="photo", part="photos") as update:
            update(3)
        reporter.info("a line above the bar")
        reporter.begin("twin", "training the twin")
        time.sleep(0.2)
    shown = screen.getvalue()
    assert "training the twin" in shown
    assert re.search(r"left of about 2 min [\d ]*s? ?in all", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown))
    assert "a line above the bar" in shown


class _Notebook:
    """What IPython.display offers, remembering what was shown."""

    def __init__(self) -> None:
        self.made, self.shown = 0, list[str]()

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> "_Notebook":
        assert raw
        assert display_id
        self.made += 1
        self.update(data, raw=raw)
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        self.shown.append(data["text/plain"])


def test_in_a_notebook_one_output_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, notebook = 0.0, _Notebook()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)  # type: ignore[arg-type]
    reporter = Reporter()
    reporter.console = Console(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(reporter, "info", lambda text: None)
    with reporter.whole_run(tmp_path, PARTS):
        for part in ("photos", "pilots"):
            with reporter.bar(f"Working on {part}", 1000, unit="step", part=part) as update:
                for done in range(1000):
                    now += 0.01
                    update(done)
    assert notebook.made == 1
    assert 30 < len(notebook.shown) < 45, "twice a second at most"
    assert re.fullmatch(
        r"█+░+ \d+%  Working on pilots: \d+ of 1,000 steps, .* left of about .* in all", notebook.shown[-2]
    )
    assert notebook.shown[-1] == "", "nothing stays when the run is over"


def test_bars_name_their_unit_in_the_singular() -> None:
    """`counted` makes the plural: of `photos` it would be photoses."""
    for path in Path(potstill.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "bar":
                for word in call.keywords:
                    if word.arg == "unit" and isinstance(word.value, ast.Constant):
                        assert not str(word.value.value).endswith("s"), f"{path.name}:{call.lineno}"
