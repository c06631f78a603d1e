"""Worker processes that look at photos: a core each.

Pillow lets go of the interpreter while it decodes and shrinks, but not while it opens a photo, and hashing and looking
are Python. Of small photos that is most of the work, so that more threads bring nothing.
"""

import os
import signal

from loky import ProcessPoolExecutor

from potstill.processes.cores import available_cores
from potstill.processes.watch import end_with


def process_pool() -> ProcessPoolExecutor:
    """An executor with a process per core.

    loky's processes need no `if __name__ == "__main__"` in the script that calls, and are not forks, which hang where
    the program has threads.
    """
    return ProcessPoolExecutor(
        available_cores(), initializer=_begin, initargs=(os.getpid(),), env={"OMP_NUM_THREADS": "1"}
    )


def _begin(parent: int) -> None:
    """Ctrl-C is the parent's; a worker whose parent was killed would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
