"""One training in several processes of one machine, as a task of an engine, started by `runner`.

Does not import torch: it waits for the processes, and ends them where one fails.
"""

import sys
import tempfile
from pathlib import Path

from potstill.processes.group import run_together
from potstill.run.files import read_json, write_json

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def work(job: Path) -> None:
    """Train as a JSON file says, which is that of `worker`, with `processes` beside. Each gets a file like it in a
    folder of its own, `rank-0` and so on."""
    values = read_json(job)
    count, device = values["processes"], values["device"]
    jobs = rank_jobs(job, count)
    # They talk by sockets of this machine only. What torch warns of is meant (`loop._mean_loss`).
    environment = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK, "TORCH_CPP_LOG_LEVEL": "ERROR"}
    with tempfile.TemporaryDirectory() as folder:
        for rank, path in enumerate(jobs):
            path.parent.mkdir(exist_ok=True)
            own = "cpu" if device == "cpu" else f"{device}:{rank}"
            write_json(path, {**values, "device": own, "rank": rank, "store": str(Path(folder) / "store")})
        run_together("potstill.students.worker", jobs, threads=values["threads"], environment=environment)


def rank_jobs(job: Path, count: int) -> list[Path]:
    """The files for so many processes of a training."""
    return [job.parent / f"rank-{rank}" / job.name for rank in range(count)]
