"""Large files (lists of a million rows, archives) in a cache: downloads are resumed, and checked at the end.

An incomplete file is `NAME.part` with its ETag beside it; the next try asks only for the rest (`Range`, `If-Range`) and
begins again when the server has another version by then.
"""

import asyncio
import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from potstill.errors import SourceError, UnreachableError
from potstill.get.client import Client, FetchError
from potstill.monitoring.progress import Reporter
from potstill.run import files

MAX_BYTES = 20 * 2**30
"""Larger files are refused."""


async def fetch_file(client: Client, url: str, path: Path, reporter: Reporter, *, md5: str = "") -> dict[str, Any]:
    """Download `url` to `path` unless it is there already.

    Args:
        md5: hex, where it is known beforehand; otherwise the server's own `x-goog-hash` is used if it sends one.
    Returns:
        What is known of the file: url, etag, bytes, md5.
    Raises:
        SourceError: all tries failed, or gave other bytes than promised, or the file is above MAX_BYTES.
        UnreachableError: no try had any answer.
    """
    facts_path = path.with_name(path.name + ".json")
    if path.is_file() and facts_path.is_file():
        return dict(files.read_json(facts_path, files.REMOVE))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _Partial(path)
    reason, kind = "", SourceError
    for attempt in range(client.limits.tries):
        if attempt:
            await asyncio.sleep(min(client.limits.backoff_seconds * 2**attempt, client.limits.backoff_cap_seconds))
        try:
            async with client.open(url, partial.headers()) as response:
                promised, etag = md5 or _google_md5(response.headers), response.headers.get("ETag", "")
                await partial.receive(response, reporter)
            found = await partial.finish(promised)
        except FetchError as error:
            reason = f"{error.code}: {error.reason}"
            kind = UnreachableError if error.is_silent else SourceError
            if not error.again and error.code != "checksum":
                break
        else:
            facts = {"url": url, "etag": etag, "bytes": path.stat().st_size, "md5": found}
            files.write_json(facts_path, facts)
            return facts
    kept = "\n  The part received so far is kept; run the same command again." if partial.size() else ""
    raise kind(f"{url} cannot be downloaded: {reason}{kept}")


class _Partial:
    """A file that is not complete yet: `NAME.part`, and `NAME.etag` with the version that it is a part of."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part, self._tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".etag")

    def headers(self) -> dict[str, str]:
        """Asks for the rest of the same version, uncompressed: byte positions would be ambiguous otherwise."""
        headers = {"Accept-Encoding": "identity"}
        if have := self.size():
            headers |= {"Range": f"bytes={have}-", "If-Range": self._tag.read_text("utf-8")}
        return headers

    async def receive(self, response: aiohttp.ClientResponse, reporter: Reporter) -> None:
        """Append the body, or begin again where the server sends the whole file. Raises FetchError above MAX_BYTES."""
        have = self.size() if response.status == 206 else 0
        total = have + (response.content_length or 0)
        if total > MAX_BYTES:
            raise FetchError("too_large", f"{total:,} bytes announced, limit {MAX_BYTES:,}")
        files.check_space(self._path.parent, total - have, self._path.name)
        etag = response.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):  # a weak tag does not promise the same bytes
            files.write_text(self._tag, etag)
        else:
            self._tag.unlink(missing_ok=True)
        with (
            self._part.open("r+b" if have else "wb") as file,
            reporter.bar(self._path.name, total >> 20, unit="MiB") as update,
        ):
            file.seek(have)
            async for block in response.content.iter_chunked(2**20):
                have += len(block)
                if have > MAX_BYTES:
                    raise FetchError("too_large", f"more than {MAX_BYTES:,} bytes")
                file.write(block)
                update(have >> 20)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    async def finish(self, promised: str) -> str:
        """Move the complete file to its place. Returns its md5; raises FetchError, `checksum`, for another one."""
        found = await asyncio.to_thread(_md5_of, self._part)
        self._tag.unlink(missing_ok=True)
        if promised and found != promised:
            self._part.unlink()
            raise FetchError("checksum", f"md5 {found}, promised {promised}")
        self._part.replace(self._path)
        return found

    def size(self) -> int:
        return self._part.stat().st_size if self._part.is_file() and self._tag.is_file() else 0


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
