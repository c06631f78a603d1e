"""The page to label photos with keys: `potstill suggest RUN --label`. On loopback, and under an address that only this
program prints: whoever does not know it, other users of this machine too, cannot move a photo.

    GET  /KEY/             the page, its script and its style
    GET  /KEY/state        what is to be labeled, and how far it is
    GET  /KEY/photo/N      the photo N of the list, made smaller
    POST /KEY/label        {"photo": N, "label": CLASS}: moves or copies it
    POST /KEY/skip         {"photo": N}
    POST /KEY/undo         {}: takes the last label, or skip, back
"""

import asyncio
import contextlib
import io
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from PIL import Image

from potstill.data.pixels import PixelStore
from potstill.deploy.serve import Page, listen
from potstill.deploy.visitors import Guard, RefusedError, names_of
from potstill.errors import DataError, PotstillError
from potstill.images.decode import decode_file
from potstill.images.depth import GrayLevels
from potstill.images.errors import BadPhotoError
from potstill.run.folder import Run
from potstill.run.layout import journal_path
from potstill.suggest.labeling import Labeler, class_folders
from potstill.suggest.pool import RunPhotos
from potstill.suggest.suggestions import Suggestion, Suggestions
from potstill.wording import counted

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"

MAX_BODY = 10_000
"""Bytes of a request: a number and the name of a class."""

BODY_SECONDS = 10.0
"""What a request may take to arrive."""

SIDE = 720
"""Shorter side of the photos that the page shows, in pixels."""

MAX_PIXELS = 60_000_000
"""Photos above this are shown as the run has packed them, small."""

KEYS = "123456789abcdefghijklmnopqrtvwxyz"
"""Of the classes, in their order; s and u are for skip and undo."""


@dataclass
class Session:
    """What is left to do, for the page. One call at a time."""

    labeler: Labeler
    photos: tuple[Suggestion, ...]
    classes: tuple[str, ...]
    skipped: list[int] = field(default_factory=list)
    """Positions of photos that were skipped, since the page was started."""
    steps: list[int | None] = field(default_factory=list)
    """What can be undone since then: the position of a photo that was skipped, or None for a label."""

    def state(self) -> dict[str, Any]:
        """For JSON."""
        open_ones = [number for number, photo in enumerate(self.photos) if self._is_open(number, photo)]
        listed = {photo.path for photo in self.photos}
        counts = Counter(step.label for step in self.labeler.steps if step.path in listed)
        return {
            "total": len(self.photos),
            "labeled": counts.total(),
            "skipped": len(self.skipped),
            "left": len(open_ones),
            "photo": self._photo(open_ones[0]) if open_ones else None,
            "next": open_ones[1] if len(open_ones) > 1 else None,
            "classes": [
                {"name": name, "key": KEYS[place] if place < len(KEYS) else "", "photos": counts[name]}
                for place, name in enumerate(self.classes)
            ],
            "can_undo": bool(self.steps or self.labeler.steps),
        }

    def _is_open(self, number: int, photo: Suggestion) -> bool:
        return number not in self.skipped and self.labeler.is_open(photo.path)

    def _photo(self, number: int) -> dict[str, Any]:
        photo = self.photos[number]
        return {"number": number, "path": photo.path, "why": photo.why}

    def lines(self) -> list[str]:
        """For people: how far it is, and which classes the labels are of."""
        state = self.state()
        by_class = ", ".join(f"{item['photos']:,} {item['name']}" for item in state["classes"] if item["photos"])
        given = f" ({by_class})" if by_class else ""
        return [f"{state['labeled']:,} of {counted(state['total'], 'photo')} labeled{given}, {state['left']:,} left."]

    def label(self, number: int, label: str) -> None:
        """Give a photo of the list its label. Raises as `Labeler.give` does."""
        self.labeler.give(self.photos[number].path, label)
        self.steps.append(None)

    def skip(self, number: int) -> None:
        """Do not show a photo again before the page is started again."""
        if number not in self.skipped:
            self.skipped.append(number)
            self.steps.append(number)

    def undo(self) -> None:
        """Take back what was done last. Raises as `Labeler.undo` does."""
        if self.steps and (number := self.steps[-1]) is not None:
            self.skipped.remove(number)
        else:
            self.labeler.undo()
        if self.steps:
            self.steps.pop()


class _Application:
    """The requests of one page."""

    def __init__(self, session: Session, store: PixelStore, gray: GrayLevels) -> None:
        self._session, self._store, self._gray = session, store, gray
        self._one = ThreadPoolExecutor(1, thread_name_prefix="labels")  # photos are moved one after the other
        self._pictures = ThreadPoolExecutor(2, thread_name_prefix="pictures")

    def routes(self, app: web.Application, prefix: str) -> None:
        app.router.add_get(f"{prefix}/state", self._state)
        app.router.add_get(f"{prefix}/photo/{{number:[0-9]{{1,9}}}}", self._photo)
        for name, work in (("label", self._label), ("skip", self._skip), ("undo", self._undo)):
            app.router.add_post(f"{prefix}/{name}", self._changing(work))

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(await self._in_turn(self._session.state))

    async def _in_turn(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._one, work)

    def _changing(
        self, work: Callable[[Mapping[str, Any]], None]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler that does something with the body's values, and responds with the new state."""

        async def handle(request: web.Request) -> web.Response:
            values = await _body(request)

            def both() -> dict[str, Any]:
                work(values)
                return self._session.state()

            try:
                return web.json_response(await self._in_turn(both))
            except PotstillError as error:
                raise RefusedError(409, str(error)) from None
            except OSError as error:
                raise RefusedError(409, f"{error.strerror}. The photo is where it was.") from None

        return handle

    def _label(self, values: Mapping[str, Any]) -> None:
        self._session.label(self._number(values), str(values.get("label")))

    def _skip(self, values: Mapping[str, Any]) -> None:
        self._session.skip(self._number(values))

    def _undo(self, values: Mapping[str, Any]) -> None:
        self._session.undo()

    def _number(self, values: Mapping[str, Any]) -> int:
        number = values.get("photo")
        if type(number) is not int or not 0 <= number < len(self._session.photos):
            raise PotstillError("There is no such photo on the list.")
        return number

    async def _photo(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number >= len(self._session.photos):
            raise RefusedError(404, "There is no such photo on the list.")
        data = await asyncio.get_running_loop().run_in_executor(self._pictures, self._picture, number)
        return web.Response(body=data, content_type="image/jpeg")

    def _picture(self, number: int) -> bytes:
        """A JPEG of the photo; of the packed one, which is smaller, where the file cannot be shown."""
        photo = self._session.photos[number]
        try:
            path = self._session.labeler.root / photo.path
            image = decode_file(path, short_side=SIDE, max_pixels=MAX_PIXELS, gray=self._gray).image
        except BadPhotoError:
            image = self._store.photo(photo.row)
        image.thumbnail((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR)  # panoramas
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


async def _body(request: web.Request) -> Mapping[str, Any]:
    """The values of a small JSON object. Other sites' pages cannot send its content type without asking first."""
    if request.content_type != "application/json":
        raise RefusedError(415, "Send JSON.")
    if (request.content_length or 0) > MAX_BODY:
        raise RefusedError(413, "The request is too large.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await request.content.read(MAX_BODY + 1)
            while len(data) <= MAX_BODY and (part := await request.content.read(MAX_BODY)):
                data += part
    except TimeoutError:
        raise RefusedError(408, "The request took too long.") from None
    except (OSError, web.RequestPayloadError):
        raise RefusedError(400, "The request was cut off.") from None
    if len(data) > MAX_BODY:
        raise RefusedError(413, "The request is too large.")
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(data)
        if isinstance(values, dict):
            return values
    raise RefusedError(400, "Send a JSON object.")


def page_files(prefix: str) -> dict[str, tuple[str, str]]:
    """The files of the page by their path: content type and text."""
    kinds = {
        "": ("index.html", "text/html"),
        "app.js": ("app.js", "text/javascript"),
        "style.css": ("style.css", "text/css"),
    }
    return {f"{prefix}/{path}": (kind, (PAGE / name).read_text("utf-8")) for path, (name, kind) in kinds.items()}


def application(session: Session, store: PixelStore, gray: GrayLevels, prefix: str) -> web.Application:
    """The page and its requests, below the path `prefix`."""
    app = Guard(names_of(HOST)).application(page_files(prefix))
    _Application(session, store, gray).routes(app, prefix)
    return app


def open_session(run: Run, photos: RunPhotos, found: Suggestions, *, copy: bool = False) -> Session:
    """What is left to do of a list.

    Raises:
        DataError: the labels of this run are not folders; a photo or a class folder is not really in the photo folder;
            no photo of the list is without a label.
    """
    folders = class_folders(photos)
    listed = tuple(photo for photo in found.photos if photo.path not in photos.labeled)
    if not listed:
        raise DataError("All suggested photos are in class folders already: images.per_class withholds their labels.")
    return Session(Labeler(photos.folder.root, folders, listed, journal_path(run), copy=copy), listed, tuple(folders))


def serve_labeling(run: Run, session: Session, *, port: int = 0) -> tuple[Page, str]:
    """Serve the page on loopback, from a thread of its own.

    Args:
        port: 0 takes any free one.
    Returns:
        The page, and its address.
    Raises:
        PotstillError: the port cannot be listened on.
    """
    prefix = f"/{secrets.token_urlsafe(16)}"
    gray = GrayLevels.of(run.gray_levels())
    page = Page(application(session, PixelStore(run.images), gray, prefix), listen(HOST, port))
    return page, page.url.rstrip("/") + f"{prefix}/"
