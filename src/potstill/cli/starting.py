"""What a command says and checks before torch is imported, which takes seconds, and longer on a busy machine."""

import sys
from pathlib import Path


def require_there(run: Path) -> None:
    """Raise PotstillError for a run folder or model that does not exist, with the runs that do."""
    from potstill.run.folder import Run

    if not run.exists():
        Run.open(run)


def say_loading() -> None:
    """The first word on the screen, where nothing else is said before the import."""
    if "torch" not in sys.modules:
        print("Loading PyTorch …", file=sys.stderr, flush=True)
