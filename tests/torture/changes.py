"""What changes around a run: another command at once, other photos, another clock, another machine, no rights."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support import CLASSES, draw_photo
from tests.torture.cases import REFUSED, RIGHT, WRONG, Answer, Case, Outcome, judged, potstill
from tests.torture.forked import Clock, NoOverride, server
from tests.torture.job import STOPS, TinyJob, copy_of, leftovers, result_of

from potstill.run.files import read_json, write_json

Work = Callable[[Path], Outcome]

READING = ("predict", "compare", "status", "doctor", "report", "export", "open")
WRITING = ("report", "export")
"""Of these: what must refuse where nothing may be written."""


def change_cases(seed: int, home: Path) -> Iterator[Case]:
    """Kinds of changes in turn, at different moments of a run."""
    job, number = TinyJob(home), 0
    while True:
        dice = random.Random(f"{seed} changes {number}")
        name = list(KINDS)[number % len(KINDS)]
        number += 1
        detail, work = KINDS[name](job, dice)
        yield Case(name, detail, work)


def two_at_once(job: TinyJob, dice: random.Random) -> tuple[str, Work]:
    point = dice.choice(STOPS)

    def run(folder: Path) -> Outcome:
        target = copy_of(job.stopped(point), folder / "run")
        commands = [server().start(job.command(target), folder / f"{number}.txt") for number in range(2)]
        codes = [command.wait() for command in commands]
        said = [command.output.read_text("utf-8") for command in commands]
        refused = [code == 2 and "Another process is at work" in text for code, text in zip(codes, said, strict=True)]
        if 0 not in codes or not all(code == 0 or no for code, no in zip(codes, refused, strict=True)):
            return Outcome(WRONG, f"exit codes {codes}\n" + "\n".join(text[-2000:] for text in said))
        return _as_it_must_be(job, target)

    return f"distill twice, from {point} on", run


def read_while_working(job: TinyJob, dice: random.Random) -> tuple[str, Work]:
    point, command = dice.choice(STOPS), dice.choice(READING)

    def run(folder: Path) -> Outcome:
        target = copy_of(job.stopped(point), folder / "run")
        working = server().start(job.command(target), folder / "output.txt")
        while not working.has_ended:
            answer = potstill(_reading(job, command, target))
            if answer.code not in (0, 2) or "Traceback" in answer.errors:
                working.wait()
                return Outcome(WRONG, f"{command}: exit code {answer.code}\n{answer.printed}\n{answer.errors}")
        if code := working.wait():
            return Outcome(WRONG, f"distill: exit code {code}\n{(folder / 'output.txt').read_text('utf-8')[-3000:]}")
        return _as_it_must_be(job, target)

    return f"{command} again and again while distill works from {point} on", run


def other_photos(job: TinyJob, dice: random.Random) -> tuple[str, Work]:
    point, way, pick = dice.choice([*STOPS, "the end"]), dice.choice(list(WAYS)), dice.random()

    def run(folder: Path) -> Outcome:
        photos = Path(shutil.copytree(job.photos, folder / "photos"))
        start = job.undisturbed if point == "the end" else job.stopped(point)
        target, arguments = copy_of(start, folder / "run"), job.command(folder / "run")
        arguments[1] = photos
        files = sorted(path for path in photos.rglob("*.png") if "train" in path.parts)
        WAYS[way](files[int(pick * len(files))])
        answer = potstill(arguments)
        if answer.refused:
            return Outcome(REFUSED, answer.errors.strip().splitlines()[-1])
        if answer.code:
            return judged(answer, as_undisturbed=False)
        anew = job.command(folder / "anew")
        anew[1] = photos
        assert potstill(anew).code == 0
        return judged(answer, as_undisturbed=result_of(target) == result_of(folder / "anew"))

    return f"a photo {way}, then distill from {point} on", run


def added(photo: Path) -> None:
    draw_photo(CLASSES[0], 999).save(photo.with_name("added.png"))


def removed(photo: Path) -> None:
    photo.unlink()


def replaced(photo: Path) -> None:
    draw_photo(CLASSES[1], 998).save(photo)


def renamed(photo: Path) -> None:
    photo.rename(photo.with_name("renamed.png"))


def touched(photo: Path) -> None:
    os.utime(photo, (1, 1))


WAYS: dict[str, Callable[[Path], None]] = {
    "added": added,
    "removed": removed,
    "replaced": replaced,
    "renamed": renamed,
    "touched": touched,
}


def other_clock(job: TinyJob, dice: random.Random) -> tuple[str, Work]:
    point, days = dice.choice(STOPS), dice.choice((-400, -1, 1, 400))

    def run(folder: Path) -> Outcome:
        target = copy_of(job.stopped(point), folder / "run")
        command = server().start(job.command(target), folder / "output.txt", Clock(86400.0 * days))
        if code := command.wait():
            return Outcome(WRONG, f"exit code {code}\n{command.output.read_text('utf-8')[-3000:]}")
        answer = potstill(["status", target])
        if answer.code:
            return Outcome(WRONG, f"status: exit code {answer.code}\n{answer.errors}")
        return _as_it_must_be(job, target)

    return f"the clock is {days:+} days off, from {point} on", run


def other_versions(job: TinyJob, dice: random.Random) -> tuple[str, Work]:
    point, package = dice.choice([*STOPS, "the end"]), dice.choice(("torch", "timm", "pillow", "numpy"))

    def run(folder: Path) -> Outcome:
        start = job.undisturbed if point == "the end" else job.stopped(point)
        target = copy_of(start, folder / "run")
        stored = read_json(target / "environment.json")
        stored["versions"][package] = "0.1"
        write_json(target / "environment.json", stored)
        answer = potstill(job.command(target))
        return judged(answer, as_undisturbed=answer.code == 0 and result_of(target) == job.result)

    return f"{package} was another one, up to {point}", run


def no_rights(job: TinyJob, dice: random.Random) -> tuple[str, Work]:
    command = dice.choice(READING)

    def run(folder: Path) -> Outcome:
        target = copy_of(job.undisturbed, folder / "run")
        before = {path: path.stat().st_mtime_ns for path in (target, *target.rglob("*"))}
        for path in before:
            path.chmod(path.stat().st_mode & ~0o222)
        working = server().start(_reading(job, command, target), folder / "output.txt", NoOverride())
        code, said = working.wait(), (folder / "output.txt").read_text("utf-8")
        after = {path: path.stat().st_mtime_ns for path in (target, *target.rglob("*"))}
        for path in before:
            path.chmod(path.stat().st_mode | 0o200)
        if before != after:
            return Outcome(WRONG, "something was written")
        if command in WRITING and code == 2 and "Permission denied" in said and "Traceback" not in said:
            return Outcome(REFUSED, said.strip().splitlines()[-1])
        if command not in WRITING and code == 0:
            return Outcome(RIGHT)
        return Outcome(WRONG, f"exit code {code}\n{said[-3000:]}")

    return f"{command} of a run folder that may only be read", run


KINDS: dict[str, Callable[[TinyJob, random.Random], tuple[str, Work]]] = {
    "two commands at once": two_at_once,
    "read while working": read_while_working,
    "other photos": other_photos,
    "other clock": other_clock,
    "other versions": other_versions,
    "no rights": no_rights,
}


def _photo(job: TinyJob) -> Path:
    return sorted((job.photos / "test/disc").iterdir())[0]


def _reading(job: TinyJob, command: str, run: Path) -> list[Any]:
    more: dict[str, list[Any]] = {
        "predict": [_photo(job)],
        "compare": [job.undisturbed],
        "export": ["--to", "torch"],
        "open": ["--no-browser"],
    }
    return [command, run, *more.get(command, [])]


def _as_it_must_be(job: TinyJob, run: Path) -> Outcome:
    if left := leftovers(run):
        return Outcome(WRONG, f"left behind: {left}")
    return judged(Answer(0, "", ""), as_undisturbed=result_of(run) == job.result)
