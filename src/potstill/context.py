"""What every stage is given beside its plan: the run folder, this machine, and where to report."""

from dataclasses import dataclass

from potstill.compute.machine import Machine
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run


@dataclass(frozen=True, slots=True)
class Context:
    """Where a stage works, on what, and whom it informs."""

    run: Run
    machine: Machine
    reporter: Reporter
