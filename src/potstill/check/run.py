"""`potstill check`: finds photos that would harm, and moves them to quarantine, never away.

Look at every file, compare all with all, decide which copy stays, ask before much would go, move, and show.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.check.inspect import Inspected, inspect_all
from potstill.check.quarantine import Quarantine
from potstill.errors import DataError
from potstill.images.copies import LEAK_BITS, NEAR_BITS, Photo, find_copies
from potstill.images.folder import Folder, plain_name, read_folder
from potstill.images.reasons import action
from potstill.monitoring.progress import Reporter

REPORT = "check.json"
PAGE = "check.html"
MOST = 0.2
"""Above this share of a class, nothing is moved without a yes: a machine fault can make every photo look bad."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something about one photo."""

    path: str
    """Below the photo folder."""
    split: str
    label: str
    code: str
    """One of reasons.REASONS."""
    detail: str = ""
    other: str = ""
    """The photo that it is a copy of."""
    score: float | None = None
    """For likely wrong labels: the probability that the teacher gives the label."""

    @property
    def moves(self) -> bool:
        """Whether it goes to quarantine."""
        return action(self.code) in ("reject", "quarantine")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What `check` found."""

    root: Path
    photos: int
    findings: tuple[Finding, ...]
    share_lost: dict[str, float]
    """By class, the share of its photos that is to go."""

    @property
    def to_move(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.moves]

    @property
    def too_much(self) -> dict[str, float]:
        """Classes that would lose more than MOST."""
        return {label: share for label, share in self.share_lost.items() if share > MOST}

    def counts(self) -> dict[str, int]:
        """Findings by code."""
        return dict(Counter(finding.code for finding in self.findings).most_common())

    def as_json(self) -> dict[str, Any]:
        """For `check.json` and `--json`."""
        findings = [
            {name: value for name in Finding.__slots__ if (value := getattr(finding, name)) not in ("", None)}
            for finding in self.findings
        ]
        for finding in findings:
            finding |= {name: plain_name(finding[name]) for name in ("path", "other") if name in finding}
        return {"photos": self.photos, "counts": self.counts(), "findings": findings}


def check(
    root: Path,
    reporter: Reporter,
    *,
    min_side: int = 32,
    near_bits: int = NEAR_BITS,
    leak_bits: int = LEAK_BITS,
    run: Path | None = None,
) -> CheckResult:
    """Find everything, move nothing.

    Args:
        root: a photo folder, see `read_folder`.
        min_side: in pixels.
        near_bits: within a split, pictures whose hashes are this near and whose thumbnails agree are copies. -1 only
            calls identical files copies, also between splits.
        leak_bits: the same between splits, where a missed copy would make the test easier than it is.
        run: a finished run on these photos; its teacher's out-of-fold answers show likely wrong labels.
    Raises:
        DataError: the folder cannot be used, or the run has no such answers.
    """
    if near_bits < 0:
        leak_bits = near_bits
    folder = read_folder(root)
    looked = []
    with reporter.bar("Checking photos", len(folder.files), unit="photos") as update:
        for number, seen in enumerate(inspect_all([f.path for f in folder.files], min_side=min_side), 1):
            looked.append(seen)
            update(number)
    found = [*_own_faults(folder, looked), *_copies(folder, looked, near_bits, leak_bits)]
    if run is not None:
        gone = {finding.path for finding in found if finding.moves}
        found += [finding for finding in _wrong_labels(folder, looked, run) if finding.path not in gone]
    found.sort(key=lambda finding: (not finding.moves, finding.code, finding.score or 0.0, finding.path))
    return CheckResult(root=Path(root), photos=len(looked), findings=tuple(found), share_lost=_shares(folder, found))


def apply(result: CheckResult, *, yes: bool = False) -> int:
    """Move what was found bad to quarantine. Returns how many photos were moved.

    Raises:
        DataError: more than MOST of a class would go, and `yes` is off. Nothing is moved then.
    """
    if result.too_much and not yes:
        lines = [f"    {label}: {share:.0%} of its photos" for label, share in result.too_much.items()]
        raise DataError(
            f"More than {MOST:.0%} of a class would go to quarantine; nothing was moved.\n" + "\n".join(lines) + "\n"
            f"  Look at {result.root / PAGE}. If it is right: `potstill check {result.root} --yes`."
        )
    quarantine = Quarantine(result.root)
    for finding in result.to_move:
        quarantine.put(finding.path, finding.code, detail=finding.detail, other=finding.other)
    return len(result.to_move)


def _split_and_label(folder: Folder, index: int) -> tuple[str, str]:
    file = folder.files[index]
    return file.split or "", folder.classes[file.label] if file.label >= 0 else ""


def _finding(folder: Folder, index: int, code: str, **more: Any) -> Finding:
    split, label = _split_and_label(folder, index)
    path = folder.files[index].path.relative_to(folder.root).as_posix()
    return Finding(path=path, split=split, label=label, code=code, **more)


def _own_faults(folder: Folder, looked: Sequence[Inspected]) -> Iterable[Finding]:
    for index, seen in enumerate(looked):
        if seen.fault:
            yield _finding(folder, index, seen.fault, detail=seen.detail)
        for note in seen.notes:
            yield _finding(folder, index, note)


def _copies(folder: Folder, looked: Sequence[Inspected], near_bits: int, leak_bits: int) -> Iterable[Finding]:
    photos = [
        Photo(index, *_split_and_label(folder, index), seen.sha256, seen.pixels, seen.marks)
        for index, seen in enumerate(looked)
        if seen.marks is not None
    ]
    for copy in find_copies(photos, near_bits=near_bits, leak_bits=leak_bits):
        other = folder.files[copy.of].path.relative_to(folder.root).as_posix()
        yield _finding(folder, copy.index, copy.code, other=other)


def _wrong_labels(folder: Folder, looked: Sequence[Inspected], run: Path) -> Iterable[Finding]:
    from potstill.data.label_errors import suspects

    by_hash = {seen.sha256: index for index, seen in enumerate(looked)}
    labels = {sha: folder.classes[folder.files[i].label] for sha, i in by_hash.items() if folder.files[i].label >= 0}
    for suspect in suspects(run, labels):
        yield _finding(
            folder,
            by_hash[suspect.sha256],
            "wrong_label",
            detail=f"looks like {suspect.likely}",
            score=suspect.probability,
        )


def _shares(folder: Folder, found: Iterable[Finding]) -> dict[str, float]:
    total = Counter(folder.classes[file.label] for file in folder.files if file.label >= 0)
    lost = Counter(finding.label for finding in {f.path: f for f in found if f.moves}.values())
    return {label: lost[label] / count for label, count in total.items() if lost[label]}
