"""What a bad server does instead of sending a photo. Each function answers one request."""

import asyncio
import functools
import gzip
import io
from collections.abc import Awaitable, Callable

from aiohttp import web
from PIL import Image

Fault = Callable[[web.Request, bytes, int], Awaitable[web.StreamResponse | None]]
"""Of the request, the photo that should be sent, and how often it was asked for before. None: send the photo."""


async def html(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(text="<!DOCTYPE html><html>This photo is no longer available</html>", content_type="image/jpeg")


async def json_text(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(text='{"error": "no"}', content_type="image/jpeg")


async def empty(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(body=b"", content_type="image/jpeg")


async def truncated(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    """Half a photo whose length is told right: only decoding shows it."""
    return web.Response(body=photo[: len(photo) // 2], content_type="image/jpeg")


async def cut_short(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    """Promises the whole photo, sends half, closes; the second time it sends it all."""
    if before:
        return None
    return await _wrong_length(request, photo)


async def wrong_length(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    """Always promises more than it sends."""
    return await _wrong_length(request, photo)


async def _wrong_length(request: web.Request, photo: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(photo)), "Content-Type": "image/jpeg"})
    await response.prepare(request)
    await response.write(photo[: len(photo) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def slow_drip(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
    await response.prepare(request)
    for start in range(200):
        await response.write(photo[start : start + 1])
        await asyncio.sleep(0.05)
    return response


async def silence(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    await asyncio.sleep(10)
    return None


async def endless(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
    await response.prepare(request)
    while True:
        await response.write(photo + bytes(2**16))


async def loop(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    raise web.HTTPFound(request.path_qs)


async def ladder(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    """A new redirect each time, for ever."""
    raise web.HTTPFound(f"{request.path}?{before + 1}")


async def to_metadata(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")


async def to_loopback(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    raise web.HTTPFound("http://[::1]/secret.jpg")


async def to_file(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    raise web.HTTPFound("file:///etc/passwd")


async def to_placeholder(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    raise web.HTTPFound("https://s.yimg.com/pw/images/en-us/photo_unavailable_l.png")


async def pixel_bomb(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(body=_pixel_bomb(), content_type="image/png")


async def gzip_bomb(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(body=_gzip_bomb(), content_type="image/jpeg", headers={"Content-Encoding": "gzip"})


async def gone(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    raise web.HTTPNotFound(text="<html>gone</html>")


async def forbidden(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    raise web.HTTPForbidden


async def opted_out(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(body=photo, content_type="image/jpeg", headers={"X-Robots-Tag": "noai, noimageai"})


async def busy_once(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    if before:
        return None
    raise web.HTTPServiceUnavailable


async def too_many_once(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    if before:
        return None
    raise web.HTTPTooManyRequests(headers={"Retry-After": "1"})


async def broken(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    raise web.HTTPInternalServerError


async def reset(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    """Hangs up without a word, once."""
    if before:
        return None
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def notice(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    """The same picture for every address."""
    return web.Response(body=_NOTICE, content_type="image/png")


async def flickr_notice(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    """2,051 bytes of PNG, as Flickr once sent for lost photos."""
    return web.Response(body=_picture((70, 66), (0, 0, 0)).ljust(2051, b"\0"), content_type="image/png")


async def svg(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(
        text='<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>', content_type="image/jpeg"
    )


async def pdf(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(body=b"%PDF-1.7\n", content_type="image/jpeg")


async def tiny(request: web.Request, photo: bytes, before: int) -> web.StreamResponse | None:
    return web.Response(body=_picture((20, 20), (200, 30, 30)), content_type="image/png")


def _picture(size: tuple[int, int], color: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, "PNG")
    return out.getvalue()


@functools.cache
def _pixel_bomb() -> bytes:
    """A PNG of some kilobytes that would be 10,000 × 10,000 pixels."""
    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "PNG", optimize=True)
    return out.getvalue()


@functools.cache
def _gzip_bomb() -> bytes:
    """Some kilobytes that unpack to 64 MiB."""
    return gzip.compress(bytes(64 * 2**20), 6)


_NOTICE = _picture((240, 180), (0, 0, 0))

PERMANENT: dict[str, tuple[Fault, str]] = {
    "html": (html, "not_image"),
    "json": (json_text, "not_image"),
    "svg": (svg, "not_image"),
    "pdf": (pdf, "not_image"),
    "empty": (empty, "empty"),
    "truncated": (truncated, "corrupt"),
    "wrong_length": (wrong_length, "cut_short"),
    "slow_drip": (slow_drip, "timeout"),
    "silence": (silence, "timeout"),
    "endless": (endless, "too_large"),
    "loop": (loop, "redirects"),
    "ladder": (ladder, "redirects"),
    "to_metadata": (to_metadata, "address"),
    "to_loopback": (to_loopback, "address"),
    "to_file": (to_file, "address"),
    "to_placeholder": (to_placeholder, "placeholder"),
    "flickr_notice": (flickr_notice, "placeholder"),
    "pixel_bomb": (pixel_bomb, "too_large"),
    "gzip_bomb": (gzip_bomb, "too_large"),
    "gone": (gone, "gone"),
    "forbidden": (forbidden, "refused"),
    "opted_out": (opted_out, "opted_out"),
    "broken": (broken, "server_error"),
    "tiny": (tiny, "too_small"),
}
"""Faults that last, and the reason code that must come of each."""

PASSING: dict[str, Fault] = {
    "cut_short": cut_short,
    "busy_once": busy_once,
    "too_many_once": too_many_once,
    "reset": reset,
}
"""Faults after which the photo comes."""
