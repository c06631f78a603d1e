"""What every stage is given beside its plan: the run folder, the machine, where long work runs, and a reporter for
progress and messages."""

from dataclasses import dataclass, field

from potstill.compute.machine import Machine
from potstill.engines.engine import Engine
from potstill.engines.local import LocalEngine
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run


@dataclass(frozen=True, slots=True)
class Context:
    """What every stage needs beside its plan."""

    run: Run
    machine: Machine
    reporter: Reporter
    engine: Engine = field(default_factory=LocalEngine)
    """Where labeling and trainings run."""
