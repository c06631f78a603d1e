"""Files at rest: a byte flipped, a tail cut, emptied, removed, or taken from another run, of every kind of file."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.torture.cases import REFUSED, RIGHT, WRONG, Answer, Case, Outcome, judged, potstill
from tests.torture.job import STOPS, TinyJob, copy_of, files_of, follows_advice, of_kinds, result_of

Damage = Callable[[Path, random.Random], None]


def flip(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def cut(path: Path, dice: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data))] if data else b"")


def empty(path: Path, dice: random.Random) -> None:
    path.write_bytes(b"")


def zero(path: Path, dice: random.Random) -> None:
    """What a power loss leaves of a file that was never synced."""
    path.write_bytes(bytes(path.stat().st_size))


def remove(path: Path, dice: random.Random) -> None:
    path.unlink()


DAMAGES: dict[str, Damage] = {"flip": flip, "cut": cut, "empty": empty, "zero": zero, "remove": remove}

SWAP = "another run's"
"""The same file of another run, whole in itself."""

COMMANDS = ("distill", "predict", "report", "compare", "export")


def damage_cases(seed: int, home: Path) -> Iterator[Case]:
    """A damaged file of a finished run, then a command; or of an interrupted one, which is then resumed."""
    job, number = TinyJob(home), 0
    kinds = of_kinds(files_of(job.undisturbed))
    while True:
        dice = random.Random(f"{seed} damage {number}")
        number += 1
        name = dice.choice([*DAMAGES, SWAP])
        if dice.random() < 0.3:
            point = dice.choice(STOPS)
            stopped = of_kinds(files_of(job.stopped(point)))
            file = dice.choice(stopped[dice.choice(list(stopped))])
            yield Case(
                f"{name}, interrupted run, then distill", f"{point}: {file}", _resumed(job, point, file, name, dice)
            )
        else:
            file, command = dice.choice(kinds[dice.choice(list(kinds))]), dice.choice(COMMANDS)
            yield Case(f"{name}, finished run, then {command}", str(file), _finished(job, file, name, command, dice))


def _resumed(job: TinyJob, point: str, file: Path, damage: str, dice: random.Random) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        copy = copy_of(job.stopped(point), folder / "run")
        if not _damaged(job, copy, file, damage, dice):
            return Outcome(RIGHT, "the other run has no such file")
        return _distilled(job, copy)

    return run


def _finished(job: TinyJob, file: Path, damage: str, command: str, dice: random.Random) -> Callable[[Path], Outcome]:
    def run(folder: Path) -> Outcome:
        copy = copy_of(job.undisturbed, folder / "run")
        expected = "" if command == "distill" else _answer(job, command, copy).printed
        if not _damaged(job, copy, file, damage, dice):
            return Outcome(RIGHT, "the other run has no such file")
        if command == "distill":
            return _distilled(job, copy)
        answer = _answer(job, command, copy)
        return judged(answer, as_undisturbed=answer.printed == expected)

    return run


def _damaged(job: TinyJob, run: Path, file: Path, damage: str, dice: random.Random) -> bool:
    """Damage a file of a run. False where there is nothing to damage it with."""
    if damage != SWAP:
        DAMAGES[damage](run / file, dice)
    elif (other := job.other / file).is_file():
        shutil.copyfile(other, run / file)
    else:
        return False
    return True


def _distilled(job: TinyJob, run: Path) -> Outcome:
    """What `distill` makes of a damaged run; where it refuses, its advice must lead to the right result."""
    answer = potstill(job.command(run))
    outcome = judged(answer, as_undisturbed=answer.code == 0 and result_of(run) == job.result)
    if outcome.verdict == REFUSED and not follows_advice(job, answer.errors, run):
        return Outcome(WRONG, f"the advice does not help: {answer.errors}")
    return outcome


def _answer(job: TinyJob, command: str, run: Path) -> Answer:
    """What a command prints of a run, as far as it must be the same each time."""
    if command == "distill":
        return potstill(job.command(run))
    if command == "predict":
        return potstill(["predict", run, next((job.photos / "test/disc").iterdir()), "--json"])
    if command == "compare":
        return potstill(["compare", run, job.undisturbed])
    if command == "export":
        answer = potstill(["export", run, "--to", "torch"])
        return Answer(answer.code, "", answer.errors)
    answer = potstill(["report", run])
    page = run / "7_report/index.html"
    return Answer(answer.code, page.read_text("utf-8") if answer.code == 0 else answer.printed, answer.errors)
