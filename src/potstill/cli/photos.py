"""Commands about folders of photos: init, get, check, count, doctor."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from potstill.cli import app
from potstill.get.sources.registry import source_help


@app.command
def init(*classes: str, into: Path) -> None:
    """Make the empty folders for your own photos: INTO/train/CLASS and INTO/test/CLASS.

    Parameters
    ----------
    classes
        The class names.
    into
        The photo folder.
    """
    from potstill.images.folder import make_folders

    for path in make_folders(into, classes):
        print(path)


@app.command
def get(
    *classes: str,
    into: Path,
    train: int = 500,
    test: int = 250,
    source: Annotated[str, Parameter(help=source_help())] = "auto",
    contact: Annotated[str, Parameter(env_var="POTSTILL_CONTACT")] = "",
    license: tuple[str, ...] = (),
    allow_nc: bool = False,
    seed: int = 0,
    min_side: int = 64,
    near_bits: int = 6,
    quick: bool = False,
    dry_run: bool = False,
    strict: bool = False,
    allow_private: tuple[str, ...] = (),
) -> int:
    """Find, download, check and split photos of these classes, with license and origin of each.

    Run again, it goes on where it stopped.

    Parameters
    ----------
    classes
        The class names. `cat=/m/01yrx`, `cat=Q146`, `cat=n02121620` or `cat=inat:118552` says which cat is meant.
    into
        The photo folder: INTO/train/CLASS and INTO/test/CLASS.
    train
        Photos per class to learn from.
    test
        Photos per class for the final numbers.
    contact
        Your e-mail address. Wikimedia Commons wants it; it goes to the servers that are asked.
    license
        Keep only these license families, or "any". The default is CC0, PD, CC-BY and CC-BY-SA.
    allow_nc
        Also take photos that are free for non-commercial use only.
    seed
        Another number gives another train/test split.
    min_side
        Leave out photos with a shorter side below this many pixels.
    near_bits
        Leave out photos that look like another one: bits of 64 by which their picture hashes may differ. -1 keeps them.
    quick
        Open Images: read only its smallest lists (42 MB), which hold fewer photos.
    dry_run
        Say what would be fetched; fetch no photo.
    strict
        Exit with 1 when a class has too few photos.
    allow_private
        HOST:PORT that may be a private address: a mirror of your own.
    """
    from potstill.get.licenses import NON_COMMERCIAL, OPEN
    from potstill.get.run import GetRequest, get, preview
    from potstill.get.summary import shortages, table
    from potstill.monitoring.progress import Reporter

    request = GetRequest(
        classes=classes,
        into=into,
        train=train,
        test=test,
        source=source,
        contact=contact,
        licenses=(*(license or OPEN), *(NON_COMMERCIAL if allow_nc else ())),
        seed=seed,
        min_side=min_side,
        near_bits=near_bits,
        quick=quick,
        allow_private=allow_private,
    )
    reporter = Reporter()
    if dry_run:
        reporter.console.print(preview(request, reporter))
        return 0
    result = get(request, reporter)
    reporter.console.print(table(result.streams))
    for text in (*shortages(result.streams), *(f"{host} was left alone: {why}" for host, why in result.parked.items())):
        reporter.info(text)
    reporter.info(f"Photos: {into}. Whose they are: {into / 'ATTRIBUTION.csv'}.")
    reporter.info(f"Next: potstill check {into}")
    return 1 if strict and not result.is_complete else 0


@app.command
def check(
    data: Path,
    *,
    run: Path | None = None,
    restore: Annotated[str | None, Parameter(negative=())] = None,
    purge: Annotated[str | None, Parameter(negative=())] = None,
    dry_run: bool = False,
    yes: bool = False,
    strict: bool = False,
    json: bool = False,
    min_side: int = 32,
    near_bits: int = 6,
) -> int:
    """Find bad photos, copies and leaks from test into train, and move them to quarantine, with the reason.

    Parameters
    ----------
    data
        The photo folder.
    run
        A finished run on these photos: its teacher's answers show likely wrong labels, which are listed, never moved.
    restore
        Bring photos back from quarantine: of this reason, or "all".
    purge
        Delete photos in quarantine for good: of this reason, or "all". Asks first.
    dry_run
        Only list.
    yes
        Move (or delete) without asking.
    strict
        Exit with 1 when anything was found that goes to quarantine.
    json
        Print all findings as JSON.
    min_side
        Photos with a shorter side below this many pixels go.
    near_bits
        Bits of 64 by which the picture hashes of copies may differ; thumbnails confirm.
    """
    from potstill.check.page import write_page
    from potstill.check.quarantine import Quarantine
    from potstill.check.run import apply, check
    from potstill.check.summary import summary
    from potstill.monitoring.progress import Reporter

    reporter = Reporter()
    quarantine = Quarantine(data)
    if restore is not None:
        reporter.info(f"{quarantine.restore('' if restore == 'all' else restore):,} photos are back in {data}.")
        return 0
    if purge is not None:
        reason = "" if purge == "all" else purge
        if not _agreed(f"Delete {sum(1 for _ in quarantine.photos(reason)):,} photos for good?", yes=yes):
            return 2
        reporter.info(f"{quarantine.purge(reason):,} photos were deleted.")
        return 0
    result = check(data, reporter, min_side=min_side, near_bits=near_bits, run=run)
    write_page(result)
    moved = 0
    if not dry_run:
        sure = yes or (bool(result.too_much) and _agreed(summary(result) + "\nMove them to quarantine?", yes=False))
        moved = apply(result, yes=sure)
    if json:
        print(jsonlib.dumps(result.as_json(), ensure_ascii=False))
    reporter.info(summary(result, moved=moved))
    return 1 if strict and result.to_move else 0


@app.command
def count(data: Path, *, json: bool = False) -> None:
    """Count photos per split and class, and those in quarantine.

    Parameters
    ----------
    data
        The photo folder.
    json
        Print JSON.
    """
    from rich.console import Console

    from potstill.check.count import count
    from potstill.check.summary import count_table

    counts = count(data)
    if json:
        print(jsonlib.dumps(counts.as_json(), ensure_ascii=False))
    else:
        Console(highlight=False).print(count_table(counts))


@app.command
def doctor(
    *,
    contact: Annotated[str, Parameter(env_var="POTSTILL_CONTACT")] = "",
    offline: bool = False,
    json: bool = False,
    allow_private: tuple[str, ...] = (),
) -> int:
    """Say what this machine has, what is installed, and which photo sources answer.

    Parameters
    ----------
    contact
        Your e-mail address, for Wikimedia Commons.
    offline
        Ask no server.
    json
        Print JSON.
    allow_private
        HOST:PORT that may be a private address: a mirror of your own.
    """
    from dataclasses import asdict

    from rich.console import Console

    from potstill.tools.doctor import diagnose

    sections = diagnose(contact=contact, allow_private=allow_private, offline=offline)
    if json:
        print(jsonlib.dumps([asdict(section) for section in sections], ensure_ascii=False))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: "  "}
    for section in sections:
        console.print(f"[bold]{section.title}[/]")
        for row in section.rows:
            console.print(f"  {marks[row.good]} {row.name:16}", end=" ")
            console.print(row.value, markup=False)
    return 0


def _agreed(question: str, *, yes: bool) -> bool:
    """Ask on a terminal; without one, only --yes agrees."""
    import sys

    if yes:
        return True
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
