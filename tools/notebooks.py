"""Runs the notebooks of examples/ and stores them with their output. `make notebooks` runs it.

python tools/notebooks.py [NAME.ipynb …]

Each runs in an empty folder, so that nothing of an earlier run is shown. Progress lines are not stored: they differ
every time.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TIMEOUT = 900
"""Seconds for the start and for one cell, on a slow machine."""


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook after a run in `folder`, with this checkout's code. Raises CellExecutionError where a cell fails."""
    os.environ["PYTHONPATH"] = str(EXAMPLES.parent / "src")
    notebook = nbformat.read(path, as_version=4)
    limits = {"timeout": TIMEOUT, "startup_timeout": TIMEOUT}
    place = {"metadata": {"path": folder}}
    NotebookClient(notebook, **limits, record_timing=False, coalesce_streams=True, resources=place).execute()
    return notebook


def without_traces(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what differs from run to run and from machine to machine."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("language_info", None)
    return notebook


def main(names: Sequence[str]) -> None:
    """Run the named notebooks, or all."""
    for path in [EXAMPLES / name for name in names] or sorted(EXAMPLES.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = without_traces(executed(path, Path(folder)))
        nbformat.write(notebook, path)
        print(f"{path.relative_to(EXAMPLES.parent)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
