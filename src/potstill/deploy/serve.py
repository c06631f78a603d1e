"""The page to try photos on: teacher, distilled and alone side by side, on loopback unless told otherwise."""

import asyncio
import contextlib
import functools
import logging
import socket
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any, Self

import numpy as np
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from potstill.deploy.predictor import (
    LabelsPrediction,
    Predictor,
    chosen_student,
    load_predictor,
    prediction_of,
    teacher_predictor,
)
from potstill.deploy.visitors import Visitors, is_wildcard, names_of
from potstill.errors import PotstillError
from potstill.images.decode import decode
from potstill.images.errors import BadPhotoError
from potstill.run.folder import Run
from potstill.run.integrity import require_whole
from potstill.run.layout import ARMS, is_trained, num_seeds, weights_path
from potstill.storage.runs import local_run

MAX_PIXELS = 30_000_000
"""Photos above this are refused, JPEGs decoded at a reduced scale: several people's photos are in memory at once."""

SHOWN = 5
"""Classes, the most probable ones, that the page shows of each model."""

SHOWN_LABELS = 40
"""The same where a photo may have several labels; those that it has are all shown."""

NAMED = 12
"""Classes that the page names in its first sentence."""

PAGE = Path(__file__).parent / "page"

WHAT_TO_DO = {
    "not_image": "Please take a photo file: JPEG, PNG, WebP, TIFF or AVIF.",
    "needs_extra": "Please take a JPEG, or ask who runs this page to install it.",
    "too_large": f"Please take a JPEG, or a photo of at most {MAX_PIXELS / 1e6:.0f} megapixels.",
    "corrupt": "The file is damaged or cut off. Please take another copy.",
    "empty": "The file is empty. Please take another copy.",
}


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one model predicts for one photo."""

    probabilities: np.ndarray
    """(C,)"""
    milliseconds: float
    """From decoded photo to probabilities, resizing included."""


@dataclass(frozen=True, slots=True)
class Served:
    """One column of the page: the teacher (all of its models), the distilled student, or its twin."""

    arm: str
    predictors: tuple[Predictor, ...]

    @property
    def megabytes(self) -> float:
        return sum(weights_path(p.folder).stat().st_size for p in self.predictors) / 1e6

    def predict(self, photo: np.ndarray) -> Outputs:
        """Classify an upright (H, W, 3) uint8 RGB array."""
        started = time.perf_counter()
        predictions = [predictor.predict(photo) for predictor in self.predictors]
        milliseconds = 1000 * (time.perf_counter() - started)
        values = np.mean([list(p.probabilities.values()) for p in predictions], axis=0)
        return Outputs(values, milliseconds)


def load_models(run: Run, student: str | None = None) -> list[Served]:
    """Distilled, alone where there is a twin, and teacher, unless it is a file of soft labels. Raises ModelError for an
    unknown student."""
    name, seeds = student or chosen_student(run), num_seeds(run)
    teachers = tuple(teacher_predictor(run, path.parent) for path in sorted(run.teacher.rglob("model.json")))
    arms = [arm for arm in ARMS if arm == "distilled" or is_trained(run, name, seeds, (arm,))]
    students = [Served(arm, (load_predictor(run.path, student=name, arm=arm),)) for arm in arms]
    models = [*students, *([Served("teacher", teachers)] if teachers else [])]
    for model in models:
        model.predict(np.zeros((64, 64, 3), np.uint8))  # the first prediction of a model takes several times as long
    return models


def classify(models: list[Served], photo: bytes) -> dict[str, Any]:
    """What the models predict for a photo file, for JSON: `predictions`, one per model, or why it is `refused`."""
    try:
        decoded = decode(photo, max_pixels=MAX_PIXELS, gray=models[0].predictors[0].gray)
    except BadPhotoError as error:
        advice = WHAT_TO_DO.get(error.code, "Please take another photo.")
        return {"refused": f"This file cannot be used as a photo: {error.reason}. {advice}"}
    pixels = np.asarray(decoded.image)
    return {"predictions": [_column(model, model.predict(pixels)) for model in models]}


def _column(model: Served, outputs: Outputs) -> dict[str, Any]:
    decides = model.predictors[0]
    prediction = prediction_of(decides, outputs.probabilities)
    facts = {
        "arm": model.arm,
        "probabilities": prediction.probabilities,
        "milliseconds": outputs.milliseconds,
        "megabytes": model.megabytes,
        "model": " + ".join(predictor.info.name for predictor in model.predictors),
    }
    if isinstance(prediction, LabelsPrediction):
        thresholds = dict(zip(decides.classes, decides.thresholds, strict=True))
        shown = max(SHOWN_LABELS, len(prediction.labels))
        return {**facts, "labels": prediction.labels, "thresholds": thresholds, "shown": shown}
    point = decides.operating_point
    return {
        **facts,
        "label": prediction.label,
        "probability": prediction.probability,
        "known": prediction.known,
        "operating_point": None if point is None else asdict(point),
        "shown": SHOWN,
    }


def page_files(classes: Collection[str]) -> dict[str, tuple[str, str]]:
    """The files of the page by their path: content type and text."""
    named = ", ".join(list(classes)[:NAMED]) + (" and more" if len(classes) > NAMED else "")
    page = Template((PAGE / "index.html").read_text("utf-8")).substitute(classes=escape(named))
    return {
        "/": ("text/html", page),
        "/app.js": ("text/javascript", (PAGE / "app.js").read_text("utf-8")),
        "/style.css": ("text/css", (PAGE / "style.css").read_text("utf-8")),
    }


def serve(
    run_folder: Path,
    *,
    student: str | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    allow_hosts: Collection[str] = (),
) -> "Page":
    """Serve the page from a thread of its own.

    Args:
        host: an address of this machine; loopback means that nobody else can reach it.
        port: 0 takes any free one.
        allow_hosts: names under which the page may be asked for, beside addresses and the name of this machine.
    Raises:
        PotstillError: the address cannot be listened on, or the run has no trained student.
    """
    run = Run.open(local_run(run_folder, pixels=True))
    require_whole(run.path)
    with contextlib.ExitStack() as undo:
        listening = undo.enter_context(listen(host, port))  # before the models are loaded, which takes a while
        models = load_models(run, student)
        visitors = Visitors(
            functools.partial(classify, models), names_of(host, allow_hosts), any_address=is_wildcard(host)
        )
        page = Page(visitors.application(page_files(models[0].predictors[0].classes)), listening)
        undo.pop_all()
    return page


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address of this machine. Raises PotstillError where it cannot."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError, OverflowError) as error:
        raise PotstillError(f"The page cannot be served on {host}:{port}: {error}. Choose another --port.") from None


def _is_our_fault(record: logging.LogRecord) -> bool:
    """False for what is not HTTP, which anyone may send: it is answered with 400, and aiohttp logs a traceback."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_log = logging.getLogger(__name__)
_log.addFilter(_is_our_fault)


class Page:
    """A page that is served until `close()`. Also a context manager."""

    def __init__(self, app: web.Application, listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        shown = "127.0.0.1" if host == "0.0.0.0" else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}/"
        self._runner = web.AppRunner(
            app, access_log=None, logger=_log, shutdown_timeout=1.0, keepalive_timeout=15.0, lingering_time=2.0
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="page", daemon=True)
        self._thread.start()  # a notebook has a loop of its own in this thread
        asyncio.run_coroutine_threadsafe(self._start(listening), self._loop).result()

    async def _start(self, listening: socket.socket) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, listening, backlog=512).start()

    def wait(self) -> None:
        """Return once the page is closed, which may be never."""
        while self._thread.is_alive():
            self._thread.join(1.0)  # a wait without end would not hear Ctrl-C on all systems

    def close(self) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
