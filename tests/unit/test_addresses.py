"""The guard: no private address, no odd port or scheme, on any hop. aiohttp's private hook is held by these."""

import asyncio
import socket

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from potstill.get.addresses import AddressRefusedError, GuardedConnector, check_url, is_public, next_hop

PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:7f00:1::",
    "nonsense",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "2002:808:808::"]
)
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a.jpg",
        "pipe:curl example.org",
        "javascript:alert(1)",
        "http://",
        "http://example.org:22/a.jpg",
        "http://example.org:8080/a.jpg",
        "http://example.org:99999/",
        "http://[::1",
        "",
        "a.jpg",
    ],
)
def test_odd_urls_are_refused(url: str) -> None:
    with pytest.raises(AddressRefusedError):
        check_url(url)


def test_credentials_and_fragments_are_dropped_and_signatures_kept() -> None:
    url = "https://user:secret@example.org/a%2Fb.jpg?Signature=x%2F~y#part"
    assert check_url(url) == "https://example.org/a%2Fb.jpg?Signature=x%2F~y"


def test_no_step_from_https_down_to_http() -> None:
    with pytest.raises(AddressRefusedError, match="from https to http"):
        next_hop("https://example.org/a.jpg", "http://example.org/a.jpg")
    assert next_hop("http://example.org/a/b.jpg", "/c.jpg") == "http://example.org/c.jpg"
    assert next_hop("https://example.org/a.jpg", "//cdn.example.org/c.jpg") == "https://cdn.example.org/c.jpg"


class Liar(AbstractResolver):
    """Says that every name is at `address`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        return [ResolveResult(hostname=host, host=self._address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "64:ff9b::7f00:1"])
def test_names_that_lead_inside_are_refused_before_a_packet(address: str) -> None:
    async def ask() -> None:
        connector = GuardedConnector(resolver=Liar(address))
        async with aiohttp.ClientSession(connector=connector) as session:
            await session.get("http://photos.example.org/a.jpg")

    with pytest.raises(AddressRefusedError, match=r"photos\.example\.org is"):
        asyncio.run(ask())


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]"])
def test_literals_are_refused_too(host: str) -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession(connector=GuardedConnector()) as session:
            await session.get(f"http://{host}/a.jpg")

    with pytest.raises(AddressRefusedError):
        asyncio.run(ask())


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
def test_odd_spellings_of_loopback_reach_nothing(host: str) -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession(connector=GuardedConnector()) as session:
            await session.get(f"http://{host}/a.jpg", timeout=aiohttp.ClientTimeout(total=2))

    with pytest.raises((AddressRefusedError, aiohttp.ClientError)):
        asyncio.run(ask())


def test_only_the_very_pair_is_allowed() -> None:
    async def ask(url: str) -> None:
        async with aiohttp.ClientSession(connector=GuardedConnector(allowed=["127.0.0.1:1"])) as session:
            await session.get(url)

    with pytest.raises(aiohttp.ClientConnectorError):  # reached, and nobody listens there
        asyncio.run(ask("http://127.0.0.1:1/"))
    with pytest.raises(AddressRefusedError):
        asyncio.run(ask("http://127.0.0.1:2/"))
