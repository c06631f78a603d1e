"""A store on loopback, for the tests of this folder."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.s3 import KEY, SECRET, FaultyProxy, s3_server

from potstill.storage import client


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of a store, for all tests: each has a bucket of its own."""
    with s3_server() as address:
        yield address


def use_store(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests go there, with credentials as people have them."""
    from s3fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    client.forget()


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket, with an empty cache on this side."""
    use_store(s3, monkeypatch)
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "WAIT", 0.01)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    client._backend("s3").mkdir(name)
    yield f"s3://{name}"
    client.forget()


@pytest.fixture
def faulty(s3: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A server in front of the store that has faults; requests go through it."""
    proxy = FaultyProxy(s3)
    use_store(proxy.address, monkeypatch)
    yield proxy
    proxy.close()
