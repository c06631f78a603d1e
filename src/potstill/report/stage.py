"""Writing the page into its stage folder."""

from pathlib import Path

from potstill.report.labels import render_labels
from potstill.report.page import render
from potstill.report.photos import Photos
from potstill.report.read import RunFiles
from potstill.run.files import write_text
from potstill.run.folder import Run
from potstill.run.integrity import require_whole
from potstill.run.layout import comparison_path
from potstill.run.results import require_comparison, several_labels_in

SHARED = "shared.html"


def write_report(run: Run, *, shared: Photos | None = None) -> Path:
    """Write `7_report/index.html`: one self-contained page. Returns its path.

    Args:
        shared: also write `7_report/shared.html`, a copy to pass on that shows this much of the photos; its path is
            returned then.
    Raises:
        PotstillError: the comparison is not finished.
    """
    stage = run.stage("7_report")
    require_comparison(comparison_path(run))
    stage.reopen()  # cheap, so made again each time: exports may have come since
    require_whole(run.path)
    inputs = {"comparison": run.stage("5_comparison").digest()}
    if several_labels_in(comparison_path(run)):
        page = render_labels(run)  # it shows no photos, so the copy to pass on is the same
        copy = None if shared is None else page
    else:
        files = RunFiles(run)
        page = render(files)
        copy = None if shared is None else render(files, shared)
    stage.begin(inputs)
    write_text(run.report / "index.html", page)
    if copy is not None:
        write_text(run.report / SHARED, copy)
    stage.finish(bytes=len(page.encode()))
    return run.report / ("index.html" if copy is None else SHARED)
