"""Stage 1: list, decode, check, split and pack the photos of a folder into `1_images/`.

What is left out is what `potstill check` would move to quarantine, found by the same functions.
"""

import csv
import hashlib
import io
import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from potstill.config.schema import ImagesConfig
from potstill.context import Context
from potstill.data.pixels import PHOTO, PixelStore, encode
from potstill.data.resize import bicubic
from potstill.data.splits import SPLITS, Split, in_share
from potstill.errors import DataError
from potstill.images.copies import NEAR_BITS, Photo, find_copies
from potstill.images.decode import BadPhotoError, Resize, decode, read_bytes
from potstill.images.duplicates import THUMB, Fingerprint, fingerprint
from potstill.images.folder import Folder, PhotoFile, plain_name
from potstill.images.looks import require_usable
from potstill.images.plan import ImagesPlan
from potstill.images.reasons import action
from potstill.monitoring.progress import Reporter
from potstill.processes.cores import available_cores
from potstill.processes.pools import process_pool
from potstill.run.files import check_space, replacing, write_bytes, write_text

_TOGETHER = 8
"""Photos decoded in one go: handing each over alone costs a third of the decoding of a small one."""
_AHEAD = 8
"""Such goes ahead of the writer: enough to keep the threads busy, little enough to keep memory flat."""
PROCESSES_FROM = 10_000
"""Photos that are decoded by processes instead of threads, where there are more than two cores."""

_JOURNAL_EVERY = 256


@dataclass(frozen=True, slots=True)
class Packed:
    """One line of the packing journal: a photo that was written, or a file that was rejected."""

    path: str
    split: str | None
    label: int
    code: str = ""
    reason: str = ""
    sha256: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    stored_width: int = 0
    stored_height: int = 0
    offset: int = 0
    bytes: int = 0
    jpeg: bool = False
    hash: int = 0
    mirrored: int = 0
    thumb: str = ""


def collect_images(plan: ImagesPlan, context: Context, *, resize: Resize = bicubic) -> PixelStore:
    """Pack the photos of a folder for training. Writes `1_images/`.

    Args:
        resize: how photos are shrunk to what is packed.
    Raises:
        DataError: nothing is left of a class after checking.
        SpaceError: the packed photos would not fit on the disk.
    """
    folder, config, run = plan.folder, plan.config, context.run
    short_side = plan.short_side
    stage = run.stage("1_images")
    if stage.is_done:  # photos that are packed larger than needed serve as well
        short_side = max(short_side, int(stage.facts()["inputs"].get("short_side", 0)))
    inputs = {"photos": _listing(folder), "short_side": short_side, "settings": _settings(config)}
    todo = stage.begin(inputs)
    _keep_attribution(folder.root, run.images)
    if not todo:
        return PixelStore(run.images)
    jpeg = estimated_bytes(len(folder.files), short_side) > config.max_gb * 1e9
    check_space(run.images, estimated_bytes(len(folder.files), short_side, jpeg=jpeg), "Packing the photos")
    entries = _pack(folder, _Form(short_side, config.min_side, jpeg, resize), run.images, context.reporter)
    kept, rejected = _choose(entries, folder, config)
    _require_every_class(kept, folder, rejected)
    _write_tables(kept, rejected, folder, run.images)
    store = PixelStore(run.images)
    counts = {split: len(store.rows(split)) for split in SPLITS}
    (run.images / "pack.jsonl").unlink()
    stage.finish(counts=counts, rejected=len(rejected), bytes=(run.images / "pixels.bin").stat().st_size, jpeg=jpeg)
    by_split = ", ".join(f"{n:,} {split}" for split, n in counts.items() if n)
    context.reporter.info("Photos: " + by_split + _rejections(rejected))
    return store


def _keep_attribution(data: Path, target: Path) -> None:
    """Whose photos these are goes with them: a run, and the report made from it, are passed on without the folder."""
    for name in ("ATTRIBUTION.csv", "ATTRIBUTION.txt"):
        if (data / name).is_file():
            write_bytes(target / name, (data / name).read_bytes())


def estimated_bytes(photos: int, short_side: int, *, jpeg: bool = False) -> float:
    """Expected size of the store, for photos with sides 4 : 3."""
    return photos * short_side**2 * (4 / 3) * (0.6 if jpeg else 3)


def _settings(config: ImagesConfig) -> dict[str, Any]:
    """The settings that the stage's result depends on; where and how it is stored does not matter."""
    return {k: v for k, v in asdict(config).items() if k not in ("margin", "max_gb")}


def _listing(folder: Folder) -> dict[str, Any]:
    """What the folder holds, by name, size and time: enough to notice a change without reading every photo."""
    digest = hashlib.sha256()
    for file in folder.files:
        status = file.path.stat()
        name = os.fsencode(file.path.relative_to(folder.root))
        digest.update(name + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return {"count": len(folder.files), "listing_sha256": digest.hexdigest(), "classes": list(folder.classes)}


@dataclass(frozen=True, slots=True)
class _Form:
    """How photos are packed."""

    short_side: int
    min_side: int
    jpeg: bool
    resize: Resize


def _pack(folder: Folder, form: _Form, target: Path, reporter: Reporter) -> list[Packed]:
    """Decode every file into pixels.bin, in order; go on after the last journalled photo of an interrupted attempt."""
    journal = target / "pack.jsonl"
    entries = _read_journal(journal)
    end = max((e.offset + e.bytes for e in entries), default=0)
    pixels_path = target / "pixels.bin"
    with pixels_path.open("r+b" if pixels_path.exists() else "w+b") as pixels, journal.open("a") as lines:
        pixels.truncate(end)
        pixels.seek(end)
        waiting: list[Packed] = []

        def flush() -> None:
            pixels.flush()
            os.fsync(pixels.fileno())
            # Not asdict: it copies the values, which takes longer than writing them.
            lines.writelines(json.dumps({name: getattr(e, name) for name in Packed.__slots__}) + "\n" for e in waiting)
            lines.flush()
            waiting.clear()

        with reporter.bar("Decoding photos", len(folder.files), unit="photos") as update:
            todo = folder.files[len(entries) :]
            for entry, data in _decoded(todo, folder.root, form):
                entry = replace(entry, offset=end)
                pixels.write(data)
                end += len(data)
                entries.append(entry)
                waiting.append(entry)
                if len(waiting) == _JOURNAL_EVERY:
                    flush()
                update(len(entries))
            flush()
    return entries


def _read_journal(path: Path) -> list[Packed]:
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    whole = lines[:-1]  # what follows the last line break was cut off
    write_bytes(path, b"".join(line + b"\n" for line in whole))
    return [Packed(**json.loads(line)) for line in whole]


def _decoded(files: Sequence[PhotoFile], root: Path, form: _Form) -> Iterator[tuple[Packed, bytes]]:
    """Decode on all cores, results in order."""
    # What threads share, the interpreter, is what small photos wait for. Processes take seconds to start, and handing
    # over the pixels costs what a second one gains.
    cores = available_cores()
    many = len(files) >= PROCESSES_FROM and cores > 2
    with process_pool() if many else ThreadPoolExecutor(cores) as pool:
        ahead: deque[Future[list[tuple[Packed, bytes]]]] = deque()
        most = max(_AHEAD, 2 * cores)
        for start in range(0, len(files), _TOGETHER):
            ahead.append(pool.submit(_decode_some, files[start : start + _TOGETHER], root, form))
            if len(ahead) >= most:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _decode_some(files: Sequence[PhotoFile], root: Path, form: _Form) -> list[tuple[Packed, bytes]]:
    return [_decode_one(file, root, form) for file in files]


def _decode_one(file: PhotoFile, root: Path, form: _Form) -> tuple[Packed, bytes]:
    entry = Packed(plain_name(file.path.relative_to(root)), file.split, file.label)
    try:
        raw = read_bytes(file.path)
        entry = replace(entry, sha256=hashlib.sha256(raw).hexdigest())
        photo = decode(raw, short_side=form.short_side, min_side=form.min_side, resize=form.resize)
        require_usable(raw, photo)
    except BadPhotoError as error:
        return replace(entry, code=error.code, reason=error.reason), b""
    data = encode(photo.image, jpeg=form.jpeg)
    prints = fingerprint(photo.image)
    return (
        replace(
            entry,
            format=photo.format,
            mode=photo.mode,
            width=photo.width,
            height=photo.height,
            stored_width=photo.image.width,
            stored_height=photo.image.height,
            bytes=len(data),
            jpeg=form.jpeg,
            hash=prints.hash,
            mirrored=prints.mirrored,
            thumb=prints.thumb.tobytes().hex(),
        ),
        data,
    )


def _choose(entries: list[Packed], folder: Folder, config: ImagesConfig) -> tuple[list[Packed], list[Packed]]:
    """Give every photo its split and leave out copies. Test photos win over val, val over train."""
    rejected = [entry for entry in entries if entry.code]
    has_val = any(file.split == "val" for file in folder.files)
    good = [replace(e, split=_split_of(e, has_val, config)) for e in entries if not e.code]
    order = {"test": 0, "val": 1, "train": 2, "unlabeled": 3}
    good.sort(key=lambda e: (order[e.split or "train"], e.sha256, e.path))
    good, copies = _without_copies(good, folder, config.duplicate_bits)
    good, over = _limited(good, config)
    return good, rejected + copies + over


def _split_of(entry: Packed, has_val: bool, config: ImagesConfig) -> str:
    seed = config.split_seed
    if entry.split is None and in_share(entry.sha256, config.test_share, seed=seed, purpose="test"):
        return "test"
    if entry.split in (None, "train") and not has_val:
        return "val" if in_share(entry.sha256, config.val_share, seed=seed, purpose="val") else "train"
    return entry.split or "train"


def _without_copies(photos: list[Packed], folder: Folder, leak_bits: int) -> tuple[list[Packed], list[Packed]]:
    """Leave out what `check` would: copies of another photo, and pictures in two classes, whose label nobody knows."""
    names = [*folder.classes, ""]  # label -1 is the empty name
    seen = [
        Photo(i, p.split or "train", names[p.label], p.sha256, p.width * p.height, _marks(p))
        for i, p in enumerate(photos)
    ]
    copies = find_copies(seen, near_bits=min(NEAR_BITS, leak_bits), leak_bits=leak_bits)
    gone = {copy.index: copy for copy in copies if action(copy.code) != "note"}
    rejected = [
        replace(photos[i], code=copy.code, reason=_reason(copy.code, photos[copy.of], names))
        for i, copy in sorted(gone.items())
    ]
    return [photo for i, photo in enumerate(photos) if i not in gone], rejected


def _reason(code: str, other: Packed, names: list[str]) -> str:
    if code == "two_classes":
        return f"the same picture is in the class {names[other.label]}: {other.path}"
    if code == "identical":
        return f"same bytes as {other.path}"
    where = f"the {other.split} photo " if code == "in_test" else ""
    return f"shows the same picture as {where}{other.path}"


def _marks(photo: Packed) -> Fingerprint:
    thumb = np.frombuffer(bytes.fromhex(photo.thumb), np.uint8).reshape(THUMB, THUMB)
    return Fingerprint(photo.hash, photo.mirrored, thumb)


def _limited(photos: list[Packed], config: ImagesConfig) -> tuple[list[Packed], list[Packed]]:
    """Keep the labels of the first `per_class` training photos of each class; photos are in the order of their hash."""
    if not config.per_class:
        return photos, []
    seen: Counter[int] = Counter()
    kept, over = [], []
    for photo in photos:
        seen[photo.label] += photo.split == "train"
        if photo.split != "train" or seen[photo.label] <= config.per_class:
            kept.append(photo)
        elif config.rest == "unlabeled":
            kept.append(replace(photo, split="unlabeled", label=-1))
        else:
            over.append(replace(photo, code="over_limit", reason=f"images.per_class = {config.per_class}"))
    return kept, over


def _require_every_class(kept: list[Packed], folder: Folder, rejected: list[Packed]) -> None:
    for split, needed in (("train", 2), ("val", 1), ("test", 1)):
        for label, name in enumerate(folder.classes):
            count = sum(photo.split == split and photo.label == label for photo in kept)
            if count < needed:
                lost = [p for p in rejected if p.label == label]
                example = f" {len(lost)} files were rejected, such as {lost[0].path}: {lost[0].reason}." if lost else ""
                raise DataError(
                    f"The class {name!r} has {count} usable photos for {split}; at least {needed} are needed.{example}"
                    f"\n  Add photos of {name!r} to {folder.root}, or leave the class out with --images.classes."
                )


def _write_tables(kept: list[Packed], rejected: list[Packed], folder: Folder, target: Path) -> None:
    split_number = {split: number for number, split in enumerate(SPLITS)}
    kept.sort(key=lambda photo: (split_number[_known(photo)], photo.sha256))
    index = np.zeros(len(kept), PHOTO)
    for row, photo in enumerate(kept):
        index[row] = (
            photo.offset,
            photo.bytes,
            photo.stored_height,
            photo.stored_width,
            photo.jpeg,
            split_number[_known(photo)],
            photo.label,
            int(photo.sha256[:16], 16),
        )
    with replacing(target / "index.npy") as temporary, temporary.open("wb") as file:
        np.save(file, index, allow_pickle=False)
    names = [*folder.classes, ""]  # label -1 is the empty name
    columns = ["row", "path", "split", "class", "sha256", "width", "height", "format", "mode"]
    rows: list[list[Any]] = [
        [row, p.path, p.split, names[p.label], p.sha256, p.width, p.height, p.format, p.mode]
        for row, p in enumerate(kept)
    ]
    write_text(target / "images.csv", _csv(columns, rows))
    lost: list[list[Any]] = [[p.path, p.split or "", names[p.label], p.code, p.reason] for p in rejected]
    write_text(target / "rejected.csv", _csv(["path", "split", "class", "code", "reason"], lost))
    write_text(target / "classes.txt", "".join(f"{name}\n" for name in folder.classes))


def _known(photo: Packed) -> Split:
    assert photo.split in SPLITS
    return photo.split


def _csv(columns: list[str], rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def _rejections(rejected: list[Packed]) -> str:
    if not rejected:
        return ""
    codes = sorted({p.code for p in rejected})
    counts = ", ".join(f"{sum(p.code == code for p in rejected)} {code}" for code in codes)
    return f"; {len(rejected)} left out ({counts}), reasons in 1_images/rejected.csv"
