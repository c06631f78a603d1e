"""MLflow: one run on the server of MLFLOW_TRACKING_URI, or in MLflow's local default."""

from pathlib import Path

from potstill.monitoring.trackers.registry import PROJECT, register


class MLflow:
    """A tracker, see `registry.Tracker`."""

    def __init__(self, folder: Path, name: str, earlier: str | None) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        if earlier is None:
            found = self._client.get_experiment_by_name(PROJECT)
            experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
            earlier = self._client.create_run(experiment, run_name=name).info.run_id
        self.id = str(earlier)

    def log(self, name: str, values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            self._client.log_metric(self.id, f"{name}/{key}", value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self.id)


register("mlflow", MLflow, package="mlflow")
