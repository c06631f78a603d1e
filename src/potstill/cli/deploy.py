"""Commands about deploying: export, push."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from potstill.cli import command
from potstill.cli.starting import require_there
from potstill.cli.values import WHOLE


@command("potstill export runs/RUN --to onnx", "potstill export runs/RUN --to onnx,web --precision int8")
def export(
    run: Path,
    *,
    to: Annotated[list[str], Parameter(consume_multiple=1)],
    precision: Annotated[list[str] | None, Parameter(consume_multiple=1)] = None,
    student: str | None = None,
    seed: Annotated[int | None, WHOLE] = None,
    max_loss: float = 1.0,
    min_agreement: float = 99.0,
    min_rounded_agreement: float = 95.0,
    isolated: bool = False,
) -> None:
    """Export a student to deployment formats and check each file on the test photos.

    A file that loses too much accuracy is deleted.

    Parameters
    ----------
    run
        A finished run folder.
    to
        Any of onnx, litert, executorch, openvino, coreml, torch and web (a page that runs in the browser).
    precision
        Any of float32, float16 and int8. By default all three.
    student
        Name of the student. By default the one chosen on the validation photos.
    seed
        Training seed of the student. By default the best one on the validation photos.
    max_loss
        Largest loss of accuracy relative to the PyTorch student, in percentage points.
    min_agreement
        Lowest share of test photos with the same prediction as the PyTorch student, in percent.
    min_rounded_agreement
        The same for int8 files if no way of calibrating reaches --min-agreement. The closest one is kept.
    isolated
        Install missing conversion tools into a separate virtual environment.
    """
    require_there(run)
    from potstill.errors import ConfigError
    from potstill.export import Tolerance
    from potstill.export import export as export_files
    from potstill.export.formats.base import PRECISIONS
    from potstill.export.results import formats_on_terminal
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table
    from potstill.run.folder import Run
    from potstill.storage.runs import worked_on

    tolerance = Tolerance(
        max_loss=max_loss / 100,
        min_agreement=min_agreement / 100,
        min_rounded_agreement=min_rounded_agreement / 100,
    )
    formats = [name for name in _split(to) if name != "web"]
    if not formats and (precision or isolated):
        raise ConfigError(
            f"--to web takes no {'--precision' if precision else '--isolated'}: the page has files of its own."
        )
    reporter = Reporter()
    with worked_on(run, reporter.info) as folder:
        opened = Run.open(folder)
        reporter.log_to(folder / "log.txt")
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
            print_table(formats_on_terminal(results))
            print(f"Files: {opened.export}")
            if made := [file.file for file in results if file.file is not None]:
                path = shlex.quote(str(opened.export / made[0]))
                print(f"\nNext:\n  potstill predict {path} photo.jpg   # classify a photo with an exported file")
        if "web" in _split(to):
            from potstill.export.web import export_web

            page = export_web(opened, student=student, seed=seed, tolerance=tolerance, reporter=reporter)
            print(f"Page: {page}\nTry it: {Path(sys.executable).name} -m http.server --bind 127.0.0.1 -d {page}")


@command("potstill push runs/RUN OWNER/NAME --private")
def push(run: Path, repository: str, *, student: str | None = None, private: bool = False) -> None:
    """Upload a student with its exported files and model card to a model hub.

    The environment variable HF_ENDPOINT sets the address (the public hub by default), HF_TOKEN the access token (by
    default the one stored by `hf auth login`).

    Parameters
    ----------
    run
        A run folder with exported files.
    repository
        OWNER/NAME on the hub. It is created if it does not exist.
    student
        Name of the student. By default the first exported one.
    private
        Create the repository as private if it is new.
    """
    from potstill.export import push as push_files
    from potstill.run.folder import Run
    from potstill.storage.runs import local_run

    print(push_files(Run.open(local_run(run)), repository, student=student, private=private))


def _split(values: list[str]) -> list[str]:
    """`--to onnx litert` and `--to onnx,litert` are the same."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]
