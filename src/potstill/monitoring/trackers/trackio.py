"""Trackio: one run in its local database, which `trackio show --project potstill` shows."""

from pathlib import Path

from potstill.monitoring.trackers.registry import PROJECT, register


class Trackio:
    """A tracker, see `registry.Tracker`."""

    def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(project=PROJECT, name=earlier or name, resume="allow")
        self.id = earlier or name

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        self._trackio.log({f"{name}/{key}": value for key, value in values.items()} | {f"{name}/step": step})

    def close(self) -> None:
        self._trackio.finish()


register("trackio", Trackio, package="trackio")
