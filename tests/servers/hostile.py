"""What a server that wants to do harm sends, and addresses that lead where nobody should go."""

import asyncio
import functools
import gzip
import zlib
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""Of a request, and of the photo that should be sent."""

BOMB = 8 * 2**20
ENOUGH = 2**20
"""More is not kept for a client that does not take it."""


def _raw(*parts: bytes) -> Answer:
    """These bytes instead of a response, then the connection is closed."""

    async def answer(request: web.Request, photo: bytes) -> web.StreamResponse:
        assert request.transport is not None
        for part in parts:
            request.transport.write(part.replace(b"PHOTO", photo))
        request.transport.close()
        return web.Response()

    return answer


def _trickle(first: bytes, again: bytes, seconds: float) -> Answer:
    """The same bytes again and again, for ever."""

    async def answer(request: web.Request, photo: bytes) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        transport.write(first)
        while not transport.is_closing():
            if transport.get_write_buffer_size() < ENOUGH:
                transport.write(again)
            await asyncio.sleep(seconds)
        return web.Response()

    return answer


def _encoded(encoding: str, make: Callable[[], bytes]) -> Answer:
    async def answer(request: web.Request, photo: bytes) -> web.StreamResponse:
        return web.Response(body=make(), content_type="image/jpeg", headers={"Content-Encoding": encoding})

    return answer


def _status(status: int, **headers: str) -> Answer:
    async def answer(request: web.Request, photo: bytes) -> web.StreamResponse:
        return web.Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def _odd_names(request: web.Request, photo: bytes) -> web.StreamResponse:
    """A good photo whose headers name another place for it."""
    headers = {
        "Content-Disposition": 'attachment; filename="../../../escaped.jpg"',
        "Content-Location": "/../../../escaped.jpg",
        "ETag": '"../../../escaped"',
        "Set-Cookie": "a=" + "b" * 3000,
        "Link": "<http://10.0.0.1/>; rel=preload",
        "Refresh": "0; url=http://10.0.0.1/",
        "Alt-Svc": 'h2="10.0.0.1:80"',
    }
    return web.Response(body=photo, content_type="image/jpeg", headers=headers)


@functools.cache
def _zeros(kind: str) -> bytes:
    if kind == "gzip":
        return gzip.compress(bytes(BOMB), 6)
    if kind == "gzip, gzip":
        return gzip.compress(gzip.compress(bytes(BOMB), 9), 9)
    return zlib.compress(bytes(BOMB), 9)


def make_bombs() -> None:
    """While one is made nobody is sent anything; from then on they are at hand."""
    for kind in ("gzip", "gzip, gzip", "deflate"):
        _zeros(kind)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"

ANSWERS: Mapping[str, Answer] = {
    "deflate bomb": _encoded("deflate", lambda: _zeros("deflate")),
    "gzip bomb": _encoded("gzip", lambda: _zeros("gzip")),
    "gzip in gzip": _encoded("gzip, gzip", lambda: _zeros("gzip, gzip")),
    "gzip that is none": _encoded("gzip", lambda: b"not gzip at all" * 99),
    "gzip, cut off": _encoded("gzip", lambda: _zeros("gzip")[:500]),
    "unknown encoding": _encoded("snake", lambda: b"x" * 500),
    "negative length": _raw(OK, b"Content-Length: -5\r\n\r\nPHOTO"),
    "length that is no number": _raw(OK, b"Content-Length: many\r\n\r\nPHOTO"),
    "two lengths": _raw(OK, b"Content-Length: 5\r\nContent-Length: 50000\r\n\r\nPHOTO"),
    "length and chunks": _raw(OK, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nPHOTO"),
    "9 exabytes announced": _raw(OK, b"Content-Length: 9223372036854775807\r\n\r\nPHOTO"),
    "length of 5,000 digits": _raw(OK, b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nPHOTO"),
    "chunk of 16 exabytes": _raw(OK, b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nPHOTO"),
    "chunks that are none": _raw(OK, b"Transfer-Encoding: chunked\r\n\r\nhello\r\nPHOTO\r\n0\r\n\r\n"),
    "header of 1 MB": _raw(OK, b"X-Long: " + b"x" * 2**20 + b"\r\nContent-Length: 1\r\n\r\nx"),
    "20,000 headers": _raw(OK, b"".join(b"X-%d: y\r\n" % n for n in range(20_000)), b"Content-Length: 1\r\n\r\nx"),
    "headers without end": _trickle(OK, b"X-More: " + b"y" * 4000 + b"\r\n", 0.001),
    "interim answers without end": _trickle(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20, 0.005),
    "interim answers, a few a second": _trickle(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.3),
    "headers, a byte at a time": _trickle(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"y", 0.1),
    "body, a byte at a time": _trickle(OK + b"Content-Length: 90000\r\n\r\n\xff\xd8\xff", b"y", 0.1),
    "chunks, a byte at a time": _trickle(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n", 0.1),
    "body without end": _trickle(OK + b"\r\n", b"\xff\xd8\xff" + bytes(2**16), 0.0),
    "no HTTP": _raw(b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 300),
    "no headers": _raw(b"PHOTO"),
    "status 99999": _raw(b"HTTP/1.1 99999 Odd\r\nContent-Length: 1\r\n\r\nx"),
    "status without a number": _raw(b"HTTP/1.1 OK\r\nContent-Length: 1\r\n\r\nx"),
    "NUL in a header": _raw(OK, b"X-A: a\0b\r\nContent-Length: 1\r\n\r\nx"),
    "bytes that are no text": _raw(
        b"HTTP/1.1 200 \xff\xfe\r\nX-\xff: \xff\xfe\r\nETag: \xff\r\nContent-Length: 1\r\n\r\nx"
    ),
    "another protocol": _raw(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nPHOTO"
    ),
    "no content": _status(204),
    "not modified": _status(304),
    "part of a photo": _status(206, Content_Range="bytes 0-0/1"),
    "redirected nowhere": _status(302),
    "redirected to nothing": _status(302, Location=""),
    "redirected to noise": _raw(b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\x01\r\nContent-Length: 0\r\n\r\n"),
    "wait until a date that is none": _status(503, Retry_After="Thu, 99 Foo 20266 99:99:99 GMT"),
    "names with paths": _odd_names,
}
"""By what is done."""

WAITS = {
    "for ever": "99999999999999999999999999",
    "5,000 digits": "9" * 5000,
    "other digits": "\u00b2",
    "the last day": "Fri, 31 Dec 9999 23:59:59 -2359",
    "no date": "Thu, 99 Foo 20266 99:99:99 GMT",
}
"""What a server may say in Retry-After."""

SLOW = {
    "interim answers without end",
    "interim answers, a few a second",
    "headers, a byte at a time",
    "body, a byte at a time",
    "chunks, a byte at a time",
}
"""They take as long as the client lets them."""

URLS: Mapping[str, str] = {
    "loopback": "http://127.0.0.1/N.jpg",
    "decimal": "http://2130706433/N.jpg",
    "hexadecimal": "http://0x7f000001/N.jpg",
    "hexadecimal bytes": "http://0x7f.0x0.0x0.0x1/N.jpg",
    "octal": "http://0177.0.0.1/N.jpg",
    "octal, padded": "http://00000177.000.000.0001/N.jpg",
    "two parts": "http://127.1/N.jpg",
    "three parts": "http://10.0.258/N.jpg",
    "zero": "http://0/N.jpg",
    "unspecified": "http://0.0.0.0/N.jpg",
    "IPv6 unspecified": "http://[::]/N.jpg",
    "IPv6 loopback": "http://[::1]/N.jpg",
    "IPv4 in IPv6": "http://[::ffff:127.0.0.1]/N.jpg",
    "IPv4 in IPv6, hexadecimal": "http://[::ffff:7f00:1]/N.jpg",
    "IPv4-compatible": "http://[::127.0.0.1]/N.jpg",
    "translated": "http://[64:ff9b::10.0.0.1]/N.jpg",
    "local translation": "http://[64:ff9b:1::10.0.0.1]/N.jpg",
    "6to4": "http://[2002:7f00:1::]/N.jpg",
    "link-local with a zone": "http://[fe80::1%25lo]/N.jpg",
    "unique local": "http://[fd00::1]/N.jpg",
    "site-local": "http://[fec0::1]/N.jpg",
    "metadata": "http://169.254.169.254/latest/meta-data/N",
    "carrier": "http://100.64.0.1/N.jpg",
    "multicast": "http://224.0.0.1/N.jpg",
    "broadcast": "http://255.255.255.255/N.jpg",
    "name of this machine": "http://localhost/N.jpg",
    "name with a dot": "http://localhost./N.jpg",
    "capitals": "http://LOCALHOST/N.jpg",
    "digits in circles": "http://①②⑦.⓪.⓪.①/N.jpg",
    "wide digits": "http://１２７.０.０.１/N.jpg",
    "wide dots": "http://127。0。0。1/N.jpg",
    "escaped": "http://%31%32%37.0.0.1/N.jpg",
    "soft hyphen": "http://local\u00adhost/N.jpg",
    "user": "http://ADDRESS@10.0.0.1/N.jpg",
    "user and password": "http://ADDRESS:x@10.0.0.1/N.jpg",
    "two users": "http://a@ADDRESS@10.0.0.1/N.jpg",
    "user behind a backslash": "http://10.0.0.1\\@ADDRESS/N.jpg",
    "backslash": "http://ADDRESS\\@10.0.0.1/N.jpg",
    "fragment": "http://10.0.0.1#@ADDRESS/N.jpg",
    "query": "http://10.0.0.1?@ADDRESS/N.jpg",
    "backslashes": "http:\\\\10.0.0.1\\N.jpg",
    "no slashes": "http:10.0.0.1/N.jpg",
    "one slash": "http:/10.0.0.1/N.jpg",
    "three slashes": "http:///10.0.0.1/N.jpg",
    "tab in the host": "http://10.0\t.0.1/N.jpg",
    "line in the host": "http://10.0.0.1\r\nHost: ADDRESS/N.jpg",
    "NUL in the host": "http://10.0.0.1\0.example.org/N.jpg",
    "space in the host": "http://10.0.0.1 ADDRESS/N.jpg",
    "second request": "http://ADDRESS/N.jpg HTTP/1.1\r\nHost: x\r\n\r\nGET /private",
    "second request, escaped": "http://ADDRESS/N.jpg%20HTTP/1.1%0d%0aHost:%20x",
    "long host": "http://" + "a" * 300 + ".example.org/N.jpg",
    "long label": "http://" + "a" * 64 + ".example.org/N.jpg",
    "empty label": "http://a..example.org/N.jpg",
    "only dots": "http://.../N.jpg",
    "odd letters": "http://\u200b\u202e.example.org/N.jpg",
    "half a letter": "http://\ud800.example.org/N.jpg",
    "no host": "http:///N.jpg",
    "port 22": "http://10.0.0.1:22/N.jpg",
    "port 0": "http://10.0.0.1:0/N.jpg",
    "port that is no number": "http://10.0.0.1:x/N.jpg",
    "port in other digits": "http://10.0.0.1:８０/N.jpg",
    "port of six digits": "http://10.0.0.1:655440/N.jpg",
    "brackets": "http://[10.0.0.1]/N.jpg",
    "brackets, open": "http://[::1/N.jpg",
    "future address": "http://[v1.10.0.0.1]/N.jpg",
    "file": "file:///etc/passwd?N",
    "file of a host": "file://localhost/etc/passwd?N",
    "path": "/etc/passwd?N",
    "network path": "\\\\10.0.0.1\\share\\N.jpg",
    "gopher": "gopher://10.0.0.1:80/_N",
    "data": "data:image/jpeg;base64,N",
    "websocket": "ws://10.0.0.1/N.jpg",
    "path upward": "http://ADDRESS/../../../../../../../../etc/passwd?N",
    "path upward, escaped": "http://ADDRESS/%2e%2e%2f%2e%2e%2f..%5c..%5cetc/passwd?N",
    "long path": "http://ADDRESS/" + "x" * 20_000 + "?N",
    "path of odd letters": "http://ADDRESS/ü\u202e\ud800\0/N",
    "changing name": "http://N.rebind.test/N.jpg",
    "name of a private address": "http://N.private.test/N.jpg",
    "name of both": "http://N.both.test/N.jpg",
    "name of an IPv4 in IPv6": "http://N.mapped.test/N.jpg",
    "name of metadata": "http://N.metadata.test/N.jpg",
    "name of nothing": "http://N.nothing.test/N.jpg",
}
"""Addresses; `N` stands for the number of a photo, ADDRESS for the server that may be reached."""

NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "rebind.test": (("93.184.216.34",), ("127.0.0.1",), ("10.0.0.1",), ("93.184.216.34",), ("169.254.169.254",)),
    "private.test": (("192.168.1.1",),),
    "both.test": (("93.184.216.34", "10.0.0.1"),),
    "mapped.test": (("::ffff:127.0.0.1",),),
    "metadata.test": (("169.254.169.254",),),
    "nothing.test": ((),),
}
"""What these names resolve to, each time that they are asked for; the last one from then on."""


def url_of(kind: str, number: int, address: str) -> str:
    """An address of a kind."""
    return URLS[kind].replace("ADDRESS", address).replace("N", str(number))
