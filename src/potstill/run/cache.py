"""Where downloads that several runs share are kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`POTSTILL_CACHE`, else `~/.cache/potstill`."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "potstill"
    return Path(os.environ.get("POTSTILL_CACHE") or default)
