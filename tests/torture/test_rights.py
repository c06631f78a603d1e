"""A run folder that may only be read is read, and never written in part."""

import os
from pathlib import Path

import pytest
from tests.torture.cases import potstill
from tests.torture.forked import NoOverride

from potstill.run.folder import Run


def code_of(command: str, run: Path, said: Path) -> int:
    """The exit code of a command on a run, in a process that the modes of files hold for."""
    child = os.fork()
    if child == 0:
        NoOverride().install()
        answer = potstill([command, run, *([run] if command == "compare" else [])])
        said.write_text(answer.errors, "utf-8")
        os._exit(answer.code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("command", "code"), [("status", 0), ("doctor", 0), ("compare", 0), ("report", 2)], ids=lambda value: str(value)
)
def test_a_run_that_may_only_be_read(command: str, code: int, run_copy: Run, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run_copy.path.rglob("*") if path.is_file()}
    folders = [run_copy.path, *(path for path in run_copy.path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert code_of(command, run_copy.path, tmp_path / "said.txt") == code
    finally:
        for folder in folders:
            folder.chmod(0o755)
    said = (tmp_path / "said.txt").read_text("utf-8")
    assert ("Permission denied" in said) == (code == 2), said
    assert before == {path: path.read_bytes() for path in run_copy.path.rglob("*") if path.is_file()}
