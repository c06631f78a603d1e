"""`get` against bare aiohttp: the same photos, the same server, the same limits, one after the other, several times.

    python benchmarks/photos/get_throughput.py --photos 2000 --side 256

The server is a process of its own and sends at most `--rate` photos per second. "bare" reads each body and drops it;
"get" also verifies, hashes, writes with fsync, and keeps the provenance. Prints one CSV line per round.
"""

import argparse
import asyncio
import csv
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import numpy as np
from aiohttp import web
from PIL import Image
from results import save

from potstill.get.limits import Limits
from potstill.get.run import GetRequest, get
from potstill.monitoring.progress import Reporter

PER_HOST = 16
DISTINCT = 500
"""Pictures that are really different; the rest repeats them with another comment, so that bytes differ."""


def picture(number: int, side: int) -> bytes:
    """A textured JPEG of about the size of a photo."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (side // 12, side // 9, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=88)
    return out.getvalue()


def server(pipe: Connection, side: int, rate: float) -> None:
    """Serve `/N.jpg` until killed."""
    pictures = [picture(number, side) for number in range(DISTINCT)]
    turn = 0.0

    async def send(request: web.Request) -> web.Response:
        nonlocal turn
        now = time.monotonic()
        turn = max(turn + 1 / rate, now - 0.05)
        if turn > now:
            await asyncio.sleep(turn - now)
        number = int(request.match_info["number"])
        body = pictures[number % DISTINCT] + number.to_bytes(4, "big")  # bytes after the end of a JPEG are ignored
        return web.Response(body=body, content_type="image/jpeg")

    app = web.Application()
    app.router.add_get("/{number:\\d+}.jpg", send)

    async def main() -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pipe.send((site._server.sockets[0].getsockname()[1], sum(map(len, pictures)) / DISTINCT))
        await asyncio.Event().wait()

    asyncio.run(main())


async def bare(urls: list[str]) -> None:
    """aiohttp alone, with the same number of requests under way."""
    connector = aiohttp.TCPConnector(limit=Limits().connections, limit_per_host=PER_HOST)
    async with aiohttp.ClientSession(connector=connector) as session:
        waiting = iter(urls)

        async def work() -> None:
            for url in waiting:
                async with session.get(url) as response:
                    response.raise_for_status()
                    await response.read()

        await asyncio.gather(*(work() for _ in range(PER_HOST)))


def main() -> None:
    """Alternate both sides and print."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--photos", type=int, default=2000)
    parse.add_argument("--side", type=int, default=256)
    parse.add_argument("--rate", type=float, default=1000)
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--save", metavar="HARDWARE", help="also write the result to results.csv")
    options = parse.parse_args()
    pipe, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=server, args=(theirs, options.side, options.rate), daemon=True
    )
    process.start()
    port, size = pipe.recv()
    urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(options.photos)]
    out = csv.writer(sys.stdout)
    out.writerow(["photos", "side", "kilobytes", "round", "bare_per_second", "get_per_second", "ratio", "load"])
    ours, reference = [], []
    for round in range(options.rounds):
        started = time.perf_counter()
        asyncio.run(bare(urls))
        alone = options.photos / (time.perf_counter() - started)
        folder = Path(tempfile.mkdtemp(prefix="potstill-bench-"))
        (folder / "list.csv").write_text("url,label\n" + "\n".join(f"{url},cat" for url in urls))
        request = GetRequest(
            classes=("cat",),
            into=folder / "data",
            train=options.photos,
            test=0,
            source=str(folder / "list.csv"),
            near_bits=-1,
            allow_private=(f"127.0.0.1:{port}",),
            limits=Limits(per_host=PER_HOST),
        )
        started = time.perf_counter()
        result = get(request, Reporter(quiet=True))
        with_checks = result.streams[0].sides["train"].have / (time.perf_counter() - started)
        shutil.rmtree(folder)
        ours.append(with_checks)
        reference.append(alone)
        load = os.getloadavg()[0]
        row = [options.photos, options.side, f"{size / 1e3:.0f}", round, f"{alone:.0f}", f"{with_checks:.0f}"]
        out.writerow([*row, f"{with_checks / alone:.2f}", f"{load:.1f}"])
        sys.stdout.flush()
    process.terminate()
    if options.save:
        what = f"get from a server of {options.rate:.0f} photos/s, {size / 1e3:.0f} kB each"
        command = f"get_throughput.py --photos {options.photos} --side {options.side} --rounds {options.rounds}"
        save(what, ours, reference, unit="photos/s", hardware=options.save, command=command)


if __name__ == "__main__":
    main()
