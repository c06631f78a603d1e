"""The torture campaign: `make torture`, or `python -m tests.torture --minutes 20 --seed 0 [--only damage …]`.

Cases of all parts take turns until the time is up. Each is the same for the same seed and number. What was found is
kept in the journal, so that a killed or repeated command goes on with the next case; the page is made from it. With
`--again`, cases that went wrong come first: they are made once more, and the journal keeps both results.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

# As in the processes that are started: what a network says depends, in its last bits, on the number of threads.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

from tests.torture.cases import WRONG, Campaign, Case, Outcome
from tests.torture.changes import change_cases
from tests.torture.damage import damage_cases
from tests.torture.disks import disk_cases
from tests.torture.kills import kill_cases
from tests.torture.page import write_page
from tests.torture.pages import page_cases
from tests.torture.photos import photo_cases
from tests.torture.power import power_cases
from tests.torture.servers import server_cases
from tests.torture.settings import settings_cases

CAMPAIGNS: dict[str, Campaign] = {
    "changes": change_cases,
    "damage": damage_cases,
    "disks": disk_cases,
    "kills": kill_cases,
    "pages": page_cases,
    "photos": photo_cases,
    "power": power_cases,
    "servers": server_cases,
    "settings": settings_cases,
}

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the journal."""

    part: str
    number: int
    name: str
    detail: str
    verdict: str
    said: str
    seconds: float
    commit: str = ""
    """Of Potstill and the campaign; ends with + where files were changed since."""


def torture(
    parts: Sequence[str],
    seed: int,
    minutes: float,
    home: Path,
    *,
    journal: Path,
    most: Mapping[str, int] | None = None,
    again: bool = False,
) -> list[Result]:
    """Run cases of the parts in turn, from where the journal ends.

    Args:
        home: for what the cases of a part share, such as photos and undisturbed runs.
        journal: the file of all results; it may lie in another folder, and go on on another machine.
        most: cases of each part, earlier ones included; as many as there is time for when None.
        again: make cases that went wrong once more, before the others.
    Returns:
        All results, earlier ones included; a case that was repeated has several.
    """
    home.mkdir(parents=True, exist_ok=True)
    journal.parent.mkdir(parents=True, exist_ok=True)
    lines = journal.read_text("utf-8").splitlines() if journal.is_file() else []
    results = [Result(**json.loads(line)) for line in lines]
    wrong = {key for key, made in by_case(results).items() if made[-1].verdict == WRONG} if again else set()
    queue = _in_turn(parts, seed, home / "job", results, wrong, most)
    end, commit = time.monotonic() + 60 * minutes, _commit()
    with journal.open("a", encoding="utf-8") as file:
        for part, number, case in queue:
            if time.monotonic() >= end:
                break
            result = replace(_result(part, number, case), commit=commit)
            results.append(result)
            file.write(json.dumps(asdict(result)) + "\n")
            file.flush()
            if result.verdict == WRONG:
                print(f"WRONG: {part} {result.number}, {result.name}, {result.detail}\n{result.said}", flush=True)
    return results


def _in_turn(
    parts: Sequence[str],
    seed: int,
    job: Path,
    earlier: Sequence[Result],
    wrong: Collection[tuple[str, int]],
    most: Mapping[str, int] | None,
) -> Iterator[tuple[str, int, Case]]:
    """Cases to make: those that went wrong, then new ones of each part in turn. Part, number, case."""
    for part in parts:
        repeated = {number for of, number in wrong if of == part}
        for number, case in enumerate(islice(CAMPAIGNS[part](seed, job), max(repeated, default=-1) + 1)):
            if number in repeated:
                yield part, number, case
    done = by_case(earlier)
    waiting = {part: _numbered(part, seed, job, done) for part in parts}
    while waiting:
        for part in list(waiting):
            number, case = next(waiting[part])
            if most is not None and number >= most[part]:
                del waiting[part]
            else:
                yield part, number, case


def _numbered(part: str, seed: int, job: Path, done: Collection[tuple[str, int]]) -> Iterator[tuple[int, Case]]:
    """The cases of a part that are not in the journal; it may have gaps, where several were put together."""
    return ((number, case) for number, case in enumerate(CAMPAIGNS[part](seed, job)) if (part, number) not in done)


def by_case(results: Iterable[Result]) -> dict[tuple[str, int], list[Result]]:
    """The results of each case in their order, by part and number."""
    found: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for result in results:
        found[result.part, result.number].append(result)
    return found


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # not a checkout
        return ""


def _result(part: str, number: int, case: Case) -> Result:
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        outcome = case.run(folder)
    except Exception as error:
        outcome = Outcome(WRONG, f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.monotonic() - started, 2)
    return Result(part, number, case.name, case.detail, outcome.verdict, outcome.detail, seconds)


def main() -> int:
    """Returns 1 where a case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(CAMPAIGNS), default=list(CAMPAIGNS), metavar="PART")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/torture")
    parser.add_argument("--journal", type=Path, help="the results, to go on from (default: in --runs)")
    parser.add_argument("--again", action="store_true", help="first repeat the cases that went wrong")
    parser.add_argument("--page", type=Path, help="where to write the results as a page of the docs")
    options = parser.parse_args()
    os.environ.setdefault("COLUMNS", "200")
    home = options.runs / f"seed-{options.seed}"
    journal = options.journal or home / "journal.jsonl"
    results = torture(options.only, options.seed, options.minutes, home, journal=journal, again=options.again)
    cases = list(by_case(results).values())
    for part, count in sorted(Counter((made[-1].part, made[-1].verdict) for made in cases).items()):
        print(f"{part[0]:10} {part[1]:8} {count:,}")
    if options.page:
        write_page(options.page, cases, options.seed)
    return int(any(made[-1].verdict == WRONG for made in cases))


if __name__ == "__main__":
    sys.exit(main())
