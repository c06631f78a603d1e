"""How many cores this process may use."""

import os


def available_cores() -> int:
    """The cores of the machine, or fewer where the process is held to some of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
