"""Work for tests of child processes: what the file of a job says."""

import json
import os
import sys
import time
from pathlib import Path

from potstill.errors import ExportError

IMPORTED_BY = os.getpid()
"""The process itself, or the one that it is a fork of."""


def work(job: Path) -> None:
    """Refuse, crash, send a signal (a number) to this process, or wait; leave marks beside the job."""
    order = json.loads(job.read_text("utf-8"))
    print("printed", os.environ["OMP_NUM_THREADS"], flush=True)
    if order == "refuse":
        raise ExportError("two\nlines")
    if order == "crash":
        raise ZeroDivisionError("by zero")
    job.with_name("pid").write_text(f"{os.getpid()} {IMPORTED_BY}")
    if isinstance(order, int):
        os.kill(os.getpid(), order)
        time.sleep(60)
    if order == "wait":
        time.sleep(60)
    done = {"threads": os.environ["OMP_NUM_THREADS"], "torch": "torch" in sys.modules}
    job.with_name("done").write_text(json.dumps(done))
