"""The server of `potstill serve`: who may ask it, how much it holds, and that it answers others meanwhile."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest
from tests.servers.loopback import Server, serve

from potstill.deploy import visitors
from potstill.deploy.visitors import AT_ONCE, BUSY, HEADERS, MAX_BYTES, Visitors, names_of

FILES = {"/": ("text/html", "<!doctype html><p>page"), "/app.js": ("text/javascript", "1")}


def size_of(photo: bytes) -> Mapping[str, Any]:
    """Stands for the models."""
    time.sleep(0.002)
    return {"bytes": len(photo)}


@pytest.fixture
def shared() -> Visitors:
    return Visitors(size_of, names_of("127.0.0.1"))


@pytest.fixture
def server(shared: Visitors) -> Iterator[Server]:
    with serve(shared.application(FILES)) as running:
        yield running


def raw(server: Server, *parts: bytes, pause: float = 0.0, timeout: float = 30.0) -> bytes:
    """What comes back for these bytes; a server that hangs up meanwhile ends it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:
            pass
        found = b""
        try:
            while not is_complete(found) and (block := connection.recv(65536)):
                found += block
        except OSError:
            pass
        return found


def is_complete(answer: bytes) -> bool:
    """Whether a response is there to its end; the server may listen a little longer to who is still sending."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length or 0)


def asking(path: str, *lines: str, method: str = "GET", host: str = "127.0.0.1", body: bytes = b"") -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *lines, *length, "", ""]
    return "\r\n".join(head).encode() + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def refusal(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["refused"])


def is_answered(server: Server) -> bool:
    answer = raw(server, asking("/classify", method="POST", body=b"photo"))
    return status_of(answer) == 200 and answer.endswith(b'{"bytes": 5}')


def test_the_page_and_an_answer_and_nothing_else(server: Server) -> None:
    assert raw(server, asking("/")).endswith(b"<!doctype html><p>page")
    assert is_answered(server)
    assert status_of(raw(server, asking("/", method="POST", body=b"x"))) == 405
    assert status_of(raw(server, asking("/classify"))) == 405


PATHS = (
    "/../../../../etc/passwd",
    "/..%2f..%2f..%2fetc%2fpasswd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/./app.js/../../etc/passwd",
    "/..\\..\\etc\\passwd",
    "/file=/etc/passwd",
    "/gradio_api/file=/etc/passwd",
    "/app.js%00.html",
    "/app.js/",
    "/" + "../" * 2000,
    "/" + "x" * 7000,
)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_gives_a_file_of_the_machine(path: str, server: Server) -> None:
    answer = raw(server, asking(path))
    assert status_of(answer) in (400, 404)
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "10.0.0.1",
        "",
        "a b",
        "[::1",
        "é",
    ],
)
def test_another_sites_name_is_refused_for_the_page_and_for_photos(host: str, server: Server) -> None:
    for request in (asking("/", host=host), asking("/classify", method="POST", host=host, body=b"photo")):
        answer = raw(server, request)
        assert status_of(answer) in (400, 421)
        assert b"page" not in answer.partition(b"\r\n\r\n")[2] or b"does not answer for" in answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:7860", "localhost.", "[::1]:7860"])
def test_this_machines_names_are_answered(host: str, server: Server) -> None:
    assert status_of(raw(server, asking("/", host=host))) == 200


def test_a_page_for_the_network_is_answered_for_addresses_and_allowed_names() -> None:
    wide = Visitors(size_of, names_of("0.0.0.0", ["photos.example"]), any_address=True)
    with serve(wide.application(FILES)) as running:
        for host in ("192.168.1.20:7860", "photos.example", socket.gethostname(), "[fd00::1]:7860"):
            assert status_of(raw(running, asking("/", host=host))) == 200
        assert status_of(raw(running, asking("/", host="evil.example"))) == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "http://localhost:1", "file://"]
)
def test_pages_of_other_sites_cannot_use_it(origin: str, server: Server) -> None:
    answer = raw(server, asking("/classify", f"Origin: {origin}", method="POST", body=b"photo"))
    assert status_of(answer) == 403
    assert "other sites" in refusal(answer)
    own = raw(server, asking("/classify", "Origin: http://127.0.0.1", method="POST", body=b"photo"))
    assert status_of(own) == 200


@pytest.mark.parametrize("path", ["/", "/app.js", "/nothing", "/classify"])
def test_every_response_has_the_policy(path: str, server: Server) -> None:
    answer = raw(server, asking(path)).decode()
    for name, value in HEADERS.items():
        assert f"{name}: {value}\r\n" in answer
    assert "unsafe" not in answer


def test_200_at_once_are_answered_or_asked_to_come_back(shared: Visitors, server: Server) -> None:
    async def ask() -> list[tuple[int, Any]]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(number: int) -> tuple[int, Any]:
                async with session.post(f"{server.url}/classify", data=b"x" * (number + 1)) as response:
                    if response.status == 503:
                        assert int(response.headers["Retry-After"]) > 0
                    return response.status, await response.json()

            found = list(await asyncio.gather(*(one(number) for number in range(200))))
        await asyncio.sleep(0.05)  # connections are closed in the loop's next turns
        return found

    found = asyncio.run(ask())
    for number, (status, said) in enumerate(found):
        assert (status, said) in ((200, {"bytes": number + 1}), (503, {"refused": BUSY}))
    assert sum(status == 200 for status, _ in found) >= visitors.WAITING + AT_ONCE
    assert (shared._waiting, shared._held) == (0, 0)


def test_bodies_that_are_too_large_are_not_taken(shared: Visitors, server: Server) -> None:
    head = asking("/classify", f"Content-Length: {100 * 2**20}", method="POST")
    answer = raw(server, head, b"x" * 100_000)
    assert status_of(answer) == 413
    assert "20 MB" in refusal(answer)
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    answer = raw(server, asking("/classify", "Transfer-Encoding: chunked", method="POST"), *[chunk] * 100)
    assert answer == b"" or status_of(answer) == 413  # the client was still sending when it was hung up on
    assert shared._held == 0
    assert status_of(raw(server, asking("/classify", method="POST", body=bytes(MAX_BYTES)))) == 200
    assert status_of(raw(server, asking("/classify", method="POST", body=bytes(MAX_BYTES + 1)))) == 413


def test_slow_and_cut_uploads_keep_nobody_waiting(
    shared: Visitors, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitors, "SILENT_SECONDS", 0.3)
    head = asking("/classify", "Content-Length: 1000", method="POST")
    cut = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for connection in cut:
        connection.sendall(head + b"half")
        connection.close()
    with ThreadPoolExecutor(20) as pool:
        slow = [pool.submit(raw, server, head, b"a") for _ in range(20)]
        headers = [pool.submit(raw, server, b"POST /classify HTTP/1.1\r\n", timeout=1) for _ in range(5)]
        assert is_answered(server)
        for future in slow:
            assert status_of(future.result()) == 408
        assert [future.result() for future in headers] == [b""] * 5
    assert is_answered(server)
    assert shared._held == 0


def test_an_upload_may_not_take_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "UPLOAD_SECONDS", 0.3)
    head = asking("/classify", "Content-Length: 1000", method="POST")
    started = time.monotonic()
    assert status_of(raw(server, head, *[b"a"] * 30, pause=0.02)) == 408
    assert time.monotonic() - started < 5


def test_what_is_held_is_limited(shared: Visitors, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "HELD_BYTES", 3_000_000)
    head = asking("/classify", "Content-Length: 9000000", method="POST")
    with socket.create_connection(("127.0.0.1", server.port)) as held:
        held.sendall(head + bytes(2_500_000))
        deadline = time.monotonic() + 30
        while shared._held < 2_500_000:  # the upload that passes the limit is refused: let it not be this one
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert status_of(raw(server, asking("/classify", method="POST", body=bytes(900_000)))) == 503
        assert is_answered(server), "a small photo still fits"


def test_a_fault_of_the_models_is_no_page_of_code(shared: Visitors, caplog: pytest.LogCaptureFixture) -> None:
    def broken(photo: bytes) -> Mapping[str, Any]:
        raise ValueError("secret /srv/me")

    with serve(Visitors(broken, names_of("127.0.0.1")).application(FILES)) as running:
        answer = raw(running, asking("/classify", method="POST", body=b"photo"))
    assert status_of(answer) == 500
    assert b"secret" not in answer
    assert b"Content-Security-Policy" in answer


def test_only_so_many_photos_are_looked_at_together() -> None:
    now = most = 0
    lock = threading.Lock()

    def count(photo: bytes) -> Mapping[str, Any]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return {}

    ask: Callable[[int], bytes]
    with serve(Visitors(count, names_of("127.0.0.1")).application(FILES)) as running, ThreadPoolExecutor(8) as pool:
        ask = lambda _: raw(running, asking("/classify", method="POST", body=b"photo"))  # noqa: E731
        assert {status_of(answer) for answer in pool.map(ask, range(8))} == {200}
    assert most == AT_ONCE
