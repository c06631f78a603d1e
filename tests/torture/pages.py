"""The page of `potstill serve` among visitors who flood, stall, lie about who they are and look for files."""

import asyncio
import atexit
import contextlib
import functools
import io
import json
import random
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image
from tests.support import command, draw_photo, environment
from tests.torture.cases import RIGHT, WRONG, Case, Outcome
from tests.torture.job import TinyJob

MEGABYTES = 2500
"""What the page may take, models and libraries included."""

SECONDS = 30
"""Within which somebody else is answered meanwhile."""

Attack = Callable[["Client", random.Random], Awaitable[Counter[int]]]
"""What is done. Returns how often it got each status; 0 where the server hung up."""


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who asks the page."""

    session: aiohttp.ClientSession
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def classify(self, photo: bytes, **headers: str) -> tuple[int, str]:
        """Status and text of the answer."""
        try:
            async with self.session.post(f"{self.url}/classify", data=photo, headers=headers) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, OSError):
            return 0, ""

    async def raw(self, *parts: bytes, pause: float = 0.0, seconds: float = 20.0) -> tuple[int, bytes]:
        """Status and bytes of what comes back."""
        found = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                with contextlib.closing(writer):
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                        await asyncio.sleep(pause)
                    found = await reader.read(2**20)
        words = found.split(b" ", 2)
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), found


def head(path: str, *lines: str, method: str = "GET", host: str = "127.0.0.1") -> bytes:
    """The beginning of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines, "", ""]).encode()


@functools.cache
def drawn(number: int, width: int = 640, height: int = 480, kind: str = "JPEG") -> bytes:
    """A photo of this size."""
    out = io.BytesIO()
    draw_photo("disc", number, width=96, height=80).resize((width, height)).save(out, kind)
    return out.getvalue()


LARGE = ("30 megapixels", "JPEG of 200 megapixels", "progressive JPEG of 200 megapixels", "400 megapixels")


@functools.cache
def _deep(kind: str) -> bytes:
    """The largest photos that are taken, or just not."""
    out = io.BytesIO()
    if kind == "30 megapixels":
        Image.fromarray(np.zeros((5400, 5500, 3), np.uint8)).save(out, "PNG", compress_level=1)
    elif "JPEG" in kind:
        Image.new("RGB", (16_000, 12_500), "red").save(out, "JPEG", progressive=kind.startswith("progressive"))
    else:
        Image.new("L", (20_000, 20_000)).save(out, "PNG", compress_level=1)
    return out.getvalue()


async def _flood(client: Client, dice: random.Random) -> Counter[int]:
    photos = [drawn(dice.randrange(20), 2000, 1500) for _ in range(200)]
    return Counter(status for status, _ in await asyncio.gather(*map(client.classify, photos)))


async def _large_photos(client: Client, dice: random.Random) -> Counter[int]:
    kinds = [dice.choice(LARGE) for _ in range(6)]
    return Counter(status for status, _ in await asyncio.gather(*(client.classify(_deep(kind)) for kind in kinds)))


async def _slow(client: Client, dice: random.Random) -> Counter[int]:
    lines = head("/classify", "Content-Length: 900000", method="POST")
    answers = [client.raw(lines, *[b"x"] * 8, pause=dice.uniform(0.2, 1.5), seconds=15) for _ in range(100)]
    return Counter(status for status, _ in await asyncio.gather(*answers))


async def _slow_headers(client: Client, dice: random.Random) -> Counter[int]:
    lines = [b"POST /classify HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 8]
    return Counter(s for s, _ in await asyncio.gather(*(client.raw(*lines, pause=1, seconds=10) for _ in range(200))))


async def _cut(client: Client, dice: random.Random) -> Counter[int]:
    photo, lines = drawn(1), head("/classify", f"Content-Length: {len(drawn(1))}", method="POST")

    async def one() -> int:
        _, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(lines + photo[: dice.randrange(len(photo))])
        await writer.drain()
        writer.close()
        return 0

    return Counter(await asyncio.gather(*(one() for _ in range(100))))


async def _too_large(client: Client, dice: random.Random) -> Counter[int]:
    announced = head("/classify", f"Content-Length: {100 * 2**20}", method="POST")
    chunked = head("/classify", "Transfer-Encoding: chunked", method="POST")
    block = bytes(2**20)
    chunk = b"100000\r\n" + block + b"\r\n"
    answers = [client.raw(announced, *[block] * 100), client.raw(chunked, *[chunk] * 100)]
    return Counter(status for status, _ in await asyncio.gather(*answers))


async def _other_names(client: Client, dice: random.Random) -> Counter[int]:
    names = ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "10.0.0.1", "\x00", "[::1", "xn--80ak")
    origins = ("http://evil.example", "null", "https://localhost.evil.example", "chrome-extension://x", "*")
    found: Counter[int] = Counter()
    for _ in range(20):
        by_name = dice.random() < 0.5
        origin = [] if by_name else [f"Origin: {dice.choice(origins)}"]
        host = dice.choice(names) if by_name else "127.0.0.1"
        lines = head("/classify", *origin, f"Content-Length: {len(drawn(1))}", method="POST", host=host)
        status, answer = await client.raw(lines + drawn(1))
        found[status if b"probabilities" not in answer else 200] += 1
    return found


UPWARD = (
    "../",
    "..%2f",
    "%2e%2e/",
    "..\\",
    "....//",
    "%252e%252e%252f",
    "/",
    "file=",
    "gradio_api/file=/",
    "static/../",
)


async def _files(client: Client, dice: random.Random) -> Counter[int]:
    found: Counter[int] = Counter()
    for _ in range(40):
        path = (
            "/"
            + "".join(dice.choice(UPWARD) for _ in range(dice.randint(1, 12)))
            + dice.choice(("etc/passwd", "config.toml", "app.js"))
        )
        status, answer = await client.raw(head(path))
        served = b"root:" in answer or b"checksum" in answer
        found[-1 if served else status] += 1
    return found


ATTACKS: dict[str, tuple[Attack, set[int]]] = {
    "other names and origins": (_other_names, {400, 403, 421}),
    "paths upward": (_files, {200, 400, 404}),
    "200 photos at once": (_flood, {200, 503}),
    "the largest photos": (_large_photos, {200, 503}),
    "100 slow uploads": (_slow, {0, 408}),
    "200 slow headers": (_slow_headers, {0, 400, 408}),
    "100 uploads cut off": (_cut, {0}),
    "bodies of 100 MB": (_too_large, {0, 413}),
}
"""By what is done, with the statuses that it may get."""


class Served:
    """`potstill serve` in a process of its own, until the campaign ends."""

    def __init__(self, run: Path) -> None:
        self._process = subprocess.Popen(
            command(["serve", run, "--port", "0"]), env=environment(), stdout=subprocess.PIPE, text=True
        )
        atexit.register(self._process.kill)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().split("/")[2].rpartition(":")[2])

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def forget_peak(self) -> None:
        """Count the most memory from now on."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def peak_megabytes(self) -> float:
        """The most memory since then."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@functools.cache
def _served(home: Path) -> Served:
    return Served(TinyJob(home).undisturbed)


def page_cases(seed: int, home: Path) -> Iterator[Case]:
    """One attack each; somebody else asks meanwhile and must get the right answer."""
    number = 0
    while True:
        dice = random.Random(f"{seed} pages {number}")
        number += 1
        name = dice.choice(list(ATTACKS))
        yield Case(name, "", _attacked(home, name, dice))


def _attacked(home: Path, name: str, dice: random.Random) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        served = _served(home)
        served.forget_peak()
        outcome = asyncio.run(_attack(served, name, dice))
        if not served.is_alive:
            return Outcome(WRONG, "the page has ended")
        megabytes = served.peak_megabytes()
        return Outcome(WRONG, f"{megabytes:.0f} MB") if megabytes > MEGABYTES else outcome

    return run


async def _attack(served: Served, name: str, dice: random.Random) -> Outcome:
    attack, allowed = ATTACKS[name]
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        client = Client(session, served.port)
        status, undisturbed = await client.classify(drawn(7))
        assert status == 200, undisturbed
        attacking = asyncio.create_task(attack(client, dice))
        await asyncio.sleep(0.05)
        meanwhile = await _persistent(client, attacking)
        found = await attacking
        after = await client.classify(drawn(7))
    await asyncio.sleep(0.05)  # connections are closed in the loop's next turns
    if odd := set(found) - allowed:
        return Outcome(WRONG, f"statuses {sorted(odd)} of {dict(found)}")
    for who, answer in (("meanwhile", meanwhile), ("afterwards", after[1])):
        if _without_times(answer) != _without_times(undisturbed):
            return Outcome(WRONG, f"{who}: {answer[:500]}")
    return Outcome(RIGHT, f"{dict(found)}, {served.peak_megabytes():.0f} MB")


async def _persistent(client: Client, attacking: "asyncio.Task[Counter[int]]") -> str:
    """What somebody gets who asks again when told that the page is busy, as the page itself does."""
    status, answer = 503, ""
    end = asyncio.get_running_loop().time() + SECONDS
    while status == 503 and (asyncio.get_running_loop().time() < end or not attacking.done()):
        status, answer = await client.classify(drawn(7))
        await asyncio.sleep(0.2 if status == 503 else 0)
    return answer


def _without_times(answer: str) -> Any:
    """What must be the same each time."""
    try:
        return [{**model, "milliseconds": 0} for model in json.loads(answer)["predictions"]]
    except (KeyError, ValueError):
        return answer
