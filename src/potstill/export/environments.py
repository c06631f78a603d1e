"""An environment of its own for one format's tools, where they cannot be, or shall not be, installed beside the rest.

It is a venv in the user's cache that sees every package of this environment and holds what the format adds; where the
format needs another version of a package, that version shadows this environment's, for this format only. (LiteRT's
converter, for one, wants a typing-extensions that is older than what other packages want.)
"""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

from potstill.errors import ExportError
from potstill.export.formats.base import Format
from potstill.monitoring.progress import Reporter
from potstill.run.cache import cache_folder

READY = "ready.txt"
"""Written last into a finished environment."""


def python_for(format: Format, reporter: Reporter) -> str:
    """The interpreter of the format's environment, made at the first call. Raises ExportError when that fails."""
    folder = environment_folder(format)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / READY).is_file():
        reporter.info(f"Creating an environment for {format.title} in {folder} (once; it may download over 1 GB)")
        _make(folder, python, requirements(format.extra))
    reporter.info(f"{format.title}: converted and run in a separate environment, {folder}")
    return str(python)


def environment_folder(format: Format) -> Path:
    """Where the format's environment is, or would be: another one for other requirements or another Python here."""
    made_from = [sys.version, *requirements(format.extra), *_shared_folders()]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:8]
    return cache_folder() / "environments" / f"{format.name}-{digest}"


def requirements(extra: str) -> list[str]:
    """What the extra of Potstill's package asks for."""
    wanted = []
    for line in requires("potstill") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
            requirement.marker = None
            wanted.append(str(requirement))
    return wanted


def install_command(python: Path, packages: list[str]) -> list[str]:
    """What fills the environment."""
    return [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]


def _make(folder: Path, python: Path, packages: list[str]) -> None:
    venv.create(folder, clear=True, with_pip=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "_shared.pth").write_text("\n".join(_shared_folders()) + "\n", "utf-8")
    done = subprocess.run(
        install_command(python, packages), capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise ExportError(f"{folder} could not be made:\n{done.stderr.strip()[-1500:]}")
    (folder / READY).write_text("\n".join(packages) + "\n", "utf-8")


def _shared_folders() -> list[str]:
    """Where this process finds installed packages, and Potstill itself, which may be installed for development.

    Nothing else of the path: not the working directory, not what a library adds to it while it is imported, and not
    Python's own library. That one is on the new interpreter's path already, and must not come by the .pth file as well:
    pip hides what came that way from packages that it builds, and they cannot be built without Python's library.
    """
    own = Path(__file__).resolve().parents[2]
    folders = [Path(entry).resolve() for entry in sys.path if entry and Path(entry).is_dir()]
    return [
        str(folder) for folder in dict.fromkeys([own, *folders]) if folder == own or any(folder.glob("*.dist-info"))
    ]
