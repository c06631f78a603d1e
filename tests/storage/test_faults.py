"""Faults of a store: what may pass is tried again, what does not ends in one clear error before long work."""

from pathlib import Path

import pytest
from tests.servers.s3 import FaultyProxy
from tests.storage.test_photos import opened, put, same
from tests.storage.test_runs import address
from tests.support import make_photos

from potstill.cli import run as command
from potstill.errors import StorageError
from potstill.storage import client
from potstill.storage.runs import RemoteRun, local_run, worked_on


def first(number: int, fault: str, method: str) -> object:
    """A fault of the first requests with a method for each object."""
    seen: dict[str, int] = {}

    def of(given: str, path: str) -> str | None:
        name = path.partition("?")[0]
        seen[name] = seen.get(name, 0) + (given == method)
        return fault if given == method and seen[name] <= number else None

    return of


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_photos_arrive_although_requests_fail(fault: str, faulty: FaultyProxy, bucket: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"": 2})
    where = put(photos, f"{bucket}/photos")
    faulty.fault = first(2, fault, "GET")  # type: ignore[assignment]
    assert same(opened(where, tmp_path / "runs"), opened(photos, tmp_path / "runs"))


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_uploads_arrive_although_requests_fail(fault: str, faulty: FaultyProxy, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 4000)
    faulty.fault = first(2, fault, "PUT")  # type: ignore[assignment]
    client.upload(tmp_path / "large", address(f"{bucket}/large"))
    assert client.read(address(f"{bucket}/large")) == (tmp_path / "large").read_bytes()


def test_a_slow_store_is_waited_for(faulty: FaultyProxy, bucket: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"": 1})
    where = put(photos, f"{bucket}/photos")
    faulty.fault = lambda method, path: 0.3
    assert same(opened(where, tmp_path / "runs"), opened(photos, tmp_path / "runs"))


def test_a_store_that_always_fails(faulty: FaultyProxy, bucket: str, tmp_path: Path) -> None:
    faulty.fault = lambda method, path: "503"
    with pytest.raises(StorageError, match=rf"Cannot list {bucket}/photos, in 5 attempts: .*Try again later"):
        opened(f"{bucket}/photos", tmp_path)
    assert len(faulty.requests) < 40  # attempts do not multiply


def test_a_download_that_is_always_cut_leaves_nothing(faulty: FaultyProxy, bucket: str, tmp_path: Path) -> None:
    where = put(make_photos(tmp_path / "photos", {"": 1}), f"{bucket}/photos")
    faulty.fault = lambda method, path: "cut" if method == "GET" and path.endswith(".png") else None
    with pytest.raises(StorageError, match="Cannot read"):
        opened(where, tmp_path / "runs")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("fault", "message"),
    [("403", "does not let us write .*Check the credentials"), ("full", "Cannot write .* the QuotaExceeded of a test")],
)
def test_a_run_is_refused_before_any_work(
    fault: str, message: str, faulty: FaultyProxy, bucket: str, in_folder: Path, photos: Path
) -> None:
    faulty.fault = lambda method, path: fault if method == "PUT" else None
    with pytest.raises(StorageError, match=message), worked_on(f"{bucket}/runs/x", print):
        pass
    assert not (in_folder / "runs").exists()


def test_a_bucket_that_is_not_there(
    bucket: str, in_folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["distill", str(photos), "--run", "s3://no-such-bucket/runs/x"]) == 2
    assert "there is no such object or bucket" in capsys.readouterr().err
    assert command(["count", "s3://no-such-bucket/photos"]) == 2
    assert "StorageError: " in capsys.readouterr().err
    assert not (in_folder / "runs").exists()


def test_no_credentials(
    bucket: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(in_folder / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(in_folder / "none"))
    S3FileSystem.clear_instance_cache()
    client.forget()
    assert command(["count", f"{bucket}/photos"]) == 2
    assert "There are no credentials for" in capsys.readouterr().err


def test_a_package_that_is_not_installed(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client.forget()
    assert command(["count", "gs://bucket/photos"]) == 2
    assert "gs:// needs the package gcsfs: pip install 'potstill[storage]' gcsfs" in capsys.readouterr().err


def test_work_is_kept_where_the_store_fails_at_the_end(faulty: FaultyProxy, bucket: str, in_folder: Path) -> None:
    def work() -> None:
        with worked_on(f"{bucket}/runs/x", print) as folder:
            (folder / "1_images").mkdir(parents=True)
            (folder / "1_images" / "done.json").write_text('{"inputs": {}, "files": {}}')
            faulty.fault = lambda method, path: "503" if method == "PUT" else None

    with pytest.raises(StorageError, match=r"What was made is kept in runs/x\. The same command sends"):
        work()
    faulty.fault = lambda method, path: None
    with worked_on(f"{bucket}/runs/x", print):
        pass
    assert client.read(address(f"{bucket}/runs/x/1_images/done.json")) is not None


def test_a_stage_whose_upload_was_cut_does_not_count(
    faulty: FaultyProxy, bucket: str, in_folder: Path, run_copy: object
) -> None:
    folder = Path(run_copy.path)  # type: ignore[attr-defined]
    where = f"{bucket}/runs/tiny"
    faulty.fault = lambda method, path: "cut" if method in ("PUT", "POST") and "model.safetensors" in path else None
    with pytest.raises(StorageError, match="Cannot write"):
        RemoteRun(address(where), folder).push()
    faulty.fault = lambda method, path: None
    done = {item.name for item in client.listed(address(where)) if item.name.endswith("done.json")}
    assert not any("seed-" in name or "2_teacher" in name for name in done)
    RemoteRun(address(where), folder).push()
    assert (local_run(where) / "2_teacher" / "model.safetensors").read_bytes() == (
        folder / "2_teacher" / "model.safetensors"
    ).read_bytes()
