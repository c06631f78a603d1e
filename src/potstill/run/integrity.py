"""Are the files of finished stages still as they were written? Their sizes and hashes stand in each `done.json`.

Disks, copies and people damage files. Without this, one changed byte in a stored array would become another number in
a report.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from potstill.errors import DamageError
from potstill.run.files import SEAL, read_json, sha256_of

LARGE = ("pixels.bin", "features.npy", "logits.npy", "val_logits.npy", "views.npy")
"""Arrays that only training reads. Reading commands check their sizes, not their hashes, and do without them: people
remove them, and the weights, from runs that they keep or pass on."""

_TRANSIENT = ("done.json", "inputs.json", "worker.json", "job.json", "step.txt", "output.txt")
_TRANSIENT_SUFFIXES = (".part", ".growing", ".sums", ".checkpoint", SEAL)
_COMMANDS = {"6_export": "export", "7_report": "report", "controls": "controls", "forecast": "forecast"}
"""What makes the files of a folder of the run, where it is not `potstill distill`."""
_REPLACED = ("ATTRIBUTION.csv", "ATTRIBUTION.txt")
"""Copied from the photo folder on every run."""


def file_facts(folder: Path, passing: Collection[str] = ()) -> dict[str, list[Any]]:
    """[bytes, sha256] of every file that a finished stage keeps, by its path in the folder.

    Args:
        passing: names of files that will be removed.
    """
    names = sorted(name for name in _kept(folder) if Path(name).name not in passing)
    return {name: [(folder / name).stat().st_size, sha256_of(folder / name)] for name in names}


def require_whole(run: Path, *, large: bool = False) -> None:
    """Check every finished stage and training below a run folder.

    Args:
        large: check the hashes of large arrays, too, which takes about a second per GB. Their sizes are always checked.
    Raises:
        DamageError: a file is missing, or is not as it was written.
    """
    for problem in damages(run, large=large):
        raise DamageError(problem)


def damages(run: Path, *, large: bool = True) -> Iterator[str]:
    """One sentence for each damaged file of the finished stages below a folder; arguments as for `require_whole`."""
    for done in sorted(run.rglob("done.json")):
        try:
            stored = _stored(done)
        except DamageError as error:
            yield str(error)
            continue
        made_by = next((_COMMANDS[part] for part in done.relative_to(run).parts if part in _COMMANDS), "distill")
        yield from _damages(done.parent, stored, large, made_by)


def recorded(run: Path) -> set[Path]:
    """The files that finished stages below a folder keep the hashes of, as far as these can be read."""
    found = set[Path]()
    for done in run.rglob("done.json"):
        with contextlib.suppress(DamageError):
            found |= {done.parent / name for name in _stored(done)}
    return found


def _stored(done: Path) -> Mapping[str, list[Any]]:
    """What a done.json keeps of its files. Raises DamageError."""
    values = read_json(done)
    if not isinstance(values, dict):
        raise DamageError(f"{done} is damaged: it holds no JSON object. Remove its folder and run again.")
    return values.get("files", {})


def _damages(folder: Path, stored: Mapping[str, list[Any]], large: bool, made_by: str) -> Iterator[str]:
    advice = f"Remove {folder} and run `potstill {made_by}` again: only what is missing is made."
    for name, (size, sha256) in stored.items():
        path = folder / name
        large_file = path.name in LARGE
        if not path.is_file():
            if not large and (large_file or path.suffix == ".safetensors"):
                continue
            yield f"{path} is missing. {advice}"
        elif path.stat().st_size != size:
            yield f"{path} is damaged: it has {path.stat().st_size:,} bytes instead of {size:,}. {advice}"
        elif (large or not large_file) and sha256_of(path) != sha256:
            yield f"{path} is damaged: its bytes are not those that were written. {advice}"


def _kept(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.name
        passing = name in _TRANSIENT or name in _REPLACED or path.suffix in _TRANSIENT_SUFFIXES
        passing = passing or name.startswith(".") or name.endswith("checkpoint.safetensors")
        if path.is_file() and not passing:
            yield path.relative_to(folder).as_posix()
