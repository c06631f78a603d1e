"""Keeps the downloader out of private networks: lists of photo addresses come from strangers.

A name is resolved once per connection, the result is checked, and the connection uses that result; a name that changes
its address between check and use gains nothing. Redirects open new connections and are checked, too.
"""

import ipaddress
from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import aiohttp
from aiohttp.abc import ResolveResult

PORTS = {"http": 80, "https": 443}

_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


class AddressRefusedError(Exception):
    """The address leads somewhere the downloader must not go."""


def is_public(address: str) -> bool:
    """Whether an IP address is public, also after unwrapping IPv4 inside IPv6.

    Python's `is_global` alone is True for multicast, for 6to4 and for NAT64 forms of private addresses.
    """
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    return all(part.is_global and not part.is_multicast for part in _unwrapped(ip))


def _unwrapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    if any(ip in network for network in _NAT64):
        return [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    if ip.sixtofour:
        return [ip.sixtofour]
    if ip.teredo:
        return list(ip.teredo)
    if int(ip) >> 32 == 0 and int(ip) > 1:  # ::a.b.c.d, the old IPv4-compatible form
        return [ip, ipaddress.IPv4Address(int(ip))]
    return [ip]


def check_url(url: str, allowed: Collection[str] = ()) -> str:
    """The URL without user name, password and fragment, when it may be requested.

    Args:
        url: from a list, an API answer or a redirect.
        allowed: `host:port` pairs that may be reached although they are private or on another port.
    Raises:
        AddressRefusedError: no http(s), no host, or a port other than 80 and 443.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port or PORTS.get(parts.scheme, 0)
        host = parts.hostname
    except ValueError as error:
        raise AddressRefusedError(f"not a URL: {error}") from None
    if parts.scheme not in PORTS:
        raise AddressRefusedError(f"{parts.scheme or 'no'} scheme; only http and https are allowed")
    if not host:
        raise AddressRefusedError("no host in the URL")
    if port not in PORTS.values() and f"{host}:{port}" not in allowed:
        raise AddressRefusedError(f"port {port} of {host}; only 80 and 443 are allowed")
    netloc = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))


def next_hop(url: str, location: str, allowed: Collection[str] = ()) -> str:
    """Where a redirect leads, checked. Raises AddressRefusedError, also for a step from https down to http."""
    try:
        target = check_url(urljoin(url, location), allowed)
    except ValueError as error:
        raise AddressRefusedError(f"not a URL: {error}") from None
    if url.startswith("https:") and target.startswith("http:"):
        raise AddressRefusedError("redirected from https to http")
    return target


class GuardedConnector(aiohttp.TCPConnector):
    """A connector that refuses private addresses, before a packet is sent.

    `_resolve_host` is aiohttp's own hook for names and IP literals alike; its cookbook shows this override. It is
    private, so tests hold it. Proxies would bypass it; none is used.
    """

    def __init__(self, *, allowed: Collection[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self._allowed = frozenset(allowed)

    async def _resolve_host(
        self, host: str, port: int, traces: Sequence[aiohttp.tracing.Trace] | None = None
    ) -> list[ResolveResult]:
        try:
            results = await super()._resolve_host(host, port, traces)
        except ValueError as error:  # UnicodeError of a label that is empty or too long is one, too
            raise AddressRefusedError(f"not a host name: {error}") from None
        if f"{host}:{port}" in self._allowed:
            return results
        if bad := [result["host"] for result in results if not is_public(result["host"])]:
            raise AddressRefusedError(
                f"{host} is {bad[0]}, not a public address (for your own mirror: --allow-private {host}:{port})"
            )
        return results
