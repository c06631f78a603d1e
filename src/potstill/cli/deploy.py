"""Commands about deploying: export, push."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from potstill.cli import app


@app.command
def export(
    run: Path,
    *,
    to: Annotated[list[str], Parameter(consume_multiple=True)],
    precision: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    student: str | None = None,
    seed: int | None = None,
    max_loss: float = 1.0,
    min_agreement: float = 99.0,
    min_rounded_agreement: float = 95.0,
    isolated: bool = False,
) -> None:
    """Export a student as files to deploy, each scored on the test photos. Files outside the tolerance are not kept.

    Parameters
    ----------
    run
        A finished run folder.
    to
        Formats: onnx, litert, executorch, openvino, coreml, torch, web (a page that runs in the browser).
    precision
        float32, float16, int8. All three by default.
    student
        Which student of the run; the one that the comparison chose on val by default.
    seed
        Which seed; the best on val by default.
    max_loss
        Points of accuracy that a file may lose against the torch student.
    min_agreement
        Percent of the test photos on which a file must predict the torch student's class.
    min_rounded_agreement
        The same for int8, where no candidate reaches --min-agreement: the nearest one is kept and reported.
    isolated
        Where the tools of a format are missing, make an environment of their own for them.
    """
    from potstill.export import Tolerance
    from potstill.export import export as export_files
    from potstill.export.formats.base import PRECISIONS
    from potstill.export.results import formats_table
    from potstill.monitoring.progress import Reporter
    from potstill.run.folder import Run

    opened = Run.open(run)
    reporter = Reporter(log=run / "log.txt")
    tolerance = Tolerance(
        max_loss=max_loss / 100,
        min_agreement=min_agreement / 100,
        min_rounded_agreement=min_rounded_agreement / 100,
    )
    formats = [name for name in _split(to) if name != "web"]
    if formats:
        results = export_files(
            opened,
            formats,
            _split(precision) if precision else PRECISIONS,
            student=student,
            seed=seed,
            tolerance=tolerance,
            isolated=isolated,
            reporter=reporter,
        )
        print(formats_table(results), end="")
        print(f"Files: {opened.export}")
    if "web" in _split(to):
        from potstill.export.web import export_web

        folder = export_web(opened, student=student, seed=seed, tolerance=tolerance, reporter=reporter)
        print(f"Page: {folder}\nTry it: {Path(sys.executable).name} -m http.server --bind 127.0.0.1 -d {folder}")


@app.command
def push(run: Path, repository: str, *, student: str | None = None, private: bool = False) -> None:
    """Upload a student, its exported files and its model card to a model hub.

    The address is the environment variable HF_ENDPOINT's (the public hub without it), the token HF_TOKEN's or the one
    that `hf auth login` stored.

    Parameters
    ----------
    run
        A run folder with exported files.
    repository
        OWNER/NAME on the hub; made where it is not there yet.
    student
        Which student; the first exported one by default.
    private
        Make a new repository private.
    """
    from potstill.export import push as push_files
    from potstill.run.folder import Run

    print(push_files(Run.open(run), repository, student=student, private=private))


def _split(values: list[str]) -> list[str]:
    """`--to onnx litert` and `--to onnx,litert` are the same."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
