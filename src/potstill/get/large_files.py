"""Large files (lists of a million rows, archives) in a cache: fetched in one go or in many, checked at the end.

A file on its way is `NAME.part` with its ETag beside it; the next try asks only for the rest (`Range`, `If-Range`),
and begins anew when the server has another version by then.
"""

import asyncio
import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.errors import SourceError
from potstill.get.client import Client, FetchError
from potstill.monitoring.progress import Reporter
from potstill.run import files


async def fetch_file(
    client: Client, url: str, path: Path, reporter: Reporter, *, md5: str = "", max_bytes: int = 20 * 2**30
) -> dict[str, Any]:
    """Bring `url` to `path` unless it is there already.

    Args:
        md5: hex, where it is known beforehand; otherwise the server's own `x-goog-hash` is used if it sends one.
        max_bytes: refused above.
    Returns:
        What is known of the file: url, etag, bytes, md5.
    Raises:
        SourceError: the server does not give it, or other bytes than promised, three times.
    """
    meta = path.with_name(path.name + ".json")
    if path.is_file() and meta.is_file():
        return dict(files.read_json(meta))
    path.parent.mkdir(parents=True, exist_ok=True)
    reason = ""
    for attempt in range(client.limits.tries):
        if attempt:
            await asyncio.sleep(min(client.limits.backoff_seconds * 2**attempt, client.limits.backoff_cap_seconds))
        try:
            return await _fetch(client, url, path, meta, reporter, md5, max_bytes)
        except FetchError as error:
            reason = f"{error.code}: {error.reason}"
            if not error.again and error.code != "checksum":
                break
    raise SourceError(f"{url} cannot be fetched: {reason}\n  What came so far is kept; run the same command again.")


async def _fetch(
    client: Client, url: str, path: Path, meta: Path, reporter: Reporter, md5: str, max_bytes: int
) -> dict[str, Any]:
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".etag")
    have = part.stat().st_size if part.is_file() and tag.is_file() else 0
    headers = {"Range": f"bytes={have}-", "If-Range": tag.read_text("utf-8")} if have else {}
    # Packed transfer would make byte positions ambiguous.
    async with client.open(url, {"Accept-Encoding": "identity", **headers}) as response:
        if response.status != 206:
            have = 0
        etag = response.headers.get("ETag", "")
        total = have + (response.content_length or 0)
        if total > max_bytes:
            raise FetchError("too_large", f"{total:,} bytes announced, limit {max_bytes:,}")
        files.check_space(path.parent, total - have, path.name)
        promised = md5 or _google_md5(response.headers)
        if etag and not etag.startswith("W/"):  # a weak tag cannot vouch for byte ranges
            files.write_text(tag, etag)
        else:
            tag.unlink(missing_ok=True)
        with part.open("r+b" if have else "wb") as file, reporter.bar(path.name, total >> 20, unit="MiB") as update:
            file.seek(have)
            async for block in response.content.iter_chunked(2**20):
                have += len(block)
                if have > max_bytes:
                    raise FetchError("too_large", f"more than {max_bytes:,} bytes")
                file.write(block)
                update(have >> 20)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    found = await asyncio.to_thread(_md5_of, part)
    tag.unlink(missing_ok=True)
    if promised and found != promised:
        part.unlink()
        raise FetchError("checksum", f"md5 {found}, promised {promised}")
    facts = {"url": url, "etag": etag, "bytes": have, "md5": found}
    part.replace(path)
    files.write_json(meta, facts)
    return facts


def _google_md5(headers: Mapping[str, str]) -> str:
    """Hex md5 from `x-goog-hash: crc32c=…,md5=BASE64`, sent as one header or as two."""
    getall = getattr(headers, "getall", None)
    lines = getall("x-goog-hash", []) if getall else [headers.get("x-goog-hash", "")]
    for item in ",".join(lines).split(","):
        name, _, value = item.strip().partition("=")
        if name == "md5":
            return base64.b64decode(value).hex()
    return ""


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
