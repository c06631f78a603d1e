"""What tests of `get` share: a world behind a server, short limits, and what must hold of every photo folder."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.servers import openimages
from tests.servers.loopback import Server, serve

from potstill.get import provenance
from potstill.get.limits import Limits
from potstill.get.run import GetRequest, GetResult, get
from potstill.images.reasons import REASONS
from potstill.monitoring.progress import Reporter

QUICK = Limits(
    tries=3,
    backoff_seconds=0.01,
    backoff_cap_seconds=0.05,
    connect_seconds=1,
    read_seconds=1,
    photo_seconds=5,
    max_bytes=2**20,
    failures_to_park=1000,
    per_host=16,
)
"""The rules of Limits, with less patience."""


@contextlib.contextmanager
def open_images(world: openimages.World, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Server]:
    """A server for `world`, and the environment that leads to it."""
    with serve(openimages.app(world)) as server:
        monkeypatch.setenv("POTSTILL_OPENIMAGES_BASE", f"{server.url}/lists")
        monkeypatch.setenv("POTSTILL_OPENIMAGES_PIXELS", f"{server.url}/pixels")
        monkeypatch.setenv("POTSTILL_CACHE", str(cache))
        yield server


def run_get(into: Path, server: Server, *classes: str, **settings: Any) -> GetResult:
    """`get` against a loopback server."""
    settings = {"limits": QUICK, **settings}
    request = GetRequest(classes=classes, into=into, allow_private=(server.address,), **settings)
    return get(request, Reporter(quiet=True))


def photos(root: Path) -> set[str]:
    """Every photo below a folder, relative."""
    return {
        str(path.relative_to(root))
        for split in ("train", "test", "unlabeled")
        for path in (root / split).rglob("*")
        if path.is_file()
    }


def assert_sound(root: Path) -> dict[str, dict[str, Any]]:
    """What must hold after any `get`, however it went. Returns the provenance of the photos in place."""
    assert not list(root.rglob("*.part"))
    kept = {}
    for entry in provenance.latest(root):
        if entry["status"] == "ok":
            kept[entry["path"]] = entry
        else:
            assert entry["reason"] in REASONS
    assert photos(root) == set(kept)
    for path, entry in kept.items():
        data = (root / path).read_bytes()
        assert len(data) == entry["bytes"]
        with Image.open(io.BytesIO(data)) as image:
            image.load()
        for name in ("group", "source", "concept", "sha256", "label", "split", "order"):
            assert name in entry, (path, name)
        assert path.startswith(f"{entry['split']}/{entry['label']}/")
    return kept
