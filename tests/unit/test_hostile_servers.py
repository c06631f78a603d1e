"""One odd address or answer is the end of one photo, never of the download: every one of them is a FetchError."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from aiohttp import web
from tests.servers import hostile
from tests.servers.helpers import QUICK
from tests.servers.loopback import Server, serve
from tests.servers.pictures import jpeg

from potstill.get import provenance
from potstill.get.client import Client, FetchError, retry_after
from potstill.get.limits import Limits
from potstill.get.sources.url_lists import list_candidates
from potstill.images.reasons import REASONS

IMPATIENT = Limits(tries=1, connect_seconds=1, read_seconds=0.3, photo_seconds=0.5, max_bytes=2**20)


def outcome(url: str, server: Server, limits: Limits = QUICK) -> str:
    """The code of a photo's failure, or "sent"."""

    async def ask() -> str:
        async with Client(limits, allowed=[server.address]) as client:
            try:
                await client.photo(url)
            except FetchError as error:
                reasons.append(error.reason)
                return error.code
            return "sent"

    reasons: list[str] = []
    code = asyncio.run(ask())
    for reason in reasons:
        reason.encode()  # it is printed and written to files
        assert len(reason) <= 500
    return code


def answering(answer: hostile.Answer) -> web.Application:
    app = web.Application()

    async def send(request: web.Request) -> web.StreamResponse:
        return await answer(request, jpeg(1))

    app.router.add_get("/{path:.*}", send)
    return app


@pytest.mark.parametrize("name", sorted(hostile.ANSWERS))
def test_no_answer_ends_a_download(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "aiohttp.server")
    with serve(answering(hostile.ANSWERS[name])) as server:
        assert outcome(f"{server.url}/1.jpg", server, IMPATIENT) in {*REASONS, "sent"}


@pytest.mark.parametrize("name", sorted(set(hostile.URLS) - {kind for kind in hostile.URLS if "name of" in kind}))
def test_no_address_ends_a_download_whether_given_or_redirected_to(name: str) -> None:
    asked: list[str] = []

    async def redirect(request: web.Request, photo: bytes) -> web.StreamResponse:
        asked.append(request.path)
        if request.path != "/redirect":
            return web.Response(body=photo)
        line = f"HTTP/1.1 302 Found\r\nLocation: {hostile.url_of(name, 7, request.host)}\r\nContent-Length: 0\r\n\r\n"
        assert request.transport is not None
        request.transport.write(line.encode("utf-8", "replace"))
        request.transport.close()
        return web.Response()

    with serve(answering(redirect)) as server:
        for url in (hostile.url_of(name, 7, server.address), f"{server.url}/redirect"):
            assert outcome(url, server, IMPATIENT) in {*REASONS, "sent"}
    assert "/private" not in asked


@pytest.mark.parametrize("text", hostile.WAITS.values(), ids=list(hostile.WAITS))
def test_any_retry_after_is_a_wait_or_none(text: str) -> None:
    found = retry_after({"Retry-After": text})
    assert found is None or found >= 0


def test_half_a_letter_in_a_list_or_a_header_is_replaced(tmp_path: Path) -> None:
    """JSON and headers can hold what UTF-8 cannot; everything of it is written to files."""
    row = {"url": "http://x/\ud800.jpg", "label": "cat", "author": "J\udcff", "title": "\ud83d"}
    (tmp_path / "list.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    (candidate,) = list_candidates(tmp_path / "list.jsonl")
    assert (candidate.url, candidate.author, candidate.title) == ("http://x/?.jpg", "J?", "?")
    with provenance.Writer(tmp_path) as writer:
        writer.write("a", "ok", label="cat", path="train/cat/a.jpg", etag="\udcff", author="J\ud800", url="http://x/")
    assert [entry["etag"] for entry in provenance.latest(tmp_path)] == ["?"]
    assert "J?" in provenance.write_attribution(tmp_path).read_text("utf-8")
