"""Every command of docs/how-to/what-to-label-next.md works, on drawn photos and a finished run of them."""

import contextlib
import json
import re
import shlex
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, console_lines
from tests.support import command, environment

from potstill.cli import run as run_command
from potstill.run.folder import Run

PAGE = ROOT / "docs" / "how-to" / "what-to-label-next.md"


def test_every_command_works_in_the_order_of_the_page(
    pool_copy: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pool_copy.path.parents[1]
    monkeypatch.chdir(folder)
    done = []
    for line in [piece.text for piece in console_lines() if piece.page == PAGE]:
        stands_for = {"my-photos": "my photos", "RUN": "runs/first", "RUN-2": "runs/first-2"}
        words = [stands_for.get(word, word).replace("RUN/", "runs/first/") for word in shlex.split(line)[1:]]
        done.append(words[0] + (" --label" if "--label" in words else ""))
        if "--label" in words:
            label_one(words, folder)
            continue
        if words[0] == "distill":
            words.append("--dry-run")  # a whole run would show no more
        assert run_command(words) == 0, line
        out = capfd.readouterr().out
        assert re.search(r"photos to label next, of \d+" if words[0] == "suggest" else r"about \d+ to train on", out)
    assert done == ["suggest", "suggest --label", "distill"]
    assert len(list((folder / "my photos/train/disc").iterdir())) == 11


def label_one(words: list[str], folder: Path) -> None:
    """Start the page, label its first photo, and stop it with Ctrl-C."""
    process = subprocess.Popen(
        command([*words, "--port", "0"]), env=environment(), cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        url = output.readline().split()[0]
        body = json.dumps({"photo": 0, "label": "disc"}).encode()
        request = urllib.request.Request(f"{url}label", body, {"Content-Type": "application/json"})
        with contextlib.closing(urllib.request.urlopen(request, timeout=30)) as found:
            assert json.load(found)["labeled"] == 1
        process.send_signal(signal.SIGINT)
        rest = output.read()
    assert process.returncode == 0
    assert re.search(r"^1 of \d+ photos labeled \(1 disc\), \d+ left\.$", rest, re.MULTILINE)
    assert "learn from the new labels" in rest
