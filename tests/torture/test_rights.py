"""A run folder that may only be read is read, and never written in part."""

import io
import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support import CLASSES, draw_photo
from tests.torture.cases import potstill
from tests.torture.forked import NoOverride

from potstill.deploy.serve import serve
from potstill.run.folder import Run


@contextmanager
def only_readable(run: Path) -> Iterator[None]:
    """Takes away the right to write to the run's folders; at the end, all files must be as they were."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    folders = [run, *(path for path in run.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def code_of(work: Callable[[], int]) -> int:
    """The exit code of some work in a process that the modes of files hold for, even where root runs the tests."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            NoOverride().install()
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("command", "code"), [("status", 0), ("doctor", 0), ("compare", 0), ("report", 2)], ids=lambda value: str(value)
)
def test_a_run_that_may_only_be_read(command: str, code: int, run_copy: Run, tmp_path: Path) -> None:
    output = tmp_path / "said.txt"

    def work() -> int:
        answer = potstill([command, run_copy.path, *([run_copy.path] if command == "compare" else [])])
        output.write_text(answer.errors, "utf-8")
        return answer.code

    with only_readable(run_copy.path):
        assert code_of(work) == code
    said = output.read_text("utf-8")
    assert ("Permission denied" in said) == (code == 2), said


def test_a_run_that_may_only_be_read_is_served(run_copy: Run, tmp_path: Path) -> None:
    photo, output = io.BytesIO(), tmp_path / "said.txt"
    draw_photo(CLASSES[0], 7).save(photo, "PNG")

    def work() -> int:
        with serve(run_copy.path, port=0) as page:
            request = urllib.request.Request(f"{page.url}classify", data=photo.getvalue())
            with urllib.request.urlopen(request, timeout=60) as answer:
                output.write_bytes(answer.read())
        return 0

    with only_readable(run_copy.path):
        assert code_of(work) == 0
    predictions = json.loads(output.read_text("utf-8"))["predictions"]
    assert [column["arm"] for column in predictions] == ["distilled", "alone", "teacher"]
