"""The server of `potstill suggest --label`: what it does for its own page, and for nobody else."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.servers.loopback import Server, serve
from tests.unit.test_visitors import asking, raw, refusal, status_of

from potstill.data.pixels import PixelStore
from potstill.deploy.visitors import HEADERS
from potstill.errors import DataError
from potstill.images.depth import OWN
from potstill.run.folder import Run
from potstill.suggest import serve as serving
from potstill.suggest.pool import RunPhotos
from potstill.suggest.serve import KEYS, MAX_BODY, Session, application, open_session, serve_labeling
from potstill.suggest.suggestions import make_suggestions

JSON = "Content-Type: application/json"


@pytest.fixture
def session(pool_copy: Run) -> Session:
    run_photos = RunPhotos.of(pool_copy)
    return open_session(pool_copy, run_photos, make_suggestions(pool_copy, run_photos, 3))


@pytest.fixture
def server(session: Session, pool_copy: Run) -> Iterator[Server]:
    with serve(application(session, PixelStore(pool_copy.images), OWN, "/key")) as running:
        yield running


def files(session: Session) -> set[str]:
    root = session.labeler.root
    return {path.relative_to(root).as_posix() for path in root.rglob("*.png")}


def post(server: Server, name: str, values: Any, *lines: str, **options: Any) -> bytes:
    return raw(server, asking(f"/key/{name}", JSON, *lines, method="POST", body=json.dumps(values).encode(), **options))


def state_of(answer: bytes) -> dict[str, Any]:
    assert status_of(answer) == 200, answer
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


def test_photos_are_labeled_skipped_and_taken_back(session: Session, server: Server) -> None:
    before = files(session)
    first, second, third = (photo.path for photo in session.photos)
    state = state_of(raw(server, asking("/key/state")))
    assert (state["total"], state["left"], state["photo"]["path"], state["next"]) == (3, 3, first, 1)
    assert [item["key"] for item in state["classes"]] == ["1", "2", "3"]
    state = state_of(post(server, "label", {"photo": 0, "label": "frame"}))
    assert (state["labeled"], state["left"], state["photo"]["path"]) == (1, 2, second)
    assert files(session) == before - {first} | {f"train/frame/{Path(first).name}"}
    state = state_of(post(server, "skip", {"photo": 1}))
    assert (state["skipped"], state["left"], state["photo"]["path"]) == (1, 1, third)
    state = state_of(post(server, "label", {"photo": 2, "label": "disc"}))
    assert (state["photo"], state["left"]) == (None, 0)
    assert session.lines() == ["2 of 3 photos labeled (1 disc, 1 frame), 0 left."]
    places = [state_of(post(server, "undo", {}))["photo"]["path"] for _ in range(3)]
    assert places == [third, second, first]
    assert files(session) == before
    assert "no label to undo" in refusal(post(server, "undo", {}))


def test_a_photo_that_has_its_label_is_refused_a_second_one(session: Session, server: Server) -> None:
    state_of(post(server, "label", {"photo": 0, "label": "frame"}))
    placed = files(session)
    answer = post(server, "label", {"photo": 0, "label": "disc"})
    assert status_of(answer) == 409
    assert "has a label already" in refusal(answer)
    assert files(session) == placed


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (403, {"lines": ["Origin: http://evil.example"]}),
        (403, {"lines": ["Origin: null"]}),
        (403, {"lines": ["Origin: http://localhost:1"]}),
        (421, {"host": "evil.example"}),
        (421, {"host": "10.0.0.1"}),
        (415, {"content": "Content-Type: text/plain"}),
        (415, {"content": "Content-Type: application/x-www-form-urlencoded"}),
        (404, {"prefix": ""}),
        (404, {"prefix": "/another-key"}),
    ],
)
def test_another_site_program_or_address_moves_nothing(
    status: int, options: dict[str, Any], session: Session, server: Server
) -> None:
    before = files(session)
    body = json.dumps({"photo": 0, "label": "frame"}).encode()
    head = [options.get("content", JSON), *options.get("lines", [])]
    path = f"{options.get('prefix', '/key')}/label"
    answer = raw(
        server, asking(path, *head, method="POST", host=options.get("host", f"127.0.0.1:{server.port}"), body=body)
    )
    assert status_of(answer) == status
    assert files(session) == before
    own = raw(
        server, asking("/key/label", JSON, f"Origin: {server.url}", method="POST", host=server.address, body=body)
    )
    assert state_of(own)["labeled"] == 1


@pytest.mark.parametrize(
    "values",
    [
        {"photo": 3, "label": "disc"},
        {"photo": -1, "label": "disc"},
        {"photo": True, "label": "disc"},
        {"photo": "unlabeled/../train", "label": "disc"},
        {"photo": 0, "label": "../.."},
        {"photo": 0},
        {},
    ],
)
def test_what_is_not_on_the_list_is_refused(values: dict[str, Any], session: Session, server: Server) -> None:
    before = files(session)
    assert status_of(post(server, "label", values)) == 409
    assert files(session) == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 5000, b'"' + b"x" * MAX_BODY + b'"'])
def test_bodies_that_are_no_small_json_are_refused(body: bytes, server: Server) -> None:
    answer = raw(server, asking("/key/label", JSON, method="POST", body=body))
    assert status_of(answer) in (400, 413)


def test_a_body_without_an_end_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "BODY_SECONDS", 0.2)
    answer = raw(server, asking("/key/label", JSON, "Content-Length: 50", method="POST"), b"{")
    assert status_of(answer) == 408
    head = asking("/key/label", JSON, "Transfer-Encoding: chunked", method="POST")
    answer = raw(server, head, *[b"1000\r\n" + b"x" * 4096 + b"\r\n"] * 10)
    assert answer == b"" or status_of(answer) == 413


def test_photos_of_the_list_are_shown_and_no_other_file(session: Session, server: Server) -> None:
    answer = raw(server, asking("/key/photo/0"))
    assert status_of(answer) == 200
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"\xff\xd8\xff")
    (session.labeler.root / session.photos[1].path).write_bytes(b"no photo any more")
    assert status_of(raw(server, asking("/key/photo/1"))) == 200, "the packed one"
    for path in (
        "/key/photo/3",
        "/key/photo/../../etc/passwd",
        "/key/photo/-1",
        "/key/photo/99999999999",
        "/",
        "/state",
    ):
        assert status_of(raw(server, asking(path))) in (400, 404)
    for path in ("/key/", "/key/app.js", "/key/style.css", "/key/state", "/key/photo/0"):
        text = raw(server, asking(path)).partition(b"\r\n\r\n")[0].decode()
        for name, value in HEADERS.items():
            assert f"{name}: {value}" in text


def test_it_listens_on_loopback_under_an_address_of_its_own(session: Session, pool_copy: Run) -> None:
    async def ask(url: str) -> int:
        async with aiohttp.ClientSession() as client, client.get(url) as found:
            status = found.status
        await asyncio.sleep(0.05)  # the connection is closed in the loop's next turns
        return status

    urls = []
    for _ in range(2):
        page, url = serve_labeling(pool_copy, session)
        with page:
            assert url.startswith("http://127.0.0.1:")
            assert asyncio.run(ask(url)) == 200
            assert asyncio.run(ask(page.url)) == 404
        urls.append(url)
    assert urls[0].split("/")[3] != urls[1].split("/")[3]
    assert len(urls[0].split("/")[3]) >= 20


def test_keys_are_different_and_those_of_skip_and_undo_are_free() -> None:
    assert len(set(KEYS)) == len(KEYS) == 33
    assert not set("su") & set(KEYS)


def test_labels_that_are_withheld_are_not_asked_for(pool_copy: Run) -> None:
    run_photos = RunPhotos.of(pool_copy)
    found = make_suggestions(pool_copy, run_photos, 3)
    for photo in found.photos:
        root = run_photos.folder.root
        (root / photo.path).rename(root / "train/disc" / Path(photo.path).name)
    hidden = tuple(replace(photo, path=f"train/disc/{Path(photo.path).name}") for photo in found.photos)
    with pytest.raises(DataError, match="withholds their labels"):
        open_session(pool_copy, RunPhotos.of(pool_copy), replace(found, photos=hidden))
