"""The client: waiting as servers ask, parking, limits per host, licenses, provenance files."""

import asyncio
import datetime
import email.utils
import time
from pathlib import Path

import pytest
from aiohttp import web
from tests.servers.helpers import QUICK
from tests.servers.loopback import serve

from potstill.errors import DataError, SourceError
from potstill.get import provenance
from potstill.get.client import Client, FetchError, retry_after
from potstill.get.hosts import Host
from potstill.get.licenses import family, is_allowed, license_id
from potstill.get.limits import HostRule, Limits, rule_for


def test_retry_after_in_both_forms() -> None:
    assert retry_after({"Retry-After": "7"}) == 7
    later = email.utils.format_datetime(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90), usegmt=True
    )
    assert 85 < (retry_after({"Retry-After": later}) or 0) <= 90
    assert retry_after({"Retry-After": "soon"}) is None
    assert retry_after({}) is None


def test_a_server_that_asks_for_an_hour_is_parked() -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    app = web.Application()
    app.router.add_get("/{name}", busy)

    async def ask(url: str, address: str) -> list[str]:
        codes = []
        async with Client(QUICK, allowed=[address]) as client:
            for name in "ab":
                try:
                    await client.photo(f"{url}/{name}")
                except FetchError as error:
                    codes.append(error.code)
            assert list(client.hosts.parked()) == [address]
        return codes

    with serve(app) as server:
        assert asyncio.run(ask(server.url, server.address)) == ["parked", "parked"]
        assert len(server.log) == 1


def test_a_dead_server_is_left_alone() -> None:
    async def ask() -> list[str]:
        codes = []
        limits = Limits(tries=2, backoff_seconds=0.001, failures_to_park=3)
        async with Client(limits, allowed=["127.0.0.1:1"]) as client:
            for _ in range(5):
                with pytest.raises(FetchError) as caught:
                    await client.photo("http://127.0.0.1:1/a.jpg")
                codes.append(caught.value.code)
        return codes

    assert asyncio.run(ask()) == ["connection"] * 3 + ["parked"] * 2


def test_never_more_at_once_than_allowed() -> None:
    running = most = 0

    async def slow(request: web.Request) -> web.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return web.Response(body=b"x")

    app = web.Application()
    app.router.add_get("/{name}", slow)

    async def ask(url: str, address: str) -> None:
        async with Client(Limits(per_host=3), allowed=[address]) as client:
            await asyncio.gather(*(client.photo(f"{url}/{n}") for n in range(20)))

    with serve(app) as server:
        asyncio.run(ask(server.url, server.address))
    assert most == 3


def test_the_spacing_and_the_pace_of_a_host() -> None:
    async def visit() -> float:
        host = Host("h:1", HostRule(concurrency=4, interval_seconds=0.05, bytes_per_second=1e6), Limits())

        async def once() -> None:
            async with host.turn():
                await host.pace(100_000)

        started = time.monotonic()
        await asyncio.gather(*(once() for _ in range(5)))
        return time.monotonic() - started

    assert 0.24 <= asyncio.run(visit()) < 1.0


def test_hosts_find_their_rule_by_the_end_of_their_name() -> None:
    limits = Limits(per_host=5)
    assert rule_for("upload.wikimedia.org", limits).concurrency == 2
    assert rule_for("inaturalist-open-data.s3.amazonaws.com", limits).concurrency == 16
    assert rule_for("farm1.staticflickr.com", limits).concurrency == 8
    assert rule_for("notstaticflickr.com", limits).concurrency == 5


def test_json_errors_quote_the_server() -> None:
    async def api(request: web.Request) -> web.Response:
        return {
            "/html": web.Response(text="<html>"),
            "/error": web.json_response({"error": {"code": "badvalue", "info": "no such thing"}}),
            "/gone": web.Response(status=404),
        }[request.path]

    app = web.Application()
    app.router.add_get("/{name}", api)

    async def ask(url: str, address: str) -> None:
        async with Client(QUICK, allowed=[address]) as client:
            await client.json(url)

    with serve(app) as server:
        for path, message in (("/html", "other than JSON"), ("/error", "no such thing"), ("/gone", "404")):
            with pytest.raises(SourceError, match=message):
                asyncio.run(ask(server.url + path, server.address))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://creativecommons.org/licenses/by/2.0/", "CC-BY-2.0"),
        ("http://creativecommons.org/licenses/by-nc-sa/3.0/deed.en", "CC-BY-NC-SA-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "PD"),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0"),
        ("cc-by-sa-3.0-migrated", "CC-BY-SA-3.0"),
        ("cc-by-nc", "CC-BY-NC"),
        ("cc0", "CC0"),
        ("cc-zero", "CC0"),
        ("Public domain", "PD"),
        ("pd-old-100", "PD"),
        ("CC BY-ND 4.0", "CC-BY-ND-4.0"),
        ("GFDL", ""),
        ("fair use", ""),
        ("all rights reserved", ""),
        ("", ""),
    ],
)
def test_licenses_in_their_many_spellings(text: str, expected: str) -> None:
    assert license_id(text) == expected


def test_the_default_filter() -> None:
    from potstill.get.licenses import OPEN

    assert [is_allowed(license, OPEN) for license in ("CC-BY-4.0", "CC0", "PD", "CC-BY-SA-3.0")] == [True] * 4
    assert [is_allowed(license, OPEN) for license in ("CC-BY-NC-4.0", "CC-BY-ND-2.0", "")] == [False] * 3
    assert is_allowed("", ["any"])
    assert family("CC-BY-SA-4.0") == "CC-BY-SA"


def test_a_torn_line_is_dropped_and_a_second_writer_refused(tmp_path: Path) -> None:
    with provenance.Writer(tmp_path) as writer:
        writer.write("a", "ok", label="cat", path="x")
        with pytest.raises(DataError, match="Another `potstill get`"), provenance.Writer(tmp_path):
            pass
    with (tmp_path / provenance.NAME).open("a") as file:
        file.write('{"key": "b", "sta')
    assert [entry["key"] for entry in provenance.latest(tmp_path)] == ["a"]
    with provenance.Writer(tmp_path) as writer:
        writer.write("a", "rejected", label="cat", reason="placeholder")
    assert [entry["status"] for entry in provenance.latest(tmp_path)] == ["rejected"]
    (tmp_path / provenance.NAME).write_text("nonsense\n")
    with pytest.raises(DataError, match="damaged in line 1"):
        list(provenance.latest(tmp_path))
