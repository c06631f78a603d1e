"""Writing the page into its stage folder."""

from pathlib import Path

from potstill.report.page import render
from potstill.report.read import RunFiles
from potstill.run.files import write_text
from potstill.run.folder import Run
from potstill.run.integrity import require_whole
from potstill.run.layout import comparison_path
from potstill.run.results import require_comparison


def write_report(run: Run) -> Path:
    """Write `7_report/index.html`: one self-contained page. Returns its path.

    Raises:
        PotstillError: the comparison is not finished.
    """
    require_whole(run.path)
    stage = run.stage("7_report")
    require_comparison(comparison_path(run))
    inputs = {"comparison": run.stage("5_comparison").digest()}
    page = render(RunFiles(run))
    stage.reopen()  # cheap, so made again each time: exports may have come since
    stage.begin(inputs)
    write_text(run.report / "index.html", page)
    stage.finish(bytes=len(page.encode()))
    return run.report / "index.html"
