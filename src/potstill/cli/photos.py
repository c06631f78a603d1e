"""Commands about folders of photos: init, get, check, count, doctor."""

import json as jsonlib
import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from potstill.cli import command
from potstill.cli.settings import PhotoFlags, combined
from potstill.cli.values import WHOLE
from potstill.get.sources.registry import source_help
from potstill.wording import counted


@command("potstill init cat dog --into photos")
def init(*classes: str, into: Path) -> None:
    """Create empty folders for your own photos: INTO/train/CLASS and INTO/test/CLASS.

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
    folder = shlex.quote(str(into))
    print(
        f"Put photos into these folders (those in test only measure the result), then: potstill count {folder}",
        file=sys.stderr,
    )


@command("potstill get cat dog --into photos --train 100 --test 50")
def get(
    *classes: str,
    into: Path,
    train: Annotated[int, WHOLE] = 500,
    test: Annotated[int, WHOLE] = 250,
    unlabeled: Annotated[int, WHOLE] = 0,
    source: Annotated[str, Parameter(help=source_help())] = "auto",
    contact: Annotated[str, Parameter(env_var="POTSTILL_CONTACT")] = "",
    license: tuple[str, ...] = (),
    allow_nc: bool = False,
    seed: Annotated[int, WHOLE] = 0,
    min_side: Annotated[int, WHOLE] = 64,
    near_bits: Annotated[int, WHOLE] = 6,
    quick: bool = False,
    dry_run: bool = False,
    strict: bool = False,
    allow_private: tuple[str, ...] = (),
) -> int:
    """Download photos of the given classes, check them, split them, and record the license and source of each.

    An interrupted download continues when the command is run again.

    Parameters
    ----------
    classes
        The class names. For ambiguous names add an identifier: `cat=/m/01yrx` (Open Images), `cat=Q146` (Wikidata),
        `cat=n02121620` (WordNet) or `cat=inat:118552` (iNaturalist).
    into
        The photo folder: INTO/train/CLASS and INTO/test/CLASS.
    train
        Training photos per class.
    test
        Test photos per class.
    unlabeled
        Photos per class name to use without a label, in INTO/unlabeled/CLASS: the teacher labels them. They are taken
        from what is left when train is full, and none of them looks like a photo of train or test.
    contact
        Your e-mail address, which is sent to the photo servers. Wikimedia Commons requires it.
    license
        License families to accept, or "any". The default is CC0, PD, CC-BY and CC-BY-SA.
    allow_nc
        Also accept licenses that allow only non-commercial use.
    seed
        Random seed of the train/test split.
    min_side
        Skip photos whose shorter side has fewer pixels than this.
    near_bits
        Skip photos that look like another one: 64-bit perceptual hashes that differ in at most this many bits. -1 keeps
        them.
    quick
        Read only the smallest lists of Open Images (42 MB), which contain fewer photos.
    dry_run
        Print what would be downloaded, without downloading any photo.
    strict
        Exit with code 1 if a class has too few photos.
    allow_private
        HOST:PORT of a server that may have a private address, such as your own mirror.
    """
    from potstill.get.licenses import NON_COMMERCIAL, OPEN
    from potstill.get.run import GetRequest, get, preview
    from potstill.get.summary import preview_table, result_table, shortages
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table

    request = GetRequest(
        classes=classes,
        into=into,
        train=train,
        test=test,
        unlabeled=unlabeled,
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
        print_table(preview_table(preview(request, reporter)), sys.stderr)
        return 0
    result = get(request, reporter)
    print_table(result_table(result.streams), sys.stderr)
    for text in (*shortages(result.streams), *(f"Gave up on {host}: {why}" for host, why in result.parked.items())):
        reporter.info(text)
    reporter.info(f"Photos: {into}. Attribution: {into / 'ATTRIBUTION.csv'}.")
    reporter.info(f"Next: potstill check {into}")
    return 1 if strict and not result.is_complete else 0


@command("potstill check photos --dry-run", "potstill check photos --restore all")
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
    min_side: Annotated[int, WHOLE] = 32,
    near_bits: Annotated[int, WHOLE] = 6,
    images: PhotoFlags | None = None,
) -> int:
    """Find broken photos, duplicates, and training photos that are also in test, and move them to quarantine.

    Parameters
    ----------
    data
        The photo folder.
    run
        A finished run on these photos. Photos that its teacher finds likely mislabeled are listed, but never moved.
    restore
        Restore photos from quarantine: those with this reason, or "all".
    purge
        Permanently delete photos in quarantine: those with this reason, or "all". Asks first.
    dry_run
        Only list the findings. With --json nothing is written at all.
    yes
        Move or delete without asking.
    strict
        Exit with code 1 if any photo belongs in quarantine.
    json
        Print the findings as JSON.
    min_side
        Reject photos whose shorter side has fewer pixels than this.
    near_bits
        Most bits in which the 64-bit perceptual hashes of duplicates may differ. Thumbnails are compared to confirm.
    """
    from potstill.check.page import write_page
    from potstill.check.quarantine import Quarantine
    from potstill.check.run import apply, check
    from potstill.check.summary import conclusion, finding_table, large_move
    from potstill.errors import ConfigError
    from potstill.monitoring.progress import Reporter
    from potstill.monitoring.tables import print_table

    if restore is not None or purge is not None:
        others = {"--purge": bool(restore and purge), "--run": run is not None}
        others |= {"--dry-run": dry_run, "--strict": strict, "--json": json}
        given = [flag for flag, is_given in others.items() if is_given]
        if given:
            raise ConfigError(f"--{'restore' if restore is not None else 'purge'} does not work with {given[0]}.")
    reporter = Reporter()
    quarantine = Quarantine(data)
    if restore is not None:
        restored = quarantine.restore("" if restore == "all" else restore)
        reporter.info(f"Restored {counted(restored, 'photo')} to {data}.")
        return 0
    if purge is not None:
        reason = "" if purge == "all" else purge
        if not _agreed(f"Permanently delete {counted(sum(1 for _ in quarantine.photos(reason)), 'photo')}?", yes=yes):
            return 2
        reporter.info(f"Deleted {counted(quarantine.purge(reason), 'photo')}.")
        return 0
    config = combined(images, None).images
    result = check(data, reporter, min_side=min_side, near_bits=near_bits, run=run, images=config)
    page, moves = None, not dry_run
    if not (dry_run and json):
        try:
            page = write_page(result)
        except OSError as error:  # photos on a disk that may only be read
            reporter.info(f"Nothing can be written to {data} ({error.strerror}): no page, and no photo is moved.")
            moves = False
    reporter.info(f"Checked {counted(result.photos, 'photo')}.")
    if result.findings:
        print_table(finding_table(result), sys.stderr)
    moved = 0
    if moves:
        agreed = yes or (bool(result.too_much) and _agreed(large_move(result), yes=False))
        moved = apply(result, yes=agreed)
    if json:
        print(jsonlib.dumps(result.as_json(), ensure_ascii=False))
    reporter.info(conclusion(result, moved=moved, page=page))
    return 1 if strict and result.to_move else 0


@command("potstill count photos", "potstill count photos.zip", "potstill count labels.csv")
def count(
    data: Path,
    *,
    json: bool = False,
    list_them: Annotated[bool, Parameter(name="--list")] = False,
    images: PhotoFlags | None = None,
) -> None:
    """Count the photos per split and class, and those in quarantine, and show how the folder is read.

    Only file names are read; `potstill check` opens every photo.

    Parameters
    ----------
    data
        The photo folder, a table of labels, or a zip or tar file of one of these.
    json
        Print the counts as JSON.
    list_them
        Print the path of every photo in the folder instead, one per line: soft labels from elsewhere are matched by
        these paths.
    """
    from potstill.check.count import count, photo_paths
    from potstill.check.summary import count_table
    from potstill.monitoring.tables import print_table
    from potstill.run.command import typed_command

    if list_them:
        print("\n".join(photo_paths(data, combined(images, None).images)))
        return
    counts = count(data, combined(images, None).images)
    if json:
        print(jsonlib.dumps(counts.as_json(), ensure_ascii=False))
    else:
        print_table(count_table(counts))
        words = typed_command().removeprefix("potstill count ")
        print("\n".join([*counts.lines(), *counts.next_lines(words, checkable=data.is_dir())]))


@command("potstill doctor", "potstill doctor runs/RUN")
def doctor(
    run: Path | None = None,
    *,
    contact: Annotated[str, Parameter(env_var="POTSTILL_CONTACT")] = "",
    offline: bool = False,
    json: bool = False,
    allow_private: tuple[str, ...] = (),
) -> int:
    """Show the hardware, the installed packages, and which photo sources can be reached; or check a run for damage.

    Parameters
    ----------
    run
        A run folder. Reads only its files that have a hash or a checksum. Damaged files are listed with advice on what
        to do; the exit code is then 1.
    contact
        Your e-mail address, which Wikimedia Commons requires.
    offline
        Do not contact any server.
    json
        Print JSON.
    allow_private
        HOST:PORT of a server that may have a private address, such as your own mirror.
    """
    from dataclasses import asdict

    if run is not None:
        from potstill.run.examine import examine
        from potstill.storage.addresses import refuse_storage

        refuse_storage(run, "`potstill doctor RUN`, which reads every file,")
        found = examine(run)
        print(jsonlib.dumps(asdict(found), ensure_ascii=False) if json else "\n".join(found.lines()))
        return int(bool(found.problems))

    from potstill.monitoring.tables import print_table, text_table
    from potstill.tools.doctor import diagnose

    sections = diagnose(contact=contact, allow_private=allow_private, offline=offline)
    if json:
        print(jsonlib.dumps([asdict(section) for section in sections], ensure_ascii=False))
        return 0
    marks = {True: "ok", False: "no", None: ""}
    for section in sections:
        rows = [[row.name, marks[row.good], row.value] for row in section.rows]
        print_table(text_table((section.title, "", ""), rows, right=()))
        print()
    return 0


def _agreed(question: str, *, yes: bool) -> bool:
    """Ask on a terminal; without one, the answer is no unless `yes`."""
    if yes:
        return True
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
