"""Weights & Biases: one run; WANDB_MODE=offline keeps it on this machine."""

from pathlib import Path

from potstill.monitoring.trackers.registry import PROJECT, register


class Wandb:
    """A tracker, see `registry.Tracker`."""

    def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=PROJECT, name=name, id=earlier, resume="allow" if earlier else None, dir=str(folder)
        )
        self.id = str(self._run.id)
        self._known = set[str]()

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        if name not in self._known:  # every training counts its own steps
            self._known.add(name)
            self._run.define_metric(f"{name}/step")
            self._run.define_metric(f"{name}/*", step_metric=f"{name}/step")
        self._run.log({f"{name}/{key}": value for key, value in values.items()} | {f"{name}/step": step})

    def close(self) -> None:
        self._run.finish()


register("wandb", Wandb, package="wandb")
