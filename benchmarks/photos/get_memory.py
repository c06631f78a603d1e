"""The memory of `get` with many candidates: peak resident size of a process that walks a list of N addresses.

    python benchmarks/photos/get_memory.py 1000 10000 100000

Each number runs in a process of its own. One address in twenty is a photo, the others are gone (404), as in old lists;
every outcome goes into the provenance. Prints one CSV line per number; `--save HARDWARE` at the end also writes the
first and the last into results.csv.
"""

import asyncio
import csv
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web
from get_throughput import picture
from results import save

from potstill.get.limits import Limits
from potstill.get.run import GetRequest, get
from potstill.monitoring.progress import Reporter


def server(pipe: Connection) -> None:
    """Serve a photo for every twentieth number."""

    async def send(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number % 20:
            return web.Response(status=404)
        return web.Response(body=picture(number, 96), content_type="image/jpeg")

    app = web.Application()
    app.router.add_get("/{number:\\d+}.jpg", send)

    async def main() -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pipe.send(site._server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(main())


def one(port: int, count: int, folder: Path) -> None:
    """Get all that there is, and print the facts."""
    with (folder / "list.csv").open("w") as file:
        file.write("url,label\n")
        file.writelines(f"http://127.0.0.1:{port}/{number}.jpg,cat\n" for number in range(count))
    request = GetRequest(
        classes=("cat",),
        into=folder / "data",
        train=count,
        test=0,
        source=str(folder / "list.csv"),
        allow_private=(f"127.0.0.1:{port}",),
        limits=Limits(per_host=16),
    )
    started = time.perf_counter()
    result = get(request, Reporter(quiet=True))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    kept = result.streams[0].sides["train"].have
    csv.writer(sys.stdout).writerow([count, kept, f"{peak:.0f}", f"{seconds:.0f}", f"{os.getloadavg()[0]:.1f}"])


def main(counts: list[int], hardware: str) -> None:
    """One process per count."""
    peaks = []
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=server, args=(theirs,), daemon=True)
    process.start()
    port = ours.recv()
    print("candidates,kept,peak_mib,seconds,load", flush=True)
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="potstill-bench-") as folder:
            command = [sys.executable, __file__, "--one", str(port), str(count), folder]
            line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            print(line, end="", flush=True)
            peaks.append(float(line.split(",")[2]))
    process.terminate()
    if hardware:
        save(
            f"get, peak memory at {counts[-1]:,} candidates against {counts[0]:,}",
            peaks[-1:],
            peaks[:1],
            unit="MiB",
            hardware=hardware,
            command=f"get_memory.py {' '.join(map(str, counts))}",
        )


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        numbers = [argument for argument in sys.argv[1:] if argument.isdigit()]
        main([int(number) for number in numbers], " ".join(sys.argv[2 + len(numbers) :]))
