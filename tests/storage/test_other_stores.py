"""Azure and Google: their emulators on loopback. Skipped where these are not installed, as in CI:

npm install -g azurite; pip install adlfs gcsfs gcp-storage-emulator
"""

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import TINY, weight_hashes

import potstill as library
from potstill.errors import StorageError
from potstill.monitoring.progress import Reporter
from potstill.storage import client
from potstill.storage.addresses import Address
from potstill.storage.runs import local_run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's, which its documentation names."""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_until_open(port: int) -> None:
    for _ in range(200):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.fixture(params=["az", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """An empty bucket."""
    port = free_port()
    if request.param == "az":
        pytest.importorskip("adlfs")
        if (program := shutil.which("azurite-blob")) is None:
            pytest.skip("azurite is not installed")
        place = ["--location", str(tmp_path / "azurite"), "--skipApiVersionCheck", "--silent"]
        words = [program, "--blobPort", str(port), *place]
        account = f"AccountName=devstoreaccount1;AccountKey={AZURE_KEY}"
        endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{account};{endpoint}")
    else:
        pytest.importorskip("gcsfs")
        pytest.importorskip("gcp_storage_emulator")
        words = ["python", "-m", "gcp_storage_emulator.__main__", "start", "--port", str(port), "--in-memory"]
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy())
    try:
        wait_until_open(port)
        monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
        client.forget()
        name = f"bucket-{uuid.uuid4().hex[:8]}"
        client._backend(request.param).mkdir(name)
        yield Address(request.param, name)
    finally:
        type(client._backend(request.param)).clear_instance_cache()  # the next test has another address
        client.forget()
        server.kill()
        server.wait()


def test_every_request(store: Address, tmp_path: Path) -> None:
    run, data = store / "runs" / "birds", os.urandom(3_000_000)
    (tmp_path / "a.bin").write_bytes(data)
    assert client.probe(run) > 0
    client.upload(tmp_path / "a.bin", run / "x" / "a.bin")
    assert client.exists(run)
    assert not client.exists(run / "no")
    assert client.create(run / "lock", b"1")
    assert not client.create(run / "lock", b"2")
    assert client.read(run / "lock") == b"1"
    assert client.read(run / "none") is None
    found = {item.name: item for item in client.listed(run)}
    assert {name: item.size for name, item in found.items()} == {"lock": 1, "x/a.bin": len(data)}
    client.download(run / "x" / "a.bin", tmp_path / "b.bin", found["x/a.bin"])
    assert (tmp_path / "b.bin").read_bytes() == data
    client.delete(run / "lock")
    client.delete(run / "lock")
    assert not client.exists(run / "lock")
    with pytest.raises(StorageError, match="There is nothing at"):
        list(client.listed(run / "nothing"))


def test_photos_and_run_there(
    store: Address, photos: Path, tiny_run: library.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in photos.rglob("*.png"):
        client.upload(path, store / "photos" / path.relative_to(photos).as_posix())
    library.distill(
        str(store / "photos"), settings=TINY, run=str(store / "runs" / "tiny"), reporter=Reporter(quiet=True)
    )
    again = local_run(str(store / "runs" / "tiny"))
    assert weight_hashes(again / "4_students") == weight_hashes(tiny_run.run.students)
