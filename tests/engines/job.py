"""Work for tests of engines, in whatever process they run it."""

import os
import sys
import time
from pathlib import Path

from potstill.errors import DataError
from potstill.run.files import read_json


def work(job: Path) -> None:
    """Leave a mark, fail or wait as the file says, and leave another."""
    values = read_json(job)
    (job.parent / f"began-{os.getpid()}").touch()
    mark_node(job.parent)
    if values.get("fail") == "data":
        raise DataError("It says why.")
    if values.get("fail") == "bug":
        raise AssertionError("It says why.")
    time.sleep(values.get("seconds", 0))
    (job.parent / "done").touch()


def mark_node(folder: Path) -> None:
    """Leave the id of the node, on a Ray cluster."""
    if ray := sys.modules.get("ray"):
        (folder / "node").write_text(ray.get_runtime_context().get_node_id())
