"""`get` tells a missing network from a word that no source knows, and names the sources that did not answer."""

import socket
from pathlib import Path

import pytest
from tests.servers.apis import Nature
from tests.servers.helpers import QUICK, open_images
from tests.servers.loopback import serve
from tests.servers.openimages import World

from potstill.errors import SourceError, UnreachableError
from potstill.get.run import GetRequest, get
from potstill.monitoring.progress import Reporter


def closed() -> str:
    """An address on loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def refusal(into: Path, *allowed: str, word: str = "cat") -> SourceError:
    request = GetRequest(classes=(word,), into=into, allow_private=allowed, limits=QUICK)
    with pytest.raises(SourceError) as caught:
        get(request, Reporter(quiet=True))
    assert not into.exists()
    return caught.value


def test_no_network_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = closed()
    monkeypatch.setenv("POTSTILL_OPENIMAGES_BASE", f"http://{address}/lists")
    monkeypatch.setenv("POTSTILL_INATURALIST_BASE", f"http://{address}")
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    error = refusal(tmp_path / "data", address)
    assert isinstance(error, UnreachableError)
    text = str(error)
    assert text.startswith("No network: none of the photo sources could be reached.")
    for advice in ("potstill init", "--source PATH", "potstill demo", "potstill doctor"):
        assert advice in text
    assert "openimages: " in text
    assert "inaturalist: " in text
    assert "No source knows" not in text


def test_sources_that_did_not_answer_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = closed()
    with open_images(World({}), monkeypatch, tmp_path / "cache") as server:
        monkeypatch.setenv("POTSTILL_INATURALIST_BASE", f"http://{address}")
        error = refusal(tmp_path / "data", server.address, address, word="xyzzy")
    assert not isinstance(error, UnreachableError)
    first = str(error).splitlines()[0]
    assert first == "openimages does not know 'xyzzy'. inaturalist could not be reached: try again later."


def test_an_answer_without_a_result_is_no_network_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_images(World({}), monkeypatch, tmp_path / "cache") as server, serve(Nature().app()) as nature:
        monkeypatch.setenv("POTSTILL_INATURALIST_BASE", nature.url)
        error = refusal(tmp_path / "data", server.address, nature.address, word="xyzzy")
    assert str(error).startswith("No source knows 'xyzzy'.")
    assert "reached" not in str(error)
