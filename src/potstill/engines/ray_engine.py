"""A Ray cluster: a Ray task for each task, on any node that sees the run folder.

Ray finds a free node, and starts a task again elsewhere when its node is lost. What travels is the path of a JSON
file; photos, soft labels and models lie on storage that all nodes see.
"""

import os
import socket
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Else Ray announces by a warning what it will change; tasks without a GPU get none either way.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from potstill.config.schema import Auto, MachineConfig
from potstill.engines.engine import Task
from potstill.engines.ray_group import RETRIES, RayGroup, crash, error_from, run_work
from potstill.errors import ConfigError

NODE_SECONDS = 90
"""A node that has not looked by then is not fit for work: starting a process and importing torch takes up to 20."""

CONNECT_SECONDS = 10

_PACKAGES = ("potstill", "torch", "timm", "numpy", "pillow", "safetensors")
_OPTIONAL = ("pillow-heif", "pillow-jxl-plugin", "pyarrow")
"""Without which some photos cannot be read."""


@contextmanager
def connected(config: MachineConfig, device: str, folder: Path | None) -> Iterator["RayEngine"]:
    """The engine, connected to the cluster that the settings, or RAY_ADDRESS, name, and every node of it looked at.

    Raises:
        ConfigError: there is no cluster, or a node has other versions, or does not see the folder.
    """
    was_connected = ray.is_initialized()  # by the script that calls
    if not was_connected:
        _connect(config.ray_address or os.environ.get("RAY_ADDRESS") or "auto")
    try:
        nodes = _nodes() if folder is None else _usable_nodes(folder)
        engine = RayEngine(tuple(nodes), on_gpus=device.startswith("cuda"), jobs=config.jobs)
        if not engine.room(1):
            raise ConfigError(f"The Ray cluster has no {'GPU' if engine.on_gpus else 'CPU core'} to work on.")
        yield engine
    finally:
        if not was_connected:
            ray.shutdown()


def _connect(address: str) -> None:
    try:
        _require_listener(address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Ray about itself
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
                runtime_env={"env_vars": {"OMP_WAIT_POLICY": "PASSIVE", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}},
            )
    except (OSError, RuntimeError, ValueError, exceptions.RayError) as error:
        where = "on this machine" if address == "auto" else f"at {address}"
        raise ConfigError(
            f'machine.engine = "ray", but there is no Ray cluster {where}: {_first_line(error)}\n'
            "  Start one (`ray start --head`), or name one: --machine.ray-address HOST:6379, or RAY_ADDRESS."
        ) from None


def _require_listener(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself would try again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


@dataclass(frozen=True, slots=True)
class _Node:
    id: str
    name: str
    cores: int
    gpus: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "_Node":
        has = values["Resources"]
        return cls(values["NodeID"], values["NodeManagerAddress"], int(has.get("CPU", 0)), int(has.get("GPU", 0)))


@dataclass(frozen=True)
class RayEngine:
    """Tasks on the nodes of a Ray cluster."""

    nodes: tuple[_Node, ...]
    on_gpus: bool
    """Whether each process of a task has a GPU."""
    jobs: int | Auto = "auto"
    """Tasks that are wanted at the same time. More than there are GPUs share them."""

    has_one_device = False

    @property
    def largest_node(self) -> int:
        return max(self._units, default=0)

    @property
    def _units(self) -> list[int]:
        """The GPUs, or the cores, of each node."""
        return [node.gpus if self.on_gpus else node.cores for node in self.nodes]

    def room(self, processes: int) -> int:
        on_one_node_each = sum(units // processes for units in self._units)
        return on_one_node_each or sum(self._units) // processes

    def nodes_without(self, files: Sequence[Path]) -> list[str]:
        paths = [str(path) for path in files]
        asked = [(node.name, _on(node, _sizes).remote(paths)) for node in _nodes()]
        here = _sizes(paths)
        return [name for name, reference in asked if _found(reference) != here]

    def describe(self) -> list[str]:
        cores, gpus = (sum(getattr(node, kind) for node in self.nodes) for kind in ("cores", "gpus"))
        return [f"Ray cluster: nodes {len(self.nodes)}, cores {cores}, GPUs {gpus}"]

    def start(self, module: str, job: Path, *, threads: int, processes: int = 1) -> Task:
        cores, gpus = self._cores(threads, processes), self._gpus(processes)
        if processes > 1:
            return RayGroup(module, job, {"CPU": cores, "GPU": gpus}, processes)
        options = {"num_cpus": cores, "num_gpus": gpus, "max_retries": RETRIES}
        return RayTask(
            ray.remote(**options)(run_work).options(name=f"potstill {job.parent.name}").remote(module, str(job))
        )

    def _cores(self, threads: int, processes: int) -> int:
        """Cores to reserve for each process of a task: one for each thread, or as many as leave room for the task."""

        def fitting(cores: int) -> int:
            return sum(min(n.cores // cores, n.gpus if self.on_gpus else n.cores) for n in self.nodes)

        least = 0 if self.on_gpus else 1
        return next((cores for cores in range(threads, 0, -1) if fitting(cores) >= processes), least)

    def _gpus(self, processes: int) -> float:
        """GPUs of each process of a task: one, or a share of one where more tasks are wanted than there are GPUs."""
        if not self.on_gpus or processes > 1:
            return 1 if self.on_gpus else 0
        wanted = self.room(1) if self.jobs == "auto" else self.jobs
        return 1 / max(1, -(-wanted // self.room(1)))


def _nodes() -> list[_Node]:
    """The nodes of the cluster that can work."""
    nodes = (_Node.of(values) for values in ray.nodes() if values["Alive"])
    return [node for node in nodes if node.cores or node.gpus]


def _usable_nodes(folder: Path) -> Iterator[_Node]:
    """The nodes of the cluster, each asked. Raises ConfigError for one that has other versions than this process, or
    does not see the folder."""
    mark = folder / f".seen-by-all-{uuid.uuid4().hex}"
    mark.write_text("")
    try:
        asked = {node: _look_at(node, mark) for node in _nodes()}
        found = {node: _outcome(node, reference) for node, reference in asked.items()}
    finally:
        mark.unlink()
    here = _versions()
    for node, outcome in found.items():
        if outcome is None:  # lost a moment ago
            continue
        there, sees = outcome
        if other := [f"{name} {there.get(name)}, here {here[name]}" for name in here if there.get(name) != here[name]]:
            raise ConfigError(
                f"The Ray node {node.name} has other versions, whose numbers may differ: {'; '.join(other)}.\n"
                "  Install the same ones on every node."
            )
        if not sees:
            raise ConfigError(
                f"The Ray node {node.name} does not see {folder}.\n"
                "  Put the run on storage that all nodes mount under the same path, and name it by --run."
            )
        yield node


@dataclass(frozen=True, slots=True)
class RayTask:
    """A task of Ray."""

    reference: Any

    @property
    def has_ended(self) -> bool:
        ended, _ = ray.wait([self.reference], timeout=0, fetch_local=False)
        return bool(ended)

    def check(self) -> None:
        try:
            failure = ray.get(self.reference)
        except exceptions.RayError as error:
            raise crash(error) from None
        if failure is not None:
            raise error_from(failure)

    def stop(self) -> None:
        ray.cancel(self.reference, force=True)
        ray.wait([self.reference], timeout=NODE_SECONDS, fetch_local=False)


def _look(mark: str) -> tuple[dict[str, str], bool]:
    """The versions on this node, and whether it sees a file."""
    return _versions(), Path(mark).is_file()


def _look_at(node: _Node, mark: Path) -> Any:
    return _on(node, _look).remote(str(mark))


def _on(node: _Node, function: Callable[..., Any]) -> Any:
    """A function as a task of one node, beside whatever it is doing."""
    there = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)


def _sizes(paths: Sequence[str]) -> list[int]:
    """Of files, in bytes; -1 for one that is not seen."""
    return [Path(path).stat().st_size if Path(path).is_file() else -1 for path in paths]


def _found(reference: Any) -> Any:
    """What `_sizes` has found; None where the node does not say."""
    try:
        return ray.get(reference, timeout=NODE_SECONDS)
    except exceptions.RayError:
        return None


def _outcome(node: _Node, reference: Any) -> tuple[dict[str, str], bool] | None:
    """What `_look` found; None where the node is no longer there."""
    try:
        return ray.get(reference, timeout=NODE_SECONDS)
    except exceptions.TaskUnschedulableError:
        return None
    except exceptions.GetTimeoutError:
        reason = f"it has not done anything in {NODE_SECONDS} s"
    except exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1]
    raise ConfigError(
        f"The Ray node {node.name} cannot do the work: {reason}\n"
        '  It needs Potstill and Ray as here: pip install "potstill[ray]".'
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES} | {name: _version_or_none(name) for name in _OPTIONAL}


def _version_or_none(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
