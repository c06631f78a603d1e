"""The notebooks of examples/ run from start to end, and are stored with the output of such a run."""

import re
from pathlib import Path

import nbformat
import pytest
from tests.docs.pages import ROOT
from tests.docs.tools import load_tool

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
LONG = ("few_labels",)
LIMIT = 60_000
"""Bytes of a stored notebook."""


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(notebook: nbformat.NotebookNode, kind: str) -> str:
    """All outputs of a MIME type."""
    return "".join(output.get("data", {}).get(kind, "") for output in outputs(notebook))


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["few_labels", "quickstart"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=pytest.mark.long if path.stem in LONG else ()) for path in NOTEBOOKS],
)
def test_the_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")  # back afterwards, as the tool sets it
    notebook = load_tool("notebooks").executed(path, tmp_path)
    html = shown(notebook, "text/html")
    assert "against its twin" in html, "the verdict of the run"
    assert re.search(r"\d\.\d %</td>", html), "the probabilities of a prediction"
    assert (tmp_path / "runs").is_dir(), "the outputs are those of this run"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_stored_with_its_output_and_nothing_of_the_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert shown(notebook, "text/html").count("<svg") == 1
    text = path.read_text("utf-8")
    assert len(text) < LIMIT
    assert '"stderr"' not in text
    assert not re.search(r'[" (]/(?:tmp|home|root|work|Users)/', text)
    assert "image/png" not in text
