"""`get` in a process of its own that notes where it connects and what it writes. Names that end in .test are made up.

Arguments: the list of photos, the folder to fill, `HOST:PORT` of the server, photos per class for train and for test,
and the file to note misdeeds in. No packet leaves the machine: connections to public addresses are refused here.
"""

import functools
import os
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.servers.hostile import NAMES

from potstill.get import client
from potstill.get.addresses import is_public
from potstill.get.limits import Limits
from potstill.get.run import GetRequest, get
from potstill.monitoring.progress import Reporter

LIMITS = Limits(
    tries=3,
    backoff_seconds=0.01,
    backoff_cap_seconds=0.05,
    retry_after_cap_seconds=2,
    connect_seconds=2,
    read_seconds=6,
    photo_seconds=12,
    max_bytes=2**20,
    failures_to_park=10**6,
    per_host=16,
)
"""The rules of `get`, with less patience."""

_WRITES = {"os.mkdir": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.remove": 0, "os.rmdir": 0, "os.chmod": 0}
"""Audit events that change the disk, and which of their arguments says where."""

_asked: Counter[str] = Counter()
_resolve = socket.getaddrinfo


def _made_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
    name = (host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)).rstrip(".")
    ending = ".".join(name.split(".")[-2:])
    if ending not in NAMES:
        return _resolve(host, port, *arguments, **options)
    turns = NAMES[ending]
    addresses = turns[min(_asked[name], len(turns) - 1)]
    _asked[name] += 1
    if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
        if ":" in address
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
        for address in addresses
    ]


def _watch(allowed: str, inside: Path, notes: Path) -> None:
    def note(line: str) -> None:
        file = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(file, line.encode("utf-8", "replace") + b"\n")
        os.close(file)

    def is_inside(path: Any) -> bool:
        text = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  Path would take the audit hook through itself
        return text.startswith((str(inside), "/dev/")) or text == str(notes)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            host, port = arguments[1][:2]
            if f"{host}:{port}" == allowed:
                return
            if not is_public(host):
                note(f"connected to {host}:{port}")
            raise ConnectionRefusedError(f"{host}:{port} is not reached from here")
        if event == "open" and isinstance(arguments[0], str | bytes):
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes and not is_inside(arguments[0]):
                note(f"wrote {arguments[0]!r}")
        elif event in _WRITES:
            path = arguments[_WRITES[event]]
            if isinstance(path, str | bytes) and not is_inside(path):
                note(f"{event} {path!r}")

    sys.addaudithook(hook)


def main() -> int:
    listed, into, address, train, test, notes = sys.argv[1:]
    socket.getaddrinfo = _made_up
    # A look-up is kept for ten seconds; here each connection asks again.
    client.GuardedConnector = functools.partial(client.GuardedConnector, use_dns_cache=False)  # type: ignore[misc, assignment]
    request = GetRequest(
        classes=("cat", "dog"),
        into=Path(into),
        train=int(train),
        test=int(test),
        source=listed,
        limits=LIMITS,
        allow_private=(address,),
    )
    _watch(address, Path(into).resolve(), Path(notes).resolve())
    return 0 if get(request, Reporter(quiet=True)).is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
