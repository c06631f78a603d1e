"""Archives of photos are unpacked once, whole, and only to where they may."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import CLASSES, make_photos, table_of

from potstill.config.schema import ImagesConfig
from potstill.errors import DataError
from potstill.images import archives
from potstill.images.archives import unpack
from potstill.images.source import open_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders. Read only."""
    return make_photos(tmp_path_factory.mktemp("data") / "photos", {"": 3}, suffix="jpg")


def zipped(target: Path, photos: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(photos.rglob("*.*")):
            archive.write(path, prefix + path.relative_to(photos).as_posix())
    return target


def tarred(target: Path, photos: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:
        archive.add(photos, "photos")
    return target


def zstd(target: Path, photos: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    plain = tarred(target.with_name("plain.tar"), photos, "w")
    with pyarrow.output_stream(str(target), compression="zstd") as out:
        out.write(plain.read_bytes())
    return target


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.zip", zipped),
        ("A.ZIP", lambda target, photos: zipped(target, photos, "samples/")),
        ("a.tar", lambda target, photos: tarred(target, photos, "w")),
        ("a.tar.gz", lambda target, photos: tarred(target, photos, "w:gz")),
        ("a.tgz", lambda target, photos: tarred(target, photos, "w:gz")),
        ("a.tar.bz2", lambda target, photos: tarred(target, photos, "w:bz2")),
        ("a.txz", lambda target, photos: tarred(target, photos, "w:xz")),
        ("a.tar.zst", zstd),
    ],
)
def test_class_folders_in_an_archive(
    photos: Path, tmp_path: Path, name: str, make: Callable[[Path, Path], Path]
) -> None:
    archive = make(tmp_path / name, photos)
    folder = open_photos(archive, ImagesConfig(), runs=tmp_path / "runs")
    assert folder.classes == CLASSES
    read = {f"{file.path.parent.name}/{file.path.name}": file.path.read_bytes() for file in folder.files}
    assert read == {p.relative_to(photos).as_posix(): p.read_bytes() for p in photos.rglob("*.jpg")}
    assert f"{name}: 9 files, unpacked to {tmp_path / 'runs' / '.unpacked'}" in folder.notes[0]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "plain.tar") == sorted([name, "runs"])


def test_splits_and_tables_in_an_archive(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "splits", {"train": 3, "test": 1}, suffix="jpg")
    folder = open_photos(zipped(tmp_path / "splits.zip", data), ImagesConfig(), runs=tmp_path)
    assert [file.split for file in folder.files].count("test") == 3
    flat = table_of(data / "train", tmp_path / "flat")
    folder = open_photos(zipped(tmp_path / "flat.zip", flat, "exported/"), ImagesConfig(), runs=tmp_path)
    assert (folder.classes, len(folder.files)) == (CLASSES, 9)
    assert "Labels from labels.csv: 9 rows, 9 photos" in " ".join(folder.notes)


def test_an_archive_is_unpacked_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", photos)
    first = unpack(archive, tmp_path / "runs")
    times = {path: path.stat().st_mtime_ns for path in first.root.rglob("*.jpg")}
    copy = tmp_path / "b.zip"
    copy.write_bytes(archive.read_bytes())
    monkeypatch.setattr(archives, "_extract", None)
    again = unpack(copy, tmp_path / "runs")
    assert again.root == first.root
    assert times == {path: path.stat().st_mtime_ns for path in again.root.rglob("*.jpg")}
    monkeypatch.undo()
    elsewhere = unpack(copy, tmp_path / "other")
    assert {p.stat().st_mtime_ns for p in elsewhere.root.rglob("*.jpg")} == set(times.values()), "as old as before"


def test_an_interrupted_unpacking_starts_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, runs = zipped(tmp_path / "a.zip", photos), tmp_path / "runs"
    whole = archives._write
    calls = []

    def failing(*arguments: object) -> int:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(archives, "_write", failing)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, runs)
    assert not [path for path in runs.iterdir() if path.is_dir()], "nothing that looks finished"
    monkeypatch.undo()
    (runs / "leftover.part").mkdir()  # of a process that was killed
    assert len(list(unpack(archive, runs).root.rglob("*.jpg"))) == 9


BAD_NAMES = ["../out.jpg", "a/../../out.jpg", "/out.jpg", "..\\out.jpg", "C:\\out.jpg", "C:out.jpg"]


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            opened.writestr(name, b"x")
    else:
        with tarfile.open(archive, "w") as opened_tar:
            info = tarfile.TarInfo(name)
            info.size = 1
            opened_tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(DataError, match=r"bad\.(zip|tar) names a file outside of it, .*Unpack it yourself"):
        unpack(archive, tmp_path / "runs" / "deep")
    assert "out.jpg" not in files_of(tmp_path.parent)


def test_only_plain_files_are_unpacked(photos: Path, tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar", photos, "w")
    with tarfile.open(archive, "a") as opened:
        for kind, name in (
            (tarfile.SYMTYPE, "link"),
            (tarfile.LNKTYPE, "hard"),
            (tarfile.CHRTYPE, "device"),
            (tarfile.FIFOTYPE, "fifo"),
        ):
            info = tarfile.TarInfo(f"photos/disc/{name}.jpg")
            info.type, info.linkname = kind, "../../../../etc/passwd"
            opened.addfile(info)
    found = unpack(archive, tmp_path / "runs")
    assert "4 links and other special files left out, such as photos/disc/link.jpg" in found.note
    assert len(list(found.root.rglob("*.jpg"))) == 9
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened_zip:
        info_zip = zipfile.ZipInfo("disc/link.jpg")
        info_zip.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened_zip.writestr(info_zip, "/etc/passwd")
        opened_zip.write(next(photos.rglob("*.jpg")), "disc/photo.jpg")
    found = unpack(tmp_path / "a.zip", tmp_path / "runs")
    assert files_of(found.root) - {".unpacked.json"} == {"photo.jpg"}
    assert "1 link or other special file left out" in found.note


def test_what_systems_add_is_left_out(photos: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", photos)
    with zipfile.ZipFile(archive, "a") as opened:
        for name in ("__MACOSX/disc/._disc-1.jpg", "disc/.DS_Store", "disc/._disc-1.jpg"):
            opened.writestr(name, b"x")
    assert unpack(archive, tmp_path / "runs").note.startswith("a.zip: 9 files, ")


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1000)
    zeros = bytes(3_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.bmp", zeros)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as opened_tar:
        info = tarfile.TarInfo("a.bmp")
        info.size = len(zeros)
        opened_tar.addfile(info, io.BytesIO(zeros))
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(DataError, match="looks like a decompression bomb"):
            unpack(tmp_path / name, tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("*.bmp"))


@pytest.mark.parametrize(("size", "header"), [(150_000, 0), (0, 300_000)])
def test_files_and_headers_of_a_tar_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, header: int
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 100_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 0)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as opened:
        info = tarfile.TarInfo("a.bmp")
        info.size, info.pax_headers = size, {"comment": "x" * header} if header else {}
        opened.addfile(info, io.BytesIO(bytes(size)))
    with pytest.raises(DataError, match="looks like a decompression bomb"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "runs")


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.bmp", bytes(3_000_000))
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace((3_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"is damaged|decompression bomb"):
        unpack(tmp_path / "a.zip", tmp_path / "runs")


def test_limits_on_files_and_bytes(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", photos)
    monkeypatch.setattr(archives, "MAX_FILES", 8)
    with pytest.raises(DataError, match="holds more than 8 files"):
        unpack(archive, tmp_path / "runs")
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_BYTES", 5000)
    with pytest.raises(DataError, match="unpacks to more than 5,000 bytes"):
        unpack(archive, tmp_path / "runs")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.tar.zst"])
@pytest.mark.parametrize("share", [0.0, 0.5, None])
def test_damaged_archives(photos: Path, tmp_path: Path, name: str, share: float | None) -> None:
    makers: dict[str, Callable[[Path, Path], Path]] = {"zip": zipped, "zst": zstd}
    modes = {"tar": "w", "gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}
    kind = name.rpartition(".")[2]
    path = tmp_path / name
    if share is None:
        path.write_bytes(b"no archive at all" * 100)
    else:
        maker = makers.get(kind) or (lambda target, folder: tarred(target, folder, modes[kind]))
        data = maker(path, photos).read_bytes()
        path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=rf"{name} (is damaged|cannot be unpacked)"):
        unpack(path, tmp_path / "runs")


def test_a_password_and_impossible_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("a.jpg", b"x")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[6] |= 1  # in the file's own header, and in the list at the end
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match="needs a password"):
        unpack(tmp_path / "a.zip", tmp_path / "runs")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as opened:
        opened.writestr("a", b"x")
        opened.writestr("a/b.jpg", b"x")
    with pytest.raises(DataError, match=r"b\.zip cannot be unpacked"):
        unpack(tmp_path / "b.zip", tmp_path / "runs")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as opened:
        opened.writestr("n" * 300, b"x")
    with pytest.raises(DataError, match=r"c\.zip cannot be unpacked: .*too long"):
        unpack(tmp_path / "c.zip", tmp_path / "runs")


def test_a_full_disk_is_no_fault_of_the_archive(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(zipped(tmp_path / "a.zip", photos), tmp_path / "runs")


def test_a_gzip_file_that_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(gzip.compress(b"hello"))
    with pytest.raises(DataError, match="is damaged, or not an archive"):
        unpack(tmp_path / "a.tgz", tmp_path / "runs")
