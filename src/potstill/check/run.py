"""`potstill check`: finds photos that would do harm, and moves them to quarantine; none is deleted.

Inspect every file, compare all with all, decide which copies stay, ask before moving many, move them, show them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.check.inspect import Inspected, inspect_all
from potstill.check.quarantine import Quarantine
from potstill.config.schema import ImagesConfig
from potstill.data.label_errors import suspects
from potstill.errors import DataError
from potstill.images.copies import LEAK_BITS, NEAR_BITS, Photo, find_copies
from potstill.images.folder import Folder, label_text, labels_of, plain_name
from potstill.images.ignored import CHECK_REPORTS
from potstill.images.reasons import action
from potstill.images.source import find_source, read_source
from potstill.monitoring.progress import Reporter
from potstill.storage.addresses import refuse_storage

PAGE, REPORT = CHECK_REPORTS
MAX_SHARE = 0.2
"""Above this share of a class, nothing is moved without a yes: a fault of the machine can make all photos look bad."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was found about one photo."""

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
    """By class, the share of its photos that would be moved."""

    @property
    def to_move(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.moves]

    @property
    def too_much(self) -> dict[str, float]:
        """Classes that would lose more than MAX_SHARE."""
        return {label: share for label, share in self.share_lost.items() if share > MAX_SHARE}

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
    run: Path | None = None,
    images: ImagesConfig | None = None,
) -> CheckResult:
    """Find everything, move nothing.

    Args:
        root: a photo folder, see `read_folder`.
        min_side: in pixels.
        near_bits: within a split, pictures are copies when their hashes differ by at most this many bits and their
            thumbnails agree; between splits LEAK_BITS are allowed. -1 only finds identical files.
        images: where labels come from.
        run: a finished run on these photos; its teacher's out-of-fold outputs show likely wrong labels.
    Raises:
        DataError: the folder cannot be used, or the run has no such outputs.
    """
    refuse_storage(root, "`potstill check`, which moves photos,")
    if Path(root).is_file():
        raise DataError(
            f"`potstill check` moves photos of a folder, and {root} is a file. Unpack an archive first; for a table: "
            "`potstill check FOLDER --labels TABLE`."
        )
    source = find_source(root, images or ImagesConfig())
    if source.containers:
        raise DataError(f"`potstill check` moves photos of a folder, and those of {root} are in large files.")
    folder = read_source(source, images or ImagesConfig())
    if folder.several_labels and run is not None:
        raise DataError("--run finds likely wrong labels of photos with one label each; these may have several.")
    photos = _inspect(folder, min_side, reporter)
    found = [*_own_faults(folder, photos), *_copies(folder, photos, near_bits)]
    if run is not None:
        moved = {finding.path for finding in found if finding.moves}
        found += [finding for finding in _wrong_labels(folder, photos, run) if finding.path not in moved]
    found.sort(key=lambda finding: (not finding.moves, finding.code, finding.score or 0.0, finding.path))
    return CheckResult(root=Path(root), photos=len(photos), findings=tuple(found), share_lost=_shares(folder, found))


def _inspect(folder: Folder, min_side: int, reporter: Reporter) -> list[Inspected]:
    """Every file of the folder, in its order."""
    inspected = []
    with reporter.bar("Checking photos", len(folder.files), unit="photo") as update:
        for photo in inspect_all([file.path for file in folder.files], min_side=min_side):
            inspected.append(photo)
            update(len(inspected))
    return inspected


def apply(result: CheckResult, *, yes: bool = False) -> int:
    """Move what was found bad to quarantine. Returns how many photos were moved.

    Raises:
        DataError: more than MAX_SHARE of a class would be moved, and `yes` is off. Nothing is moved then.
    """
    if result.too_much and not yes:
        lines = [f"    {label}: {share:.0%} of its photos" for label, share in result.too_much.items()]
        raise DataError(
            f"More than {MAX_SHARE:.0%} of a class would go to quarantine; nothing was moved.\n"
            + "\n".join(lines)
            + "\n"
            f"  See {result.root / PAGE}. To move them anyway: `potstill check {result.root} --yes`."
        )
    quarantine = Quarantine(result.root)
    for finding in result.to_move:
        quarantine.put(finding.path, finding.code, detail=finding.detail, other=finding.other)
    return len(result.to_move)


def _split_and_label(folder: Folder, index: int) -> tuple[str, str]:
    file = folder.files[index]
    return file.split or "", label_text(file, folder.classes)


def _path(folder: Folder, index: int) -> str:
    """Of a photo, below the photo folder."""
    return folder.files[index].path.relative_to(folder.root).as_posix()


def _finding(folder: Folder, index: int, code: str, **more: Any) -> Finding:
    split, label = _split_and_label(folder, index)
    return Finding(path=_path(folder, index), split=split, label=label, code=code, **more)


def _own_faults(folder: Folder, inspected: Sequence[Inspected]) -> Iterable[Finding]:
    for index, photo in enumerate(inspected):
        if photo.fault:
            yield _finding(folder, index, photo.fault, detail=photo.detail)
        for note in photo.notes:
            yield _finding(folder, index, note)


def _copies(folder: Folder, inspected: Sequence[Inspected], near_bits: int) -> Iterable[Finding]:
    photos = [
        Photo(index, *_split_and_label(folder, index), photo.sha256, photo.pixels, photo.marks)
        for index, photo in enumerate(inspected)
        if photo.marks is not None
    ]
    leak_bits = LEAK_BITS if near_bits >= 0 else near_bits
    for copy in find_copies(photos, near_bits=near_bits, leak_bits=leak_bits):
        yield _finding(folder, copy.index, copy.code, other=_path(folder, copy.of))


def _wrong_labels(folder: Folder, inspected: Sequence[Inspected], run: Path) -> Iterable[Finding]:
    by_hash = {photo.sha256: index for index, photo in enumerate(inspected)}
    labels = {sha: folder.classes[folder.files[i].label] for sha, i in by_hash.items() if folder.files[i].label >= 0}
    for suspect in suspects(run, labels):
        yield _finding(
            folder,
            by_hash[suspect.sha256],
            "wrong_label",
            detail=f"probably {suspect.likely}",
            score=suspect.probability,
        )


def _shares(folder: Folder, found: Iterable[Finding]) -> dict[str, float]:
    """By class; a photo with several labels counts for each of them."""
    moved = {finding.path for finding in found if finding.moves}
    total = Counter[int]()
    for (_, label), photos in folder.counts().items():
        total[label] += photos
    gone = (file for index, file in enumerate(folder.files) if _path(folder, index) in moved)
    lost = Counter(label for file in gone for label in labels_of(file))
    return {name: lost[label] / total[label] for label, name in enumerate(folder.classes) if lost[label]}
