"""Opens the engine that the settings name."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch

from potstill.config.schema import MachineConfig
from potstill.engines.engine import Engine
from potstill.engines.local import LocalEngine, visible_gpus
from potstill.errors import ConfigError


@contextmanager
def open_engine(config: MachineConfig, device: str, folder: Path | None) -> Iterator[Engine]:
    """The engine, ready for work, until the block ends.

    Args:
        device: what tasks compute on, as torch names it.
        folder: an existing folder that all nodes must see under the same path; None: they are not asked.
    Raises:
        ConfigError: its packages are missing, there is no cluster, or a node of it cannot do the work.
    """
    if config.engine == "local":
        with closing(_here(device, folder)) as here:
            yield here
        return
    if find_spec("ray") is None:
        raise ConfigError('machine.engine = "ray" needs: pip install "potstill[ray]", on every node')
    from potstill.engines import ray_engine

    with ray_engine.connected(config, device, folder) as engine:
        yield engine


def _here(device: str, folder: Path | None) -> LocalEngine:
    """The engine of this machine. Neither GPUs nor the libraries of macOS work in forks of a process that has loaded
    them."""
    if device == "cuda":
        return LocalEngine(visible_gpus(torch.cuda.device_count()))
    return LocalEngine(fork=str(folder) if device == "cpu" and sys.platform == "linux" else None)
