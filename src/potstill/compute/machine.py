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
    """How many times as fast as in this process a cluster labels."""

    def spare_threads(self, trainings: int) -> int:
        """Threads for each of so many trainings, so that no core has two: 1 where all cores have a training."""
        return max(1, self.cores // min(self.jobs, max(trainings, 1)))
