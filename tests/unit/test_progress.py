"""What a person sees while a run works: a bar with the time left on a terminal, plain lines elsewhere."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from potstill.monitoring import progress
from potstill.monitoring.progress import Reporter, duration


def test_on_a_terminal_a_bar_shows_how_many_and_the_time_left() -> None:
    reporter, screen = Reporter(), io.StringIO()
    reporter.console = Console(file=screen, force_terminal=True, width=100)
    with reporter.bar("Decoding photos", 40, unit="photos") as update:
        for done in range(1, 9):
            update(done)
            time.sleep(0.06)
    shown = screen.getvalue()
    assert "Decoding photos" in shown
    assert "/40" in shown
    assert "photos" in shown
    assert any(f"0:00:0{second}" in shown for second in range(1, 10)), "32 more at 60 ms each"
    assert "\x1b[" in shown


def test_elsewhere_plain_lines_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Reporter().bar("Decoding photos", 1000, unit="photos") as update:
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
    with Reporter().bar("Scoring", 3, unit="models") as update:
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
    with reporter.bar("Scoring", 1, unit="models") as update:
        update(1)
    said = capsys.readouterr()
    assert said.out + said.err == ""
    assert "Scoring: 1 models in" in (tmp_path / "log.txt").read_text("utf-8")


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
