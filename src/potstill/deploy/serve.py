"""The page to try photos on: teacher, distilled and alone side by side. A gradio page on loopback."""

import os
import socket
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from potstill.deploy.predictor import Predictor, chosen_student, load_predictor, predicted_class, teacher_predictor
from potstill.errors import PotstillError
from potstill.images.decode import decode_file
from potstill.images.errors import BadPhotoError
from potstill.run.folder import Run
from potstill.run.integrity import require_whole
from potstill.wording import counted

MAX_MEGABYTES = 20
MAX_PIXELS = 30_000_000
"""Photos above this are refused, JPEGs decoded at a reduced scale: several people's photos are in memory at once."""

AT_ONCE = 2
"""Photos answered at the same time; up to WAITING more wait for their turn."""

WAITING = 64
FORGET_SECONDS = 600
"""Uploaded photos are deleted after this time."""

SHOWN = 5
FONT = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")

WHAT_TO_DO = {
    "not_image": "Please take a photo file: JPEG, PNG, WebP, TIFF or AVIF.",
    "needs_extra": "Please take a JPEG, or ask who runs this page to install it.",
    "too_large": f"Please take a JPEG, or a photo of at most {MAX_PIXELS / 1e6:.0f} megapixels and {MAX_MEGABYTES} MB.",
    "corrupt": "The file is damaged or cut off. Please take another copy.",
    "empty": "The file is empty. Please take another copy.",
}


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one model predicts for one photo."""

    probabilities: np.ndarray
    """(C,)"""
    known: bool
    milliseconds: float
    """From decoded photo to probabilities, resizing included."""


@dataclass(frozen=True, slots=True)
class Served:
    """One column of the page: the teacher (all of its models), the distilled student, or its twin."""

    arm: str
    predictors: tuple[Predictor, ...]

    @property
    def megabytes(self) -> float:
        return sum((p.folder / "model.safetensors").stat().st_size for p in self.predictors) / 1e6

    def predict(self, photo: np.ndarray) -> Outputs:
        """Classify an upright (H, W, 3) uint8 RGB array."""
        started = time.perf_counter()
        predictions = [predictor.predict(photo) for predictor in self.predictors]
        milliseconds = 1000 * (time.perf_counter() - started)
        values = np.mean([list(p.probabilities.values()) for p in predictions], axis=0)
        threshold = self.predictors[0].threshold
        return Outputs(values, bool(values.max() >= threshold), milliseconds)


def load_models(run: Run, student: str | None = None) -> list[Served]:
    """Teacher, distilled and alone of a finished run. Raises ModelError for an unknown student."""
    name = student or chosen_student(run)
    teachers = tuple(teacher_predictor(run, path.parent) for path in sorted(run.teacher.rglob("model.json")))
    students = [Served(arm, (load_predictor(run.path, student=name, arm=arm),)) for arm in ("distilled", "alone")]
    models = [*students, Served("teacher", teachers)]
    for model in models:
        model.predict(np.zeros((64, 64, 3), np.uint8))  # the first prediction of a model takes several times as long
    return models


def prediction_page(models: list[Served], path: str | None) -> str:
    """The HTML below the photo: three predictions, or a friendly refusal."""
    if path is None:
        return ""
    try:
        decoded = decode_file(Path(path), max_pixels=MAX_PIXELS, gray=models[0].predictors[0].gray)
    except BadPhotoError as error:
        advice = WHAT_TO_DO.get(error.code, "Please take another photo.")
        return (
            f'<div class="refused" role="alert"><b>This file cannot be used as a photo:</b> {escape(error.reason)}. '
            f"{advice}</div>"
        )
    photo = np.asarray(decoded.image)
    columns = "".join(_column(model, model.predict(photo)) for model in models)
    return f'<div class="answers" role="status">{columns}</div>'


def _column(model: Served, outputs: Outputs) -> str:
    classes, point = model.predictors[0].classes, model.predictors[0].operating_point
    best = classes.index(predicted_class(dict(zip(classes, outputs.probabilities, strict=True)), point))
    order = np.argsort(-outputs.probabilities, kind="stable")[:SHOWN]
    bars = "".join(
        f'<li><span>{escape(classes[i])}</span><span class="share">{100 * outputs.probabilities[i]:.1f} %</span>'
        f'<i style="width:{100 * outputs.probabilities[i]:.1f}%"></i></li>'
        for i in order
    )
    unsure = "" if outputs.known else '<p class="unsure">Unsure: perhaps not one of these classes.</p>'
    if point is not None:
        unsure += (
            f'<p class="cost">{escape(point.class_name)} from {100 * point.threshold:.1f} % on, to find '
            f"{100 * point.recall:g} % of it.</p>"
        )
    name = " + ".join(predictor.info.name for predictor in model.predictors)
    more = f"<small>and {counted(len(classes) - SHOWN, 'more class')}</small>" if len(classes) > SHOWN else ""
    return (
        f'<section class="answer {model.arm}" data-arm="{model.arm}" data-label="{escape(classes[best])}" '
        f'data-probability="{outputs.probabilities[best]:.6f}"><h3>{model.arm}</h3>'
        f'<p class="best">{escape(classes[best])}</p>'
        f"{unsure}<ul>{bars}</ul>{more}<p class=cost>{outputs.milliseconds:.1f} ms · {model.megabytes:.2f} MB · "
        f"{escape(name)}</p></section>"
    )


def build_page(run: Run, student: str | None = None) -> Any:
    """The gradio page of a run. Raises PotstillError where gradio is missing."""
    gradio = _gradio()
    models = load_models(run, student)
    classes = models[0].predictors[0].classes
    with gradio.Blocks(
        title="Potstill: try a photo", analytics_enabled=False, delete_cache=(FORGET_SECONDS, FORGET_SECONDS)
    ) as page:
        gradio.Markdown(
            f"# Try a photo\n{', '.join(classes[:12])}{' and more' if len(classes) > 12 else ''}. "
            "Drop, paste or take a photo; the small model (distilled), its twin (alone) and the teacher classify it. "
            "Photos stay on this machine and are deleted after ten minutes."
        )
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                photo = gradio.Image(
                    label="Photo",
                    sources=["upload", "clipboard", "webcam"],
                    type="filepath",
                    height=380,
                    elem_id="photo",
                )
            with gradio.Column(scale=2, min_width=320):
                result = gradio.HTML(elem_id="answers", min_height=380)
        # gradio would decode the file itself, with other rules and an unfriendly error: hand over the path.
        photo.preprocess = lambda payload: None if payload is None else payload.path
        photo.change(
            lambda path: prediction_page(models, path), photo, result, api_name="classify", concurrency_limit=AT_ONCE
        )
        page.queue(max_size=WAITING)
    return page


def serve(
    run_folder: Path, *, student: str | None = None, host: str = "127.0.0.1", port: int = 7860, block: bool = True
) -> tuple[Any, str]:
    """Serve the page until interrupted.

    Args:
        host: an address of this machine; loopback means that nobody else can reach it.
        port: 0 takes any free one.
        block: False returns at once; close the page with its `close()`.
    Returns:
        The gradio page and its address.
    """
    run, gradio = Run.open(run_folder), _gradio()  # a wrong folder is noticed before the slow import
    require_whole(run.path)
    try:
        port = _free_port(host, port)  # before the models are loaded, which takes a while
        page = build_page(run, student)
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            max_file_size=f"{MAX_MEGABYTES}mb",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            theme=gradio.themes.Soft(font=FONT, font_mono=("ui-monospace", "monospace")),
            css_paths=Path(__file__).with_suffix(".css"),
        )
    except OSError as error:
        raise PotstillError(f"The page cannot be served on {host}:{port}: {error}. Choose another --port.") from None
    if block:
        page.block_thread()
    return page, str(url)


def _gradio() -> Any:
    # Read when gradio is imported: no statistics to others, no look for updates.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ModuleNotFoundError:
        raise PotstillError("The page needs gradio. Install it: pip install 'potstill[serve]'") from None
    return gradio


def _free_port(host: str, port: int) -> int:
    """The port, or any free one for 0. Raises OSError where it is taken or the host is not this machine's."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
