"""What the provenance records of a candidate, of a photo in place and of one that was removed again."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from potstill.get.client import Fetched
from potstill.get.ledger import Row, Verdict
from potstill.get.sources import Candidate
from potstill.get.streams import Side, Stream
from potstill.get.verify import Photo

_PHOTO_FACTS = [field.name for field in fields(Photo) if field.name != "extension"]


def candidate_facts(stream: Stream, side: Side, order: int, candidate: Candidate) -> dict[str, Any]:
    """Where a candidate is from, whose it is, and what it is taken for."""
    names = ("group", "url", "license", "license_url", "author", "title", "landing_url")
    return {
        "label": side.label,
        "split": side.split,
        "source": stream.source.name,
        "concept": stream.concept.id,
        "order": order,
        **{name: value for name in names if (value := getattr(candidate, name))},
        **candidate.more,
    }


def photo_facts(photo: Photo, fetched: Fetched) -> dict[str, Any]:
    """What is known of a photo that was fetched and verified."""
    facts: dict[str, Any] = {name: getattr(photo, name) for name in _PHOTO_FACTS}
    facts["phash"], facts["phash_mirrored"] = f"{photo.phash:016x}", f"{photo.phash_mirrored:016x}"
    if fetched.status:
        facts |= {"http_status": fetched.status, "attempts": fetched.attempts}
        if fetched.redirected:
            facts["final_url"] = fetched.url
        if etag := fetched.headers.get("ETag"):
            facts["etag"] = etag
    return facts


def row_of(entry: Mapping[str, Any]) -> Row:
    """The row of the ledger from a line of the provenance."""
    return Row(
        key=entry["key"],
        label=entry["label"],
        split=entry["split"],
        order=entry["order"],
        url=entry.get("url", ""),
        path=entry["path"],
        sha256=entry["sha256"],
        phash=int(entry["phash"], 16),
        phash_mirrored=int(entry["phash_mirrored"], 16),
    )


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """Of a photo that does not stay."""
    row = verdict.row
    return {
        "label": row.label,
        "split": row.split,
        "order": row.order,
        "url": row.url,
        "path": row.path,
        "sha256": row.sha256,
        "phash": f"{row.phash:016x}",
        "phash_mirrored": f"{row.phash_mirrored:016x}",
        "reason": verdict.reason,
    }
