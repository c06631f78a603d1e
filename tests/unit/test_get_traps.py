"""`get` where names are odd, lists are damaged, servers change their files, and words belong to another source."""

import asyncio
import gzip
import os
import time
from pathlib import Path

import pytest
from aiohttp import web
from tests.servers.apis import Nature, send_photo
from tests.servers.helpers import QUICK, assert_sound, open_images, run_get
from tests.servers.loopback import Server, serve, trusting
from tests.servers.openimages import World
from tests.servers.pictures import jpeg

from potstill.check.quarantine import Quarantine
from potstill.check.run import apply, check
from potstill.cli import run as command
from potstill.errors import DataError, SourceError
from potstill.get.client import Client, FetchError
from potstill.get.hosts import Host
from potstill.get.large_files import fetch_file
from potstill.get.limits import HostRule, Limits
from potstill.get.sources import Candidate
from potstill.get.tars import unzipped
from potstill.monitoring.progress import Reporter

NOBODY = Server(1)
QUIET = Reporter(quiet=True)


def own_folder(root: Path, *classes: str) -> Path:
    """A flat folder with 12 photos per class."""
    for start, label in enumerate(classes):
        (root / label).mkdir(parents=True)
        for number in range(12):
            (root / label / f"{number}.jpg").write_bytes(jpeg(100 * start + number))
    return root


ODD = [
    b"CON.jpg",
    b"a:b?.jpg",
    b"a..jpg.",
    b"new\nline.jpg",
    b"\xff\xfe.jpg",
    "ü̈.JPG".encode(),
    b"-rf.jpg",
    b"$(id).jpg",
]


def test_file_names_that_break_somewhere_are_replaced_by_safe_ones(tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own", "cat", "dog")
    for number, name in enumerate(ODD):
        Path(os.fsdecode(os.fsencode(own / "cat") + b"/" + name)).write_bytes(jpeg(900 + number))
    result = run_get(tmp_path / "data", NOBODY, "cat", "dog", source=str(own), train=20, test=20)
    kept = assert_sound(tmp_path / "data")
    assert len(kept) == 12 + 12 + len(ODD)
    assert not result.streams[0].reasons
    assert {Path(path).stem.removeprefix("bring-").isalnum() for path in kept} == {True}
    assert any(entry["file"] == "cat/\\xff\\xfe.jpg" for entry in kept.values())


def test_check_moves_and_restores_files_with_odd_names(tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own", "cat", "dog")
    bad = [Path(os.fsdecode(os.fsencode(own / "dog") + b"/" + name)) for name in ODD]
    for path in bad:
        path.write_bytes(b"<html>" + os.fsencode(path))
    assert command(["check", str(own), "--yes"]) == 0
    assert not any(path.exists() for path in bad)
    assert Quarantine(own).restore() == len(ODD)
    assert all(path.read_bytes() == b"<html>" + os.fsencode(path) for path in bad)


@pytest.mark.parametrize("name", ["cat.", "CON", "a:b", "cat ", "-cat", "b" * 101])
def test_class_folders_that_cannot_exist_everywhere_are_named(name: str, tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own", "cat", name)
    with pytest.raises(DataError, match="Rename it"):
        run_get(tmp_path / "data", NOBODY, "cat", source=str(own))


def test_class_folders_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    own = own_folder(tmp_path / "own", "cat", "Cat")
    with pytest.raises(DataError, match="same folder on some systems"):
        run_get(tmp_path / "data", NOBODY, "cat", source=str(own))


@pytest.mark.parametrize("key", ["hf-../../x", "commons-1/2", "", ".hidden", "a b", "a" * 201, "a\x00"])
def test_no_server_decides_where_a_file_goes(key: str) -> None:
    with pytest.raises(SourceError, match="cannot be a file name"):
        Candidate(key=key, label="cat", group="g")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("list.csv", b"url,label\nhttp://x/1.jpg,cat\nhttp://x/\xff.jpg,cat\n", "cannot be read after row"),
        ("list.csv", b'url,label\n"' + b"x" * 200_000 + b'",cat\n', "field larger"),
        ("list.jsonl", b'{"url": "http://x/1.jpg", "label": "cat"}\n{"url"\n', "line 2 is not JSON"),
        ("list.parquet", b"PAR1 nonsense PAR1", "cannot be read as parquet"),
        ("cat.txt", b"http://x/\xff.jpg\n", "not UTF-8 text"),
        ("list.xlsx", b"PK", "neither a tar nor a list"),
        ("list.tar", b"no tar at all" * 100, "cannot be read as a tar"),
    ],
)
def test_damaged_lists_are_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=message):
        run_get(tmp_path / "data", NOBODY, "cat", source=str(tmp_path / name))


@pytest.mark.parametrize("cut", [5, 40])
def test_a_damaged_archive_is_named_and_leaves_nothing(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(os.urandom(500))[:-cut] if cut > 5 else b"<html>")
    with pytest.raises(SourceError, match="is damaged"):
        unzipped(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tgz"]


def test_https_is_spoken_and_never_left(tmp_path: Path) -> None:
    async def send(request: web.Request) -> web.StreamResponse:
        if request.match_info["number"] == "1":
            raise web.HTTPFound(f"http://{plain.address}/1.jpg")
        return await send_photo(request)

    def app() -> web.Application:
        found = web.Application()
        found.router.add_get("/{number:\\d+}.jpg", send)
        return found

    async def ask(url: str) -> bytes:
        async with Client(QUICK, allowed=[plain.address, safe.address], tls=trusting()) as client:
            return (await client.photo(url)).body

    async def ask_a_stranger(url: str) -> bytes:
        async with Client(QUICK, allowed=[safe.address]) as client:
            return (await client.photo(url)).body

    with serve(app()) as plain, serve(app(), tls=True) as safe:
        assert asyncio.run(ask(f"{safe.url}/2.jpg")) == jpeg(2)
        with pytest.raises(FetchError, match="redirects: redirected from https to http"):
            asyncio.run(ask(f"{safe.url}/1.jpg"))
        assert not plain.log
        with pytest.raises(FetchError, match="refused: certificate"):
            asyncio.run(ask_a_stranger(f"{safe.url}/2.jpg"))


def test_a_clear_no_is_asked_once_and_a_failure_as_often_as_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers.faults import PERMANENT

    world = World({"validation": {"Cat": 6}})
    names = ("gone", "forbidden", "html", "broken")
    ids = dict(zip(names, world.ids("validation", "Cat"), strict=False))
    world.faults = {ids[name]: PERMANENT[name][0] for name in names}
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        run_get(tmp_path / "data", server, "cat", train=6, test=6)
        assert {name: world.asked[ids[name]] for name in names} == {"gone": 1, "forbidden": 1, "html": 1, "broken": 3}
        run_get(tmp_path / "data", server, "cat", train=6, test=6)
        assert world.asked[ids["gone"]] == 1, "rejected for good"
        assert world.asked[ids["broken"]] == 6, "failed that day"


def test_too_many_requests_without_a_time_rests_longer_each_time() -> None:
    host = Host("h:80", HostRule(concurrency=1), Limits(backoff_seconds=0.01))

    def rest() -> float:
        host.rest()
        return host._next_start - time.monotonic()

    assert [round(rest(), 1) for _ in range(3)] == [0.1, 0.2, 0.4]
    host.succeeded()
    assert round(host._rest_seconds, 1) == 0


def test_a_list_that_changed_meanwhile_is_begun_anew(tmp_path: Path) -> None:
    versions = [b"old " * 5000, b"new " * 4000]
    asked = []

    async def send(request: web.Request) -> web.StreamResponse:
        version = min(len(asked), 1)
        asked.append(request.headers.get("If-Range"))
        data = versions[version]
        response = web.StreamResponse(headers={"ETag": f'"{version}"', "Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:9000] if version == 0 else data)
        if version == 0:
            assert request.transport is not None
            request.transport.close()
        return response

    async def fetch(url: str, address: str) -> None:
        async with Client(QUICK, allowed=[address]) as client:
            await fetch_file(client, url, tmp_path / "list.csv", QUIET)

    app = web.Application()
    app.router.add_get("/list.csv", send)
    with serve(app) as server:
        asyncio.run(fetch(f"{server.url}/list.csv", server.address))
    assert asked == [None, '"0"']
    assert (tmp_path / "list.csv").read_bytes() == versions[1]
    assert not list(tmp_path.glob("*.part"))


def test_a_word_that_open_images_lacks_is_looked_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_images(World({}), monkeypatch, tmp_path / "cache") as server, serve(Nature().app()) as nature:
        monkeypatch.setenv("POTSTILL_INATURALIST_BASE", nature.url)
        monkeypatch.setattr("potstill.get.sources.inaturalist.PAGE", 200)
        allowed = (server.address, nature.address)
        result = run_get_of(tmp_path / "a", allowed, "Felis catus", train=3, test=1)
        assert result == ("inaturalist", "118552")
        with pytest.raises(SourceError) as caught:
            run_get_of(tmp_path / "b", allowed, "xyzzy", train=3, test=1)
    text = str(caught.value)
    assert "No source knows 'xyzzy'" in text
    assert "openimages: " in text
    assert "inaturalist: " in text
    assert "commons was not searched: it needs --contact" in text
    assert "xyzzy=/m/01yrx" in text


def run_get_of(into: Path, allowed: tuple[str, ...], word: str, **settings: int) -> tuple[str, str]:
    """Source and id that were chosen for a word by "auto"."""
    from potstill.get.run import GetRequest, get

    request = GetRequest(classes=(word,), into=into, allow_private=allowed, limits=QUICK, **settings)
    (stream,) = get(request, QUIET).streams
    return stream.source.name, stream.concept.id


def test_a_wnid_pins_a_class_of_open_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Dog": 9}})
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        assert run_get_of(tmp_path / "data", (server.address,), "hund=n02084071", train=2, test=1) == (
            "openimages",
            "/m/0bt9lr",
        )
        with pytest.raises(SourceError, match="has no n99999999"):
            run_get_of(tmp_path / "b", (server.address,), "x=n99999999", train=2, test=1)


def test_the_command_previews_and_reports_shortages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.servers.faults import PERMANENT

    world = World({"validation": {"Cat": 12, "Dog": 30}})
    world.faults = dict.fromkeys(world.ids("validation", "Cat")[:6], PERMANENT["gone"][0])
    monkeypatch.setenv("COLUMNS", "200")
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        words = ["get", "cat", "dog", "--into", str(tmp_path / "data"), "--train", "10", "--test", "5"]
        words += ["--allow-private", server.address]
        assert command([*words, "--dry-run"]) == 0
        printed = "".join(capsys.readouterr())
        assert "/m/01yrx Cat" in printed
        assert "CC-BY-2.0 12" in printed
        assert not (tmp_path / "data").exists()
        assert not world.asked, "no photo was fetched"
        assert command(words) == 0, "too few photos are reported, and are no error"
        printed = "".join(capsys.readouterr())
        assert "cat: " in printed
        assert "missing; openimages listed 12 photos." in printed
        assert "6 gone: the server has no such photo (404, 410) (for example: HTTP 404 Not Found)" in printed
        assert "dog: 0" not in printed
        assert command([*words, "--strict"]) == 1


def test_quarantined_photos_are_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 40, "Dog": 40}})
    data = tmp_path / "data"
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        run_get(data, server, "cat", "dog", train=12, test=6)
        victim = sorted((data / "train/cat").iterdir())[0]
        victim.write_bytes(victim.read_bytes()[:500])  # a disk fault
        assert apply(check(data, QUIET)) == 1
        asked = world.asked[victim.stem.removeprefix("openimages-")]
        assert run_get(data, server, "cat", "dog", train=12, test=6).is_complete
        assert world.asked[victim.stem.removeprefix("openimages-")] == asked
    assert not victim.exists()
