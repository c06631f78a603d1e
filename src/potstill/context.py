"""What every stage is given beside its plan: the run folder, the machine, and a reporter for progress and messages."""

from dataclasses import dataclass

from potstill.compute.machine import Machine
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run


@dataclass(frozen=True, slots=True)
class Context:
    """What every stage needs beside its plan."""

    run: Run
    machine: Machine
    reporter: Reporter
