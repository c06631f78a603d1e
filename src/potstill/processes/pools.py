"""Workers that look at photos, a core each: threads, or processes where there are many photos.

Pillow lets go of the interpreter while it decodes and shrinks, but not while it opens a photo, and hashing and looking
are Python. Of small photos that is most of the work, so that more threads bring nothing.
"""

import itertools
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from loky import ProcessPoolExecutor

from potstill.processes.cores import available_cores
from potstill.processes.watch import end_with

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNKS_AHEAD = 8
"""Chunks worked on ahead of the reader: enough to keep the workers busy, few enough to keep memory flat."""


def process_pool() -> ProcessPoolExecutor:
    """An executor with a process per core.

    loky's processes need no `if __name__ == "__main__"` in the script that calls, and are not forks, which hang where
    the program has threads.
    """
    return ProcessPoolExecutor(
        available_cores(), initializer=_begin, initargs=(os.getpid(),), env={"OMP_NUM_THREADS": "1"}
    )


def in_order(
    work: Callable[[Sequence[Item]], list[Result]],
    items: Iterable[Item],
    *,
    chunk: int,
    processes: bool,
    threads: int = 0,
) -> Iterator[Result]:
    """The results of `work` for chunks of the items, on all cores, one by one and in the order of the items.

    Args:
        work: for processes, a function of a module, or a `functools.partial` of one.
        items: read as far as there is work ahead, so that they may be many.
        chunk: items that are handed over together.
        processes: whether the workers are processes instead of threads.
        threads: the number of threads; 0: one per core.
    """
    # Small photos keep the interpreter busy, which threads share. Processes take seconds to start, and handing over the
    # pixels costs as much as a second process gains, so they pay off for many photos on three cores and more.
    limit = max(_CHUNKS_AHEAD, 2 * available_cores())
    rest = iter(items)
    with process_pool() if processes else ThreadPoolExecutor(threads or available_cores()) as pool:
        ahead: deque[Future[list[Result]]] = deque()
        while part := list(itertools.islice(rest, chunk)):
            ahead.append(pool.submit(work, part))
            if len(ahead) >= limit:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _begin(parent: int) -> None:
    """Ctrl-C is the parent's; a worker whose parent was killed would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
