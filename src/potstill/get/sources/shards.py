"""Tar shards as webdataset and img2dataset write them: files with one stem are one sample.

The key is the path up to the first dot of its last part. The label comes from `.cls`, or from "label" in `.json`.
Nothing is unpacked, no shell is started, no pickle is read: only photos, class names and JSON.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from potstill.errors import SourceError
from potstill.get.licenses import license_id
from potstill.get.sources import LOCAL_PREFIX, Candidate
from potstill.get.tars import Member, members

PHOTOS = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "ppm"}

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_TEXT_BYTES = 2**20


def expand(what: str) -> list[Path]:
    """The tars that a path means: one tar, a folder of tars, or `{000..012}`. Empty where it means none."""
    if found := _RANGE.search(what):
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        paths = [Path(what[: found.start()] + str(n).zfill(len(first)) + what[found.end() :]) for n in numbers]
        if missing := [path for path in paths if not path.is_file()]:
            raise SourceError(f"{missing[0]} is missing ({len(missing)} of {len(paths)} shards are missing).")
        return paths
    path = Path(what)
    if path.is_dir() and not any(entry.is_dir() for entry in path.iterdir()):
        return sorted(path.glob("*.tar"))
    return [path] if path.suffix == ".tar" and path.is_file() else []


def shard_candidates(shards: Sequence[Path]) -> Iterator[Candidate]:
    """Every sample that has a photo and a label."""
    for shard in shards:
        for key, parts in _samples(shard):
            photo = next((member for name, member in parts.items() if name.split(".")[-1] in PHOTOS), None)
            facts = _facts(parts)
            if photo is None or not facts.get("label"):
                continue
            split = str(facts.get("split", "")).lower()
            yield Candidate(
                key=f"{LOCAL_PREFIX}-{hashlib.sha256(f'{shard.name}/{key}'.encode()).hexdigest()[:16]}",
                label=str(facts["label"]),
                group=str(facts.get("group") or f"{shard.name}/{key}"),
                read=photo.read,
                license=license_id(str(facts.get("license") or "")),
                author=str(facts.get("author") or ""),
                title=str(facts.get("title") or ""),
                landing_url=str(facts.get("url") or ""),
                split=split if split in ("train", "test") else "",
                more={"shard": shard.name, "sample": key},
            )


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Neighbors with one key; `parts` by extension, in lower case."""
    current, parts = "", dict[str, Member]()
    for member in members(shard):
        path = PurePosixPath(member.name)
        stem, _, extension = path.name.partition(".")
        key = str(path.with_name(stem or path.name))
        if key != current and parts:
            yield current, parts
            parts = {}
        current = key
        parts[extension.lower()] = member
    if parts:
        yield current, parts


def _facts(parts: dict[str, Member]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if "json" in parts:
        try:
            value = json.loads(parts["json"].read(0, _TEXT_BYTES))
        except (ValueError, RecursionError):
            value = {}
        facts |= value if isinstance(value, dict) else {}
    if "cls" in parts:
        facts["label"] = parts["cls"].read(0, 1000).decode("utf-8", "replace").strip()
    return facts
