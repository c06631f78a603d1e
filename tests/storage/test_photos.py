"""Photos in storage are the photos that they are on a disk."""

from pathlib import Path

import pytest
from tests.support import CLASSES, make_photos, table_of
from tests.unit.test_containers import photo, write_parquet, write_tar

from potstill.check.count import count
from potstill.check.run import check
from potstill.cli import run as command
from potstill.config.schema import ImagesConfig
from potstill.errors import ConfigError, DataError, SpaceError, StorageError
from potstill.images.decode import read_bytes
from potstill.images.folder import Folder
from potstill.images.source import open_photos
from potstill.monitoring.progress import Reporter
from potstill.storage import cache, client
from potstill.storage.addresses import Address


def put(folder: Path, where: str) -> str:
    """Upload all files below a folder."""
    address = Address.of(where)
    assert address is not None
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload(path, address / path.relative_to(folder).as_posix())
    return where


def opened(data: str | Path, runs: Path, **settings: object) -> Folder:
    return open_photos(Path(data), ImagesConfig(**settings), runs=runs)  # type: ignore[arg-type]


def same(one: Folder, other: Folder) -> bool:
    """Whether two folders have the same photos, to the byte."""
    assert len(one.files)
    return one.classes == other.classes and [
        (a.path.relative_to(one.root), a.split, a.label, read_bytes(a.source)) for a in one.files
    ] == [(b.path.relative_to(other.root), b.split, b.label, read_bytes(b.source)) for b in other.files]


def shards(folder: Path, files: int = 4, photos: int = 6) -> Path:
    for shard in range(files):
        members = {}
        for key in range(photos):
            members |= {f"{key}.jpg": photo(CLASSES[key % 3], shard * photos + key), f"{key}.cls": b"%d" % (key % 3)}
        write_tar(folder / f"train-{shard:06d}.tar", members)
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.mark.parametrize("place", ["bucket", "memory"])
def test_a_tree_of_photos(place: str, bucket: str, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", {"train": 3, "test": 2})
    where = put(photos, f"{bucket if place == 'bucket' else f'memory://{tmp_path.name}'}/some photos")
    found = opened(where, tmp_path / "runs")
    assert same(found, opened(photos, tmp_path / "runs"))
    assert found.notes[0].startswith(f"Copied from {where} to ")


def test_only_what_changed_is_copied_again(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = put(make_photos(tmp_path / "photos", {"": 3}), f"{bucket}/photos")
    before = opened(where, tmp_path / "runs")
    gone, changed = (file.path.relative_to(before.root).as_posix() for file in before.files[:2])
    address = Address.of(where)
    assert address is not None
    client.delete(address / gone)
    client.write(address / changed, photo("disc", 99))
    copied: list[str] = []
    download = client.download
    monkeypatch.setattr(
        "potstill.storage.photos.download", lambda at, *rest: copied.append(str(at)) or download(at, *rest)
    )
    after = opened(where, tmp_path / "runs")
    assert copied == [f"{where}/{changed}"]
    assert gone not in [file.path.relative_to(after.root).as_posix() for file in after.files]
    assert read_bytes(next(f for f in after.files if f.path.name == Path(changed).name).source) == photo("disc", 99)


def test_a_table_beside_the_photos(bucket: str, tmp_path: Path) -> None:
    table = table_of(make_photos(tmp_path / "photos", {"": 3}), tmp_path / "table")
    where = put(table, f"{bucket}/table")
    for name in (where, f"{where}/labels.csv"):
        assert same(opened(name, tmp_path / "runs"), opened(table, tmp_path / "runs"))


def test_shards_are_read_one_by_one(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shards(tmp_path / "shards")
    where = put(folder, f"{bucket}/shards")
    size = (folder / "train-000000.tar").stat().st_size
    monkeypatch.setenv("POTSTILL_CACHE_GB", str(2.5 * size / 1e9))  # of four shards
    found = opened(where, tmp_path / "runs")
    assert same(found, opened(folder, tmp_path / "runs"))
    assert cache.used_bytes() <= 2.5 * size
    assert "4 tar shards" in " ".join(found.notes)


def test_parquet_files(bucket: str, tmp_path: Path) -> None:
    for number, split in enumerate(("train", "test")):
        columns = {
            "image": [{"bytes": photo(name, number), "path": "x.jpg"} for name in CLASSES],
            "label": [0, 1, 2],
        }
        write_parquet(tmp_path / "food" / f"{split}-00000-of-00001.parquet", columns)
    (tmp_path / "food" / "classes.txt").write_text("\n".join(CLASSES))
    where = put(tmp_path / "food", f"{bucket}/food")
    assert same(opened(where, tmp_path / "runs"), opened(tmp_path / "food", tmp_path / "runs"))


def test_a_shard_that_was_replaced_after_it_was_listed(bucket: str, tmp_path: Path) -> None:
    where = put(shards(tmp_path / "shards", files=1), f"{bucket}/shards")
    found = opened(where, tmp_path / "runs")
    put(shards(tmp_path / "others", files=1, photos=9), where)
    found.files[0].path.parent.unlink()  # as if it had been removed for another one
    with pytest.raises(StorageError, match=r"train-000000\.tar has changed since it was listed"):
        read_bytes(found.files[0].source)


def test_count_says_what_is_there(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = put(make_photos(tmp_path / "photos", {"": 3}), f"{bucket}/photos")
    assert count(Path(where)).by_split == {"": dict.fromkeys(CLASSES, 3)}
    assert command(["count", where]) == 0
    assert f"Copied from {where}" in capsys.readouterr().out.replace("\n", " ")


def test_what_moves_photos_refuses(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"`potstill check`, which moves photos, needs a folder .* {bucket}/photos"):
        check(Path(f"{bucket}/photos"), Reporter(quiet=True))


def test_photos_that_do_not_fit(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = put(make_photos(tmp_path / "photos", {"": 3}), f"{bucket}/photos")
    monkeypatch.setenv("POTSTILL_CACHE_GB", "0.00001")
    with pytest.raises(SpaceError, match="set POTSTILL_CACHE_GB to a larger number, or write the photos to tar shards"):
        opened(where, tmp_path / "runs")
    monkeypatch.setenv("POTSTILL_CACHE_GB", "much")
    with pytest.raises(ConfigError, match="POTSTILL_CACHE_GB is 'much'"):
        opened(where, tmp_path / "runs")


def test_names_that_would_leave_the_folder(bucket: str, tmp_path: Path) -> None:
    store = client._backend("memory")
    store.pipe_file("/odd/photos/a/1.jpg", b"1")
    store.store["/odd/photos/../../evil.jpg"] = store.store["/odd/photos/a/1.jpg"]
    store.pseudo_dirs += ["/odd/photos/..", "/odd/photos/../.."]
    with pytest.raises(StorageError, match="whose name is not that of a file"):
        opened("memory://odd/photos", tmp_path / "runs")
    assert not list(tmp_path.rglob("evil.jpg"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://key:secret@bucket/photos", "must not hold a user or a password"),
        ("s3://bucket/photos?X-Amz-Signature=secret", "must not have a query"),
        ("ftp://host/photos", r"ftp:// is not a kind of storage .* s3://, gs://, az://, memory://"),
        ("s3:///photos/..", "is not an address"),
    ],
)
def test_addresses_that_are_refused(address: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        opened(address, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_pattern_is_refused(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name the folder of the files instead"):
        opened(f"{bucket}/train-*.tar", tmp_path)


def test_a_path_of_this_machine_is_none() -> None:
    for path in ("photos", "/data/s3/photos", "C:/photos", "C:\\photos", "./a:/b"):
        assert Address.of(path) is None
    assert str(Address.of(Path("S3://bucket/a/b/"))) == "s3://bucket/a/b"
