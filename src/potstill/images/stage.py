"""Stage 1: list, decode, check, split and pack the photos of a folder into `1_images/`.

Photos are left out for the reasons for which `potstill check` would move them to quarantine, by the same functions.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from potstill.config.schema import LABEL_SETTINGS, ImagesConfig
from potstill.context import Context
from potstill.data.pixels import PixelStore
from potstill.data.resize import bicubic
from potstill.data.splits import SPLITS
from potstill.images.adding import add, added_lines, packed_photos
from potstill.images.decode import Resize, read_bytes
from potstill.images.depth import OWN, GrayLevels
from potstill.images.errors import BadPhotoError
from potstill.images.folder import Folder, PhotoFile
from potstill.images.known import known_photos
from potstill.images.levels import folder_levels
from potstill.images.pack import JOURNAL, Packed, PackFormat, begin_with, estimated_bytes, pack
from potstill.images.plan import ImagesPlan
from potstill.images.selection import require_every_class, select
from potstill.images.shards import SHARDS, way_to_decode
from potstill.images.tables import joined_attribution, packed_hashes, write_tables
from potstill.monitoring.progress import Reporter
from potstill.run.files import check_space, sha256_of, write_bytes, write_text
from potstill.run.folder import Stage
from potstill.run.integrity import require_whole
from potstill.wording import counted


def collect_images(plan: ImagesPlan, context: Context, *, resize: Resize = bicubic, worker: str = "") -> PixelStore:
    """Pack the photos of a folder for training. Writes `1_images/`.

    Args:
        resize: how photos are shrunk to what is packed.
        worker: the module that packs shards of them in the same way on the nodes of a cluster; "": there is none, and
            all are packed here.
    Raises:
        DataError: a class has too few usable photos.
        SpaceError: the packed photos would not fit on the disk.
    """
    folder, config, run = plan.folder, plan.config, context.run
    short_side = plan.short_side
    stage = run.stage("1_images")
    if stage.is_done:  # photos that are packed larger than needed serve as well
        short_side = max(short_side, int(stage.facts()["inputs"].get("short_side", 0)))
    inputs = {
        "photos": _listing(folder, stage, context.reporter),
        "short_side": short_side,
        "settings": _settings(config),
    }
    if folder.earlier:
        inputs |= {"earlier": folder.earlier.digest, "test_share": folder.earlier.test_share}
    todo = stage.begin(inputs)
    _copy_attribution(folder, run.images)
    if not todo:
        return PixelStore(run.images)
    jpeg = estimated_bytes(len(folder.files), short_side) > config.max_gb * 1e9
    check_space(run.images, plan.bytes(jpeg=jpeg), "Packing the photos")
    gray = _gray_levels(folder)
    if gray != OWN:
        context.reporter.info(f"Gray photos with more than 8 bits, from black to white: {gray}")
    old: list[Packed] = []
    if folder.earlier:
        require_whole(folder.earlier.images, large=True)
        old = packed_photos(folder.earlier)
        begin_with(old, folder.earlier.images / "pixels.bin", run.images)
    known = None if jpeg else known_photos(stage, short_side, config.min_side, gray)
    how = PackFormat(short_side, config.min_side, jpeg, resize, gray)
    decode = way_to_decode(folder, how, known, worker, context)
    entries = pack(folder, decode, run.images, context.reporter, first=len(old))
    if known and (found := sum(entry.sha256 in known.lines for entry in entries[len(old) :])):
        context.reporter.info(
            f"{counted(found, 'photo')} not decoded again: {known.store.folder.parent} has the pixels"
        )
    kept, rejected = add(old, entries[len(old) :], folder, config) if old else select(entries, folder, config)
    require_every_class(kept, folder, rejected)
    write_tables(kept, rejected, folder, run.images)
    store = PixelStore(run.images)
    counts = {split: len(store.rows(split)) for split in SPLITS}
    (run.images / JOURNAL).unlink()
    shutil.rmtree(run.images / SHARDS, ignore_errors=True)
    stage.finish(
        counts=counts,
        rejected=len(rejected),
        bytes=(run.images / "pixels.bin").stat().st_size,
        jpeg=jpeg,
        gray_levels=gray.as_dict(),
    )
    by_split = ", ".join(f"{n:,} {split}" for split, n in counts.items() if n)
    context.reporter.info("Photos: " + by_split + _rejections(rejected))
    for line in added_lines(rejected) if old else ():
        context.reporter.info(line)
    return store


def _gray_levels(folder: Folder) -> GrayLevels:
    """Those of the run that the photos are added to, whose photos and models have them already, or of the folder."""
    before = GrayLevels.of(folder.earlier.facts.get("gray_levels")) if folder.earlier else OWN
    return before if before != OWN else folder_levels(file.source for file in folder.files)


def _copy_attribution(folder: Folder, target: Path) -> None:
    """Keep the authors and licenses beside the packed photos: runs and reports are passed on without the folder."""
    places = [folder.earlier.images, folder.root] if folder.earlier else [folder.root]
    for name in ("ATTRIBUTION.csv", "ATTRIBUTION.txt"):
        found = [place / name for place in places if (place / name).is_file()]
        if len(found) == 1 and found[0].parent == places[0]:
            write_bytes(target / name, found[0].read_bytes())
        elif found and name.endswith(".csv"):
            write_text(target / name, joined_attribution(found, folder))
        elif found:
            write_text(target / name, "\n".join(path.read_text("utf-8", errors="replace") for path in found))


def _settings(config: ImagesConfig) -> dict[str, Any]:
    """The settings that the stage's result depends on; where and how it is stored does not matter."""
    elsewhere = {"margin", "max_gb", *LABEL_SETTINGS}  # what these lead to is part of the listing
    return {k: v for k, v in asdict(config).items() if k not in elsewhere}


def _listing(folder: Folder, stage: Stage, reporter: Reporter) -> dict[str, Any]:
    """What the folder holds, by name, size and time: enough to notice a change without reading every photo.

    Copying or touching photos changes their times only. So where a finished stage has another listing, the contents
    decide.
    """
    digest = hashlib.sha256()
    for file in folder.files:
        name = os.fsencode(file.path.relative_to(folder.root))
        if file.inside:
            size, time, place = file.inside.container.size, file.inside.container.mtime_ns, f"\0{file.inside.place}"
        else:
            status = file.path.stat()
            size, time, place = status.st_size, status.st_mtime_ns, ""
        digest.update(name + f"\0{size}\0{time}{place}\n".encode())
    found = {"count": len(folder.files), "listing_sha256": digest.hexdigest(), "classes": list(folder.classes)}
    if folder.from_table or any(file.group for file in folder.files):
        facts = [[file.split, file.label, file.group, *file.labels] for file in folder.files]  # which no path shows
        found["labels_sha256"] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    if folder.several_labels:
        found["labels_per_photo"] = "several"
    if stage.is_done:
        before: dict[str, Any] = stage.facts()["inputs"]["photos"]
        same_names = {**before, "listing_sha256": found["listing_sha256"]} == found
        if before != found and same_names and _same_contents(folder, stage.path, reporter):
            return before
    return found


def _same_contents(folder: Folder, packed: Path, reporter: Reporter) -> bool:
    """Whether the files are byte for byte those that were packed or rejected."""
    known = packed_hashes(packed)
    names = [folder.listed(file) for file in folder.files]
    if not (set(names) <= known.keys() if folder.earlier else set(names) == known.keys()):
        return False
    with reporter.bar("Comparing photos whose times have changed", len(names), unit="photo") as update:
        for number, (name, file) in enumerate(zip(names, folder.files, strict=True), 1):
            # Without a hash, the file could not be read then: it may be another one now.
            if not known[name] or known[name] != _sha256(file):
                return False
            update(number)
    return True


def _sha256(file: PhotoFile) -> str:
    """Of the photo; "" where it cannot be read."""
    if file.inside is None:
        return sha256_of(file.path)
    try:
        return hashlib.sha256(read_bytes(file.inside)).hexdigest()
    except BadPhotoError:
        return ""


def _rejections(rejected: list[Packed]) -> str:
    if not rejected:
        return ""
    codes = sorted({p.code for p in rejected})
    counts = ", ".join(f"{sum(p.code == code for p in rejected)} {code.replace('_', ' ')}" for code in codes)
    return f"; {len(rejected)} left out ({counts}), reasons in 1_images/rejected.csv"
