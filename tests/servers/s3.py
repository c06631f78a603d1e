"""A real S3 server on loopback, and one in front of it that has faults."""

import asyncio
import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web
from moto.server import ThreadedMotoServer
from yarl import URL

KEY, SECRET = "AKIALOOPBACKEXAMPLE1", "loopback/Secret+Key/0123456789abcdefghij"
"""Credentials that the server takes, as it takes all; tests look for them where they must not be."""


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an empty store."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class FaultyProxy:
    """Passes requests on to a store, except where `fault` says otherwise.

    `fault(method, path)` returns None to pass a request on, or "503", "403", "full", "cut" (half of the body, then the
    connection is closed, in the direction in which the body goes), or a number of seconds to wait first.
    """

    def __init__(self, store: str) -> None:
        self.fault: Callable[[str, str], str | float | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self._store, self._loop = store, asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._session.close())
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _start(self) -> web.AppRunner:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.address = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
        return runner

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        fault = self.fault(request.method, request.path_qs)
        if isinstance(fault, float):
            await asyncio.sleep(fault)
        elif fault in ("503", "403", "full"):
            await request.read()
            code = {"503": "SlowDown", "403": "AccessDenied", "full": "QuotaExceeded"}[fault]
            status = {"503": 503, "403": 403, "full": 507}[fault]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>the {code} of a test</Message></Error>"
            return web.Response(status=status, text=text, content_type="application/xml")
        elif fault == "cut" and request.method == "PUT":
            await request.content.read(100)
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        hop = {"host", "transfer-encoding", "content-length", "connection", "expect"}
        headers = {name: value for name, value in request.headers.items() if name.lower() not in hop}
        headers["Host"] = request.headers["Host"]  # it is signed
        url = URL(self._store + request.raw_path, encoded=True)
        body = io.BytesIO(await request.read())
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as found:
            data = await found.read()
            kept = {name: value for name, value in found.headers.items() if name.lower() not in hop}
            if request.method == "HEAD":
                response = web.StreamResponse(status=found.status, headers=kept)
                response.content_length = int(found.headers.get("Content-Length", 0))
                await response.prepare(request)
                return response
            if fault == "cut":
                response = web.StreamResponse(status=found.status, headers={**kept, "Content-Length": str(len(data))})
                await response.prepare(request)
                await response.write(data[: len(data) // 2])
                assert request.transport is not None
                request.transport.close()
                return response
            return web.Response(status=found.status, headers=kept, body=data)
