"""A polite HTTP client that trusts no server: per-server limits, retries, checked redirects, bounded bodies.

aiohttp sends the requests, tenacity repeats them; limits.py holds the limits, addresses.py refuses private networks.
"""

import asyncio
import contextlib
import datetime
import email.utils
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential
from yarl import URL

from potstill.errors import SourceError, UnreachableError
from potstill.get.addresses import PORTS, AddressRefusedError, GuardedConnector, check_url, next_hop
from potstill.get.hosts import Host, Hosts
from potstill.get.limits import Limits

_RETRY = {408, 425, 429, 500, 502, 503, 504}
_GONE = {404, 410}
_REDIRECT = {301, 302, 303, 307, 308}
_OPT_OUT = {"noai", "noimageai", "noindex", "noimageindex"}
_PLACEHOLDER = re.compile(r"photo_unavailable|image[-_]not[-_](found|available)|no[-_]?image|default[-_]?image", re.I)
_LARGE = 4 * 2**20
_LARGE_AT_ONCE = 4
"""Bodies above _LARGE bytes that are read at the same time; 64 of 25 MiB would fill the memory."""
_JSON_BYTES = 64 * 2**20


@dataclass(eq=False)
class FetchError(Exception):
    """A request that failed."""

    code: str
    """One of reasons.REASONS."""
    reason: str
    _: KW_ONLY
    again: bool = False
    """Whether another try may succeed."""
    after: float | None = None
    """Seconds to wait before it, as the server asked."""
    status: int | None = None
    host: Host | None = None
    attempts: int = 1

    def __post_init__(self) -> None:
        self.reason = self.reason.encode("utf-8", "replace").decode()[:500]  # servers send what is no text, and a lot

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"

    @property
    def is_silent(self) -> bool:
        """Whether no server said anything: there may be no network."""
        return self.code in ("connection", "timeout") and self.status is None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A body, and what led to it."""

    body: bytes
    url: str
    """After all redirects."""
    status: int
    headers: Mapping[str, str]
    attempts: int
    redirected: bool


def user_agent(contact: str = "") -> str:
    """`potstill-bot/0.1.0 (me@example.org) aiohttp/3.14`. Wikimedia asks for a contact of the person who runs it."""
    from importlib.metadata import version

    who = f" ({contact})" if contact else ""
    return f"potstill-bot/{version('potstill')}{who} aiohttp/{aiohttp.__version__}"


class Client:
    """Use as `async with Client(limits) as client`."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        allowed: Collection[str] = (),
        contact: str = "",
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.hosts = Hosts(self.limits)
        self.contact = contact
        self._allowed = frozenset(allowed)
        self._headers = {"User-Agent": user_agent(contact), **(headers or {})}
        self._tls = tls
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def __aenter__(self) -> "Client":
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.limits.connect_seconds, sock_read=self.limits.read_seconds
        )
        options: dict[str, Any] = {"ssl": self._tls} if self._tls else {}
        self._session = aiohttp.ClientSession(
            connector=GuardedConnector(
                allowed=self._allowed, limit=self.limits.connections, limit_per_host=0, **options
            ),
            timeout=timeout,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def photo(self, url: str) -> Fetched:
        """The bytes of a photo, after as many tries as the limits allow.

        Raises:
            FetchError: with the code of the last try.
        """
        return await self._tried(url, max_bytes=self.limits.max_bytes, seconds=self.limits.photo_seconds, photo=True)

    async def json(self, url: str, query: Mapping[str, Any] | None = None) -> Any:
        """The JSON value at `url`. Raises SourceError with the server's message when there is none."""
        full = f"{url}?{urlencode(query, safe=':,|/')}" if query else url
        for _ in range(self.limits.tries):
            try:
                fetched = await self._tried(full, max_bytes=_JSON_BYTES, seconds=self.limits.photo_seconds, photo=False)
                value = json.loads(fetched.body)
            except FetchError as error:
                kind = UnreachableError if error.is_silent else SourceError
                raise kind(f"{_server(url)} did not answer {full}\n  {error.code}: {error.reason}") from None
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{_server(url)} answered {full} with something other than JSON: {error}") from None
            # MediaWiki reports a busy database in a successful response (Manual:Maxlag parameter).
            if isinstance(value, dict) and isinstance(value.get("error"), dict):
                if value["error"].get("code") != "maxlag":
                    raise SourceError(f"{_server(url)} refused {full}\n  {value['error'].get('info', value['error'])}")
                await asyncio.sleep(retry_after(fetched.headers) or 5.0)
                continue
            return value
        raise SourceError(f"{_server(url)} is too busy (maxlag) to answer {full}. Try again later.")

    @contextlib.asynccontextmanager
    async def open(self, url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response after checked redirects, its body unread. Raises FetchError for status codes from 400."""
        async with contextlib.AsyncExitStack() as stack:
            yield await self._response(url, stack, headers or {})

    async def _tried(self, url: str, *, max_bytes: int, seconds: float, photo: bool) -> Fetched:
        """`_once`, as many times as the limits allow. The outcome counts for the server of the last try."""
        tries = AsyncRetrying(
            stop=stop_after_attempt(self.limits.tries),
            wait=self._wait,
            retry=retry_if_exception(lambda error: isinstance(error, FetchError) and error.again),
            reraise=True,
        )
        attempts = 0
        try:
            async for attempt in tries:
                with attempt:
                    attempts += 1
                    return await self._once(url, attempts, max_bytes, seconds, photo)
        except FetchError as error:
            error.attempts = attempts
            if error.host:
                if error.again:
                    error.host.failed(error.reason)
                elif error.code != "parked":
                    error.host.succeeded()
            raise
        raise AssertionError("tenacity gave no attempt")

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, FetchError) and error.after is not None:
            return error.after
        return wait_random_exponential(self.limits.backoff_seconds, self.limits.backoff_cap_seconds)(state)

    async def _once(self, url: str, attempt: int, max_bytes: int, seconds: float, photo: bool) -> Fetched:
        try:
            async with asyncio.timeout(None) as clock, contextlib.AsyncExitStack() as stack:
                response = await self._response(url, stack, {}, clock, seconds)
                host = self._host(str(response.url))
                if photo:
                    _check_photo_headers(response)
                if (size := response.content_length or 0) > max_bytes:
                    raise FetchError("too_large", f"{size:,} bytes announced, limit {max_bytes:,}", host=host)
                body = await self._body(response, host, max_bytes)
                host.succeeded()
                landed = str(response.url)
                return Fetched(body, landed, response.status, response.headers, attempt, redirected=landed != url)
        except TimeoutError:
            raise FetchError("timeout", "no answer in time", again=True, host=self._host(url)) from None

    async def _response(
        self,
        url: str,
        stack: contextlib.AsyncExitStack,
        headers: Mapping[str, str],
        clock: asyncio.Timeout | None = None,
        seconds: float = 0.0,
    ) -> aiohttp.ClientResponse:
        """Follow redirects by hand: each hop is checked, waits for its own server's turn, and is counted."""
        seen = []
        try:
            target = check_url(url, self._allowed)
            for _ in range(self.limits.max_redirects + 1):
                if target in seen:
                    raise FetchError("redirects", f"a loop: {target}")
                seen.append(target)
                host = self._host(target)
                if host.parked:
                    raise FetchError("parked", f"{host.name}: {host.parked}", host=host)
                async with contextlib.AsyncExitStack() as hop:
                    await hop.enter_async_context(host.turn())
                    if clock and clock.when() is None:  # the time in the queue is not the server's
                        clock.reschedule(asyncio.get_running_loop().time() + seconds)
                    response = await hop.enter_async_context(self._request(target, headers, host))
                    if response.status not in _REDIRECT:
                        self._check_status(response, host)
                        stack.push_async_exit(hop.pop_all())
                        return response
                    location = response.headers.get("Location", "")
                target = next_hop(target, location, self._allowed)
                if _PLACEHOLDER.search(target):
                    raise FetchError("placeholder", f"redirected to {target}", status=response.status)
            raise FetchError("redirects", f"more than {self.limits.max_redirects}, the last to {target}")
        except AddressRefusedError as error:
            code = "redirects" if "https to http" in str(error) else "address"
            raise FetchError(code, str(error)) from None

    @contextlib.asynccontextmanager
    async def _request(self, url: str, headers: Mapping[str, str], host: Host) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
                yield response
        except aiohttp.ClientPayloadError as error:
            raise FetchError("cut_short", _message(error), again=True, host=host) from None
        except TimeoutError as error:
            raise FetchError("timeout", _message(error) or "no answer in time", again=True, host=host) from None
        except aiohttp.ClientConnectorCertificateError as error:  # a ValueError, too
            raise FetchError("refused", f"certificate: {_message(error)}", host=host) from None
        except (aiohttp.InvalidURL, ValueError) as error:  # which of them depends on what is odd about the host
            raise FetchError("address", _message(error)) from None
        except aiohttp.ClientError as error:
            raise FetchError("connection", _message(error), again=True, host=host) from None

    def _check_status(self, response: aiohttp.ClientResponse, host: Host) -> None:
        status, text = response.status, f"HTTP {response.status} {response.reason or ''}".strip()
        if status in _GONE:
            raise FetchError("gone", text, status=status, host=host)
        if status in _RETRY:
            after = retry_after(response.headers)
            if after is not None and after > self.limits.retry_after_cap_seconds:
                host.park(f"{text}, asks to wait {after:.0f} s")
                raise FetchError("parked", f"{host.name}: {host.parked}", status=status, host=host)
            if after is not None:
                host.pause(after)
            elif status == 429:
                host.rest()
            raise FetchError("server_error", text, again=True, after=after, status=status, host=host)
        if status >= 400:
            raise FetchError("refused", text, status=status, host=host)

    async def _body(self, response: aiohttp.ClientResponse, host: Host, max_bytes: int) -> bytes:
        """Read to the end, counting decompressed bytes. Bodies slower than the minimum rate are given up."""
        parts: list[bytes] = []
        size, since, before = 0, time.monotonic(), 0
        waited_for_room = False
        async with contextlib.AsyncExitStack() as stack:
            async for part in response.content.iter_any():
                size += len(part)
                if size > max_bytes:
                    response.close()
                    raise FetchError("too_large", f"more than {max_bytes:,} bytes", host=host)
                parts.append(part)
                if size > _LARGE and not waited_for_room:
                    await stack.enter_async_context(self._large)
                    waited_for_room = True
                await host.pace(len(part))
                now = time.monotonic()
                if now - since >= self.limits.read_seconds:
                    if (size - before) / (now - since) < self.limits.min_bytes_per_second:
                        response.close()
                        raise FetchError(
                            "timeout", f"{(size - before) / (now - since):.0f} bytes/s", again=True, host=host
                        )
                    since, before = now, size
        return b"".join(parts)

    def _host(self, url: str) -> Host:
        parts = urlsplit(url)
        return self.hosts[f"{parts.hostname}:{parts.port or PORTS.get(parts.scheme, 0)}"]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait in seconds that `Retry-After` asks for, in either of its forms; None where there is none."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=datetime.UTC)
        return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (OverflowError, TypeError, ValueError):
        return None


def _check_photo_headers(response: aiohttp.ClientResponse) -> None:
    for line in response.headers.getall("X-Robots-Tag", []):
        if words := {word.strip().lower() for word in line.replace(":", ",").split(",")} & _OPT_OUT:
            raise FetchError("opted_out", f"X-Robots-Tag: {', '.join(sorted(words))}")


def _server(url: str) -> str:
    return urlsplit(url).netloc


def _message(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
