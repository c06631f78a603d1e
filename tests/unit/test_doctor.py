"""`doctor` reports which sources answer, and is not stopped by those that do not."""

import json
from pathlib import Path

import pytest
from tests.servers.apis import Nature, Viewer, Wiki
from tests.servers.helpers import open_images
from tests.servers.loopback import serve
from tests.servers.openimages import World

from potstill.cli import run as command
from potstill.tools.doctor import photo_sources


def test_sources_that_answer_and_sources_that_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        open_images(World({}), monkeypatch, tmp_path) as images,
        serve(Wiki().app()) as wiki,
        serve(Nature().app()) as nature,
        serve(Viewer().app()) as viewer,
    ):
        monkeypatch.setenv("POTSTILL_COMMONS_BASE", wiki.url)
        monkeypatch.setenv("POTSTILL_INATURALIST_BASE", nature.url)
        monkeypatch.setenv("POTSTILL_HF_VIEWER_BASE", viewer.url)
        monkeypatch.setenv("POTSTILL_ARCHIVES_BASE", "http://127.0.0.1:1")
        allowed = [server.address for server in (images, wiki, nature, viewer)]
        rows = {row.name: row for row in photo_sources("me@example.org", allowed)}
        assert len(images.log) == 1
    assert {name: row.good for name, row in rows.items()} == {
        "openimages": True,
        "commons": True,
        "inaturalist": True,
        "hf:uoft-cs/cifar10": True,
        "archive:imagenette2-160": False,
    }
    assert rows["inaturalist"].value == "answers; a search for cats finds Lynx rufus"
    assert "port 1" in rows["archive:imagenette2-160"].value


def test_the_command_works_without_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["doctor", "--offline", "--json"]) == 0
    sections = {section["title"]: section["rows"] for section in json.loads(capsys.readouterr().out)}
    assert list(sections)[:3] == ["machine", "disk", "packages"]
    assert "photo sources" not in sections
    names = {row["name"]: row for row in sections["packages"]}
    assert names["pillow"]["good"] is True
