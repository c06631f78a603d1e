"""`RUN/suggest/index.html`: the list as a page of small pictures, without scripts and without requests."""

import base64
import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from potstill.data.pixels import PixelStore
from potstill.report.page import POLICY
from potstill.report.photos import small_picture
from potstill.run.files import write_text
from potstill.run.folder import Run
from potstill.run.layout import suggest_folder
from potstill.run.private import without_owner
from potstill.suggest.pool import RunPhotos
from potstill.suggest.suggestions import Suggestions
from potstill.wording import counted


def write_listing(run: Run, photos: RunPhotos, found: Suggestions, *, links: bool = False) -> Path:
    """Write the page. Returns its path.

    Args:
        links: link each picture to its file by an absolute path. Otherwise links are relative, and there are none where
            a relative path would name folders that have nothing to do with photos and runs.
    """
    folder, store = suggest_folder(run), PixelStore(run.images)
    base = _base(photos.folder.root.resolve(), folder.resolve(), absolute=links)
    shown = [
        {**asdict(photo), "picture": small_picture(store, photo.row), "link": base and base + quote(photo.path)}
        for photo in found.photos
    ]
    style = (Path(__file__).parent / "list.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("potstill.suggest", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    page = environment.get_template("page.html.jinja").render(
        title=without_owner(run.path.resolve().name),
        photos=shown,
        pool=found.pool,
        notes=found.notes,
        style=Markup(style),
        policy=POLICY.format(style=digest),
    )
    write_text(folder / "index.html", page)
    return folder / "index.html"


def _base(data: Path, page: Path, *, absolute: bool) -> str:
    """What the links to photos begin with; empty for no links."""
    if absolute:
        return f"{data.as_uri()}/"
    # page is RUNS/RUN/suggest: a photo folder beside RUNS, or in the same folder, is reached without naming others.
    if not data.is_relative_to(page.parents[2]):
        return ""
    return quote(Path(os.path.relpath(data, page)).as_posix()) + "/"
