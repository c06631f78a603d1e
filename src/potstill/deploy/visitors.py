"""The server of the pages on this machine: who may ask, how much may be sent, and how many photos are held at a time.

A few fixed files and one address that takes a photo; no request names a file of this machine. Pages of other sites
cannot use it: a request must be for this machine's own name (else another site's name could be made to lead here, DNS
rebinding), and come from this page itself. Photos are kept in memory until they are answered, and nowhere else.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

MAX_BYTES = 20 * 2**20
"""Of one photo."""

AT_ONCE = 2
"""Photos answered at the same time; up to WAITING more wait for their turn, others are asked to come back."""

WAITING = 64
HELD_BYTES = 256 * 2**20
"""Of all photos that are arriving or waiting."""

UPLOAD_SECONDS, SILENT_SECONDS = 120.0, 10.0
"""What an upload may take in all, and without a byte."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}

BUSY = "Many photos are waiting. Please try again in a moment."
TOO_LARGE = f"The file has more than {MAX_BYTES // 2**20} MB. Please take a smaller copy."
TOO_SLOW = "The upload took too long. Please try again, perhaps with a smaller copy."

Classify = Callable[[bytes], Mapping[str, Any]]
"""From the bytes of a file to the JSON that is answered. Runs in a thread."""


class RefusedError(Exception):
    """A request that is not done, with the status and the reason to give."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason


class Guard:
    """Who may ask a page on this machine, and what every response says of it."""

    def __init__(self, names: Collection[str], *, any_address: bool = False, fault: str = "It failed.") -> None:
        """Take the names of this machine.

        Args:
            names: under which the page may be asked for, see `names_of`.
            any_address: whether it may be asked for by any address, too.
            fault: what is said where a handler fails.
        """
        self._names, self._any_address, self._fault = {name.casefold() for name in names}, any_address, fault

    def application(self, files: Mapping[str, tuple[str, str]]) -> web.Application:
        """The files by their path, each with its content type and text."""
        app = web.Application(middlewares=[self._guard])
        for path, (kind, text) in files.items():
            app.router.add_get(path, _file(kind, text))
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check(request)
            response = await handler(request)
        except RefusedError as refused:
            response = web.json_response({"refused": refused.reason}, status=refused.status)
            if refused.status == 503:
                response.headers["Retry-After"] = "2"
            if request.can_read_body:  # the rest is not read
                response.force_close()
        except web.HTTPException as error:
            response = web.json_response({"refused": error.reason}, status=error.status)
        except Exception:
            logging.getLogger(__name__).exception("A request could not be done")
            response = web.json_response({"refused": self._fault}, status=500)
        response.headers.update(HEADERS)
        return response

    def _check(self, request: web.Request) -> None:
        """Whether the request is for this machine, and from this page or from a program."""
        host = request.headers.get("Host", "")
        if not self._is_ours(_name(host)):
            raise RefusedError(421, f"This page does not answer for {host[:100]!r}. See potstill serve --allow-host.")
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2].casefold() != host.casefold():
            raise RefusedError(403, "Pages of other sites cannot use this one.")

    def _is_ours(self, name: str) -> bool:
        if name.rstrip(".").casefold() in self._names:
            return True
        if not self._any_address:
            return False
        try:
            return bool(ipaddress.ip_address(name))  # an address is no name that could be made to lead here
        except ValueError:
            return False


class Visitors(Guard):
    """What all requests for a photo share."""

    def __init__(self, classify: Classify, names: Collection[str], *, any_address: bool = False) -> None:
        super().__init__(names, any_address=any_address, fault="The models could not look at it.")
        self._classify = classify
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = self._held = 0
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="photos")

    def application(self, files: Mapping[str, tuple[str, str]]) -> web.Application:
        """The files by their path, each with its content type and text; and `POST /classify`."""
        app = super().application(files)
        app.router.add_post("/classify", self._predict)
        return app

    async def _predict(self, request: web.Request) -> web.Response:
        async with self._upload(request) as photo:
            if self._waiting >= WAITING:
                raise RefusedError(503, BUSY)
            self._waiting += 1
            try:
                await self._turns.acquire()
            finally:
                self._waiting -= 1
            try:
                if request.transport is None or request.transport.is_closing():  # nobody is left to hear it
                    raise RefusedError(408, TOO_SLOW)
                found = await asyncio.get_running_loop().run_in_executor(self._threads, self._classify, photo)
            finally:
                self._turns.release()
        return web.json_response(found)

    @contextlib.asynccontextmanager
    async def _upload(self, request: web.Request) -> AsyncIterator[bytes]:
        """The body. Its bytes count as held until the block ends."""
        if (request.content_length or 0) > MAX_BYTES:
            raise RefusedError(413, TOO_LARGE)
        parts: list[bytes] = []
        size = 0
        loop = asyncio.get_running_loop()
        end = loop.time() + UPLOAD_SECONDS
        try:
            async with asyncio.timeout(None) as clock:
                while True:
                    clock.reschedule(min(end, loop.time() + SILENT_SECONDS))
                    part = await request.content.readany()
                    if not part:
                        break
                    if loop.time() > end:  # bytes that are there already let no clock ring
                        raise TimeoutError
                    size += len(part)
                    self._held += len(part)
                    if size > MAX_BYTES:
                        raise RefusedError(413, TOO_LARGE)
                    if self._held > HELD_BYTES:
                        raise RefusedError(503, BUSY)
                    parts.append(part)
            photo = b"".join(parts)
            parts.clear()
            yield photo
        except TimeoutError:
            raise RefusedError(408, TOO_SLOW) from None
        except (OSError, web.RequestPayloadError):
            raise RefusedError(400, "The upload was cut off.") from None
        finally:
            self._held -= size


def _name(host: str) -> str:
    """Of a Host header, without the port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def names_of(host: str, more: Collection[str] = ()) -> set[str]:
    """The names under which the page may be asked for when it listens on `host`."""
    names = {"localhost", "127.0.0.1", "::1", host, *more}
    if is_wildcard(host):
        names |= {socket.gethostname(), socket.getfqdn(), f"{socket.gethostname()}.local"}
    return names


def is_wildcard(host: str) -> bool:
    """Whether the page listens on all addresses of this machine."""
    return host in ("0.0.0.0", "::", "")


def _file(kind: str, text: str) -> Callable[[web.Request], Any]:
    async def send(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return send
