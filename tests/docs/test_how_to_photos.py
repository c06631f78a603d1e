"""Every `$ potstill …` line of the pages about photos is a command that the program understands."""

import re
import shlex
from pathlib import Path

import pytest

from potstill.cli import app, photos, runs

assert photos
assert runs  # each registers its commands

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("how-to/get-photos.md", "how-to/check-photos.md", "how-to/labels-from-a-table.md")


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S):
            found += re.findall(r"^\$ potstill (.*)$", block, re.M)
    return found


@pytest.mark.parametrize("line", commands())
def test_the_command_is_understood(line: str) -> None:
    app.parse_args(shlex.split(line), print_error=False, exit_on_error=False)


def test_there_are_commands_and_a_wrong_one_is_noticed() -> None:
    assert len(commands()) > 15
    with pytest.raises(Exception, match=r"(?i)unknown option"):
        app.parse_args(["check", "data", "--wrong"], print_error=False, exit_on_error=False)
