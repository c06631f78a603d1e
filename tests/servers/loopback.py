"""An aiohttp application in a thread of its own, on a free port of 127.0.0.1."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web


@dataclass
class Server:
    """A running server."""

    port: int
    scheme: str = "http"
    log: list[str] = field(default_factory=list)
    """Path and query of every request, in order."""

    @property
    def address(self) -> str:
        """For `--allow-private`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"


PEM = Path(__file__).with_name("loopback.pem")
"""A certificate for 127.0.0.1, and its key, for these tests only."""


def trusting() -> ssl.SSLContext:
    """For clients that trust the servers here."""
    return ssl.create_default_context(cafile=PEM)


def _served_by() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


@contextmanager
def serve(app: web.Application, port: int = 0, *, tls: bool = False) -> Iterator[Server]:
    """Run `app` until the block ends. With `tls`, by https with the certificate of `trusting`."""
    loop = asyncio.new_event_loop()
    server = Server(0, "https" if tls else "http")

    async def keep_log(request: web.Request, response: web.StreamResponse) -> None:
        server.log.append(request.path_qs)

    app.on_response_prepare.append(keep_log)

    async def start() -> web.AppRunner:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=_served_by() if tls else None)
        await site.start()
        server.port = site._server.sockets[0].getsockname()[1]
        return runner

    async def end() -> None:
        await runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0.01)  # connections are closed in the loop's next turns

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
