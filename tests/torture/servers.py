"""`get` among servers that lie, stall, flood and lead elsewhere, killed up to five times and then finished.

`python -m tests.torture.servers --photos 5000 --kills 5` does the largest case alone.
"""

import argparse
import hashlib
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from tests.servers import faults, hostile
from tests.servers.loopback import Server, serve
from tests.servers.pictures import jpeg
from tests.support import environment
from tests.torture.cases import RIGHT, WRONG, Case, Outcome

from potstill.get import provenance
from potstill.images.reasons import REASONS

MEGABYTES = 400
"""What a download may take, whatever servers send."""

LARGE_EVERY, LARGE_AT = 200, 10
"""Of so many cases one is large: 5,000 photos, five kills."""

CLASSES = ("cat", "dog")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

QUICK_FAULTS = {name: fault for name, (fault, _) in faults.PERMANENT.items() if name not in ("silence", "slow_drip")}


def server_cases(seed: int, home: Path) -> Iterator[Case]:
    """Each is a download of some dozens of photos in which one kind of harm stands out; a few are large."""
    number = 0
    while True:
        dice = random.Random(f"{seed} servers {number}")
        number += 1
        if number % LARGE_EVERY == LARGE_AT:
            yield Case(
                "5,000 photos, 30 % of all kinds, 5 kills",
                "",
                _downloaded(5000, 5, ("url", "answer", "redirect", "fault"), dice),
            )
            continue
        kind = dice.choice(("url", "answer", "redirect", "fault"))
        kills = dice.randint(0, 5)
        name = {"url": "addresses", "answer": "responses", "redirect": "redirects", "fault": "bad photos"}[kind]
        yield Case(
            f"{name}, {kills} kill{'s' * (kills != 1)}", f"{kind}, {kills}", _downloaded(60, kills, (kind,), dice)
        )


@dataclass
class World:
    """Photos of two classes behind one server; some addresses and some answers are hostile."""

    photos: int
    """That are wanted, of both classes together."""
    harms: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Kind and name by the number of a photo."""

    @classmethod
    def drawn(cls, photos: int, kinds: tuple[str, ...], dice: random.Random) -> "World":
        """About 30 % hostile. Slow answers are rare, so that a case does not take minutes."""
        names = {
            "url": list(hostile.URLS),
            "redirect": list(hostile.URLS),
            "answer": [n for n in hostile.ANSWERS if n not in hostile.SLOW] * 20 + sorted(hostile.SLOW),
            "fault": [*QUICK_FAULTS, *faults.PASSING] * 20 + ["silence", "slow_drip"],
        }
        world = cls(photos)
        for number in range(round(1.8 * photos)):
            if dice.random() < 0.3:
                kind = dice.choice(kinds)
                world.harms[number] = kind, dice.choice(names[kind])
        return world

    def lines(self, address: str) -> Iterator[str]:
        """The list of photos, as JSON lines."""
        for number in range(round(1.8 * self.photos)):
            kind, name = self.harms.get(number, ("", ""))
            url = hostile.url_of(name, number, address) if kind == "url" else f"http://{address}/{number}.jpg"
            yield json.dumps({"url": url, "label": CLASSES[number % 2], "author": "=1+1", "title": "../../x"}) + "\n"

    def app(self) -> web.Application:
        """A new server that has been asked nothing yet."""
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it tells of every client that hung up
        hostile.make_bombs()  # while they are made, nobody is answered
        asked: Counter[int] = Counter()

        async def send(request: web.Request) -> web.StreamResponse:
            digits = request.path.strip("/").removesuffix(".jpg")
            number = int(digits) if digits.isdecimal() and len(digits) < 9 else 0
            kind, name = self.harms.get(number, ("", ""))
            photo, before = jpeg(number), asked[number]
            asked[number] += 1
            if kind == "redirect":
                location = hostile.url_of(name, number, request.host)
                line = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
                assert request.transport is not None
                request.transport.write(line.encode("utf-8", "replace"))
                request.transport.close()
                return web.Response()
            if kind == "answer":
                return await hostile.ANSWERS[name](request, photo)
            if kind == "fault":
                fault = faults.PASSING.get(name) or faults.PERMANENT[name][0]
                if answer := await fault(request, photo, before):
                    return answer
            return web.Response(body=photo, content_type="image/jpeg")

        app = web.Application()
        app.router.add_get("/{path:.*}", send)
        return app


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended."""

    code: int
    megabytes: float
    """The most memory that it had."""


def _run(folder: Path, name: str, world: World, server: Server, kill: tuple[int, int] | None = None) -> Ended:
    """`get` into `folder/NAME`, perhaps with a signal after so many requests."""
    train, test = round(world.photos / 3), world.photos // 2 - round(world.photos / 3)
    arguments = [folder / "list.jsonl", folder / name, server.address, train, test, folder / "misdeeds.txt"]
    before = len(server.log)
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.watched", *map(str, arguments)],
            env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
            stderr=said,
        )
    most = 0.0
    while process.poll() is None:
        most = max(most, _peak_megabytes(process.pid))
        if kill and len(server.log) - before >= kill[0]:
            process.send_signal(kill[1])
            kill = None
        time.sleep(0.02)
    return Ended(process.returncode, most)


def _peak_megabytes(pid: int) -> float:
    """The most memory that a process has had so far; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def _downloaded(photos: int, kills: int, kinds: tuple[str, ...], dice: random.Random) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        outcome, _ = download(folder, World.drawn(photos, kinds, dice), kills, dice)
        return outcome

    return run


def download(folder: Path, world: World, kills: int, dice: random.Random) -> tuple[Outcome, dict[str, float]]:
    """Once without a kill, once with them. Returns the outcome and what was measured."""
    most, seconds, port = 0.0, {}, 0
    for name, rounds in (("whole", 0), ("killed", kills)):
        started = time.monotonic()
        with serve(world.app(), port) as server:
            port = server.port  # a photo's key is made from its address
            (folder / "list.jsonl").write_text("".join(world.lines(server.address)), "utf-8")
            for turn in range(rounds + 1):
                last = turn == rounds
                kill = None if last else (dice.randint(1, max(2, world.photos // (rounds + 1))), dice.choice(SIGNALS))
                ended = _run(folder, name, world, server, kill)
                most = max(most, ended.megabytes)
                said = (folder / "said.txt").read_text("utf-8", "replace")
                as_wanted = ended.code in (0, 1) if last else ended.code in (0, 1, -kill[1]) or _interrupted(kill, said)
                if not as_wanted or ("Traceback" in said and not _interrupted(kill, said)):
                    return Outcome(WRONG, f"{name}: exit code {ended.code}\n{said[-4000:]}"), {}
        seconds[name] = time.monotonic() - started
        if faults_found := _faults(folder / name):
            return Outcome(WRONG, f"{name}: {faults_found}"), {}
    misdeeds = folder / "misdeeds.txt"
    if misdeeds.is_file():
        return Outcome(WRONG, misdeeds.read_text("utf-8")[-4000:]), {}
    if most > MEGABYTES:
        return Outcome(WRONG, f"{most:.0f} MB"), {}
    whole, killed = (_contents(folder / name) for name in ("whole", "killed"))
    if whole != killed:
        return Outcome(
            WRONG, f"{len(whole)} photos without kills, {len(killed)} with, {len(whole ^ killed)} differ"
        ), {}
    return Outcome(RIGHT), {"megabytes": most, "photos": len(killed), **seconds}


def _interrupted(kill: tuple[int, int] | None, said: str) -> bool:
    """Whether the process, which is not the command itself, ended as Python does at Ctrl-C."""
    return kill is not None and kill[1] == signal.SIGINT and said.rstrip().endswith("KeyboardInterrupt")


def _faults(root: Path) -> str:
    """What is wrong with a photo folder; empty where nothing is."""
    kept = {}
    for entry in provenance.latest(root):
        if entry["status"] == "ok":
            kept[entry["path"]] = entry["sha256"]
        elif entry["reason"] not in REASONS:
            return f"no such reason: {entry['reason']}"
    found = {path: hashlib.sha256((root / path).read_bytes()).hexdigest() for path, _ in _contents(root)}
    if found != kept:
        return f"photos and provenance differ: {sorted(found.items() ^ kept.items())[:5]}"
    expected = {"dataset.json", provenance.NAME, provenance.ATTRIBUTION, provenance.LOCK, "train", "test"}
    if more := {path.name for path in root.iterdir()} - expected:
        return f"left behind: {sorted(more)}"
    return ""


def _contents(root: Path) -> set[tuple[str, str]]:
    """Path and hash of every photo."""
    files = [path for split in ("train", "test") for path in (root / split).rglob("*") if path.is_file()]
    return {(str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}


def main() -> int:
    """Returns 1 where the case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.servers", description=__doc__)
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    world = World.drawn(options.photos, ("url", "redirect", "answer", "fault"), dice)
    outcome, measured = download(folder, world, options.kills, dice)
    shutil.rmtree(folder)
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(outcome.verdict, outcome.detail, measured, f"{len(world.harms):,} hostile; the server itself {here:.0f} MB")
    return int(outcome.verdict == WRONG)


if __name__ == "__main__":
    sys.exit(main())
