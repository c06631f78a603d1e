"""How a run uses this machine: what was decided, and what was requested. Does not import torch."""

from dataclasses import dataclass, field

from potstill.config.schema import MachineConfig


@dataclass(frozen=True, slots=True)
class Machine:
    """The decided use of this machine."""

    device: str
    """As torch names it: "cpu", "cuda", "mps"."""
    cores: int
    jobs: int
    """Students trained at the same time."""
    requested: MachineConfig = field(default_factory=MachineConfig)
    """The settings. Their "auto" values are decided by timing, for each model (`potstill.compute.measured`)."""
    label_speedup: float = 1.0
    """How many times as fast as in this process several GPUs or a cluster label."""
    processes: int = 1
    """That train one model together, each with a core or a GPU of its own."""

    @property
    def tasks(self) -> int:
        """Tasks of one process that run at the same time."""
        return self.jobs * self.processes

    def spare_threads(self, trainings: int) -> int:
        """Threads for each process of so many trainings, so that no core has two: 1 where all cores have one."""
        return max(1, self.cores // (min(self.jobs, max(trainings, 1)) * self.processes))
