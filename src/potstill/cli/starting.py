"""What a command says and checks before torch is imported, which takes seconds, and longer on a busy machine."""

import sys
from pathlib import Path


def require_there(run: Path) -> None:
    """Raise PotstillError for a run folder or model on this machine that does not exist, with the runs that do."""
    from potstill.errors import ExportError
    from potstill.export.formats.registry import FORMATS
    from potstill.run.folder import Run
    from potstill.storage.addresses import Address

    if Address.of(run) is not None or run.exists():
        return
    if any(run.suffix == format.suffix for format in FORMATS.values()):
        raise ExportError(f"There is no file {run}.")
    Run.open(run)


def say_loading() -> None:
    """The first word on the screen, where nothing else is said before the import."""
    if "torch" not in sys.modules:
        print("Loading PyTorch …", file=sys.stderr, flush=True)
