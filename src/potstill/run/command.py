"""The command that works on a run, for those who read about it later."""

import shlex
import sys
from pathlib import Path


def typed_command() -> str:
    """What was typed; "" in a notebook or a program of the user's, whose arguments are none of ours."""
    if Path(sys.argv[0]).stem not in ("potstill", "__main__"):
        return ""
    return shlex.join(["potstill", *sys.argv[1:]])
