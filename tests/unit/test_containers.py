"""Photos in tar shards and parquet files are read where they lie, and what does not fit is said with its place."""

import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support import CLASSES, draw_photo, make_photos

from potstill.check.count import count
from potstill.check.run import check
from potstill.config.schema import ImagesConfig
from potstill.data.pixels import PixelStore
from potstill.errors import ConfigError, DataError
from potstill.images import containers, pack, tar_shards
from potstill.images.decode import read_bytes
from potstill.images.folder import Folder
from potstill.images.new_photos import read_new_photos
from potstill.images.selection import read_for_training
from potstill.images.source import open_photos
from potstill.images.summary import folder_lines
from potstill.monitoring.progress import Reporter

JPEG = b"\xff\xd8 no photo"


def write_tar(path: Path, members: Mapping[str, bytes], **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **how) as tar:
        for name, data in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            item.mtime = 1.5 if how.get("format") == tarfile.PAX_FORMAT else 0  # type: ignore[assignment]
            tar.addfile(item, io.BytesIO(data))
    return path


def photo(name: str, number: int) -> bytes:
    buffer = io.BytesIO()
    draw_photo(name, number).save(buffer, "JPEG")
    return buffer.getvalue()


def labeled(numbers: Sequence[int], label: Callable[[int], bytes] = lambda n: b"%d" % (n % 3)) -> dict[str, bytes]:
    """Members KEY.jpg, which are no photos, and KEY.cls."""
    return {f"{n:04d}.{kind}": JPEG if kind == "jpg" else label(n) for n in numbers for kind in ("jpg", "cls")}


def opened(data: Path, runs: Path, **settings: Any) -> Folder:
    return open_photos(data, ImagesConfig(**settings), runs=runs)


def facts(folder: Folder) -> list[tuple[str, str | None, str]]:
    names = [*folder.classes, ""]
    return [(f.path.relative_to(folder.root).as_posix(), f.split, names[f.label]) for f in folder.files]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_shards_with_numbers_and_names(tmp_path: Path, form: int) -> None:
    long = "a" * 80 + "/" + "b" * 60
    for name, numbers in {"train-000000": [0, 1, 2], "train-000001": [3, 4, 5], "val-000000": [6, 7, 8]}.items():
        write_tar(tmp_path / "data" / f"{name}.tar", labeled(numbers), format=form)
    write_tar(tmp_path / "data" / "test-000000.tar", {f"{long}.jpg": JPEG, f"{long}.cls": b"1\n"}, format=form)
    (tmp_path / "data" / "classes.txt").write_text("cat\ndog\nbird\n")
    folder = opened(tmp_path / "data", tmp_path / "runs")
    assert folder.classes == ("bird", "cat", "dog")
    found = facts(folder)
    assert found[0] == (f"test-000000.tar/{long}.jpg", "test", "dog")
    assert found[1:3] == [("train-000000.tar/0000.jpg", "train", "cat"), ("train-000000.tar/0001.jpg", "train", "dog")]
    assert Counter(split for _, split, _ in found) == {"train": 6, "val": 3, "test": 1}
    assert folder.counts() == Counter((file.split, file.label) for file in folder.files)
    assert [read_bytes(file.source) for file in folder.files[2:5]] == [JPEG] * 3
    assert "4 tar shards (2 of train, 1 of val, 1 of test) with 10 photos, read where they lie" in folder.notes[0]
    assert "classes from KEY.cls, names of classes from classes.txt" in folder.notes[0]
    assert not folder.unused


def test_other_ways_to_say_labels_and_splits(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    members = {f"{name}/{n}.1.png": b"x" for name in ("cat", "dog") for n in range(3)}
    write_tar(tmp_path / "a" / "photos.tar", {**members, "readme.md": b"", "._x.png": b"", "cat/a.txt": b"a cat"})
    folder = opened(tmp_path / "a", runs)
    assert (folder.flat, folder.classes, len(folder.files)) == (True, ("cat", "dog"), 6)
    assert [(unused.files, unused.why) for unused in folder.unused] == [(3, "other files")]
    values = {f"{n}.json": json.dumps({"kind": ["cat", "dog"][n % 2], "label": n}).encode() for n in range(8)}
    for split in ("training", "testing"):
        write_tar(tmp_path / "b" / split / "0.tar", {**values, **{f"{n}.webp": b"x" for n in range(9)}})
    folder = opened(tmp_path / "b", runs, label_column="kind")
    assert folder.counts() == {("train", 0): 4, ("train", 1): 4, ("test", 0): 4, ("test", 1): 4}
    assert "2 photos not used, such as 0.tar/8.webp: nothing says its class." in folder.notes
    folder = opened(tmp_path / "b" / "{training,testing}" / "*.tar", runs, label_column="kind", classes=("cat", "dog"))
    assert len(folder.files) == 16
    write_tar(tmp_path / "c" / "train.tar", labeled(range(6), lambda n: [b"cat", b"dog", b""][n % 3]))
    write_tar(tmp_path / "c" / "unlabeled.tar", {"x.jpg": b"x"})
    folder = opened(tmp_path / "c", runs)
    assert folder.counts() == {("train", 0): 2, ("train", 1): 2, ("unlabeled", -1): 3}
    assert len(opened(tmp_path / "c" / "train.tar", runs).files) == 6, "a shard is told from an archive by KEY.cls"


def test_count_and_the_summary_say_what_was_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    members = {**labeled(range(9)), "lone.cls": b"1", "0.caption": b""}
    for split in ("train", "test"):
        write_tar(tmp_path / "data" / f"{split}-0.tar", members)
    (tmp_path / "data" / "README").write_text("photos")
    counted = count(Path("data"))
    assert counted.by_split == {"train": {"0": 3, "1": 3, "2": 3}, "test": {"0": 3, "1": 3, "2": 3}}
    text = "\n".join(folder_lines(opened(Path("data"), Path("runs")), ImagesConfig()))
    assert "2 labels have no photo, such as test-0.tar/lone.cls." in text
    assert "Not used: 2 other files (test-0.tar/0.caption, …); 1 other file (README)" in text
    for work in (
        lambda: check(Path("data"), reporter=Reporter(quiet=True)),
        lambda: read_new_photos(Path("data"), ImagesConfig()),
    ):
        with pytest.raises(DataError, match="large files"):
            work()


def test_each_shard_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_tar(tmp_path / "data" / f"{number}.tar", labeled(range(9 * number, 9 * number + 9)))
    whole, made = containers.index_tar, []

    def failing(container: Any, label: str) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(container.path.name)
        return whole(container, label)

    monkeypatch.setattr(containers, "index_tar", failing)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path / "data", tmp_path)
    made[:] = ["0.tar"]
    first = facts(opened(tmp_path / "data", tmp_path))
    assert made == ["0.tar", "2.tar"], "after an interruption only the rest is read"
    made.clear()
    for path in (tmp_path / ".indexes").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:-30])
        break
    assert facts(opened(tmp_path / "data", tmp_path)) == first
    assert len(made) == 1, "a damaged list is made again"
    made.clear()
    folder = opened(tmp_path / "data", tmp_path)
    write_tar(tmp_path / "data" / "1.tar", labeled(range(5)))
    with pytest.raises(DataError, match=r"1\.tar has changed since"):
        read_bytes(folder.files[10].source)
    assert len(opened(tmp_path / "data", tmp_path).files) == 23
    assert made == ["1.tar"]


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut in a photo": (lambda p: p.write_bytes(p.read_bytes()[:515]), r"0\.tar is cut short: 0000\.jpg should have"),
    "cut behind a member": (
        lambda p: p.write_bytes(p.read_bytes()[:2048]),
        r"ends behind the member 0000\.cls without",
    ),
    "damaged": (
        lambda p: p.write_bytes(p.read_bytes()[:2050] + b"?" + p.read_bytes()[2051:]),
        r"the header at byte 2,048 behind the member 0000\.cls is wrong",
    ),
    "no tar": (lambda p: p.write_bytes(b"x" * 9000), "not a tar: its first header is not one of a tar"),
    "two labels": (
        lambda p: write_tar(p, {**labeled([0]), "0000.json": b'{"label": 1}'}),
        r"0000\.cls says 0 and 0000",
    ),
    "several labels": (lambda p: write_tar(p, labeled([0], lambda n: b"1 2")), r"0000\.cls has several labels, '1 2'"),
    "a list": (lambda p: write_tar(p, {"0.jpg": b"", "0.json": b'{"label": [1]}'}), r"field 'label' of 0\.json holds"),
    "no JSON": (lambda p: write_tar(p, {"0.jpg": b"", "0.json": b"{"}), r"0\.tar: 0\.json is not JSON"),
    "two photos": (lambda p: write_tar(p, {**labeled([0]), "0000.png": b""}), "share the label of 0000"),
    "twice": (lambda p: write_tar(p, {"0.jpg": b"", "./0.jpg": b""}), r"two members 0\.jpg"),
    "outside": (lambda p: write_tar(p, {"../../0.jpg": b""}), r"names a file outside of it, '\.\./\.\./0\.jpg'"),
    "deep": (lambda p: write_tar(p, {"a/cat/0.jpg": b""}), r"a/cat/0\.jpg has no label and lies 2 folders deep"),
    "large label": (lambda p: write_tar(p, labeled([0], lambda n: b"1" * 2000)), "2,000 bytes; a label may have 1,000"),
    "out of range": (
        lambda p: write_tar(p, labeled([0, 7], lambda n: b"%d" % n)),
        r"0\.tar: 0007\.jpg has the class nu",
    ),
    "negative": (lambda p: write_tar(p, labeled([0], lambda n: b"-1")), "the class number -1, but there are 3 names"),
    "no such name": (lambda p: write_tar(p, labeled([0], lambda n: b"cow")), "has the class 'cow', but there are"),
    "no labels": (lambda p: write_tar(p, {"0.jpg": b"", "1.jpg": b""}), "None of the 2 photos of .* has a label"),
    "one class": (lambda p: write_tar(p, labeled([0, 3])), r"one class \(cat\)"),
    "mixed splits": (
        lambda p: write_tar(p.with_name("test-1.tar"), labeled([0])),
        "test-1.tar is of test, 0.tar of no",
    ),
    "no train": (lambda p: p.rename(p.with_name("test-0.tar")), r"files of test \(test-0\.tar\), but none of train"),
    "two splits": (lambda p: write_tar(p.parent / "train" / "test-0.tar", {}), "of train by its folder and of test by"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(tmp_path: Path, fault: str) -> None:
    path = write_tar(tmp_path / "data" / "0.tar", labeled(range(6)), format=tarfile.USTAR_FORMAT)
    (tmp_path / "data" / "classes.txt").write_text("cat\ndog\nbird\n")
    opened(tmp_path / "data", tmp_path)
    change, message = FAULTS[fault]
    change(path)
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "data", tmp_path)


def test_photos_are_not_counted_for_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "data" / "0.tar", labeled(range(400), lambda n: b"%d" % (n // 10)))
    calls, counts = [], containers.StoredFiles.counts

    def counted(files: containers.StoredFiles) -> Any:
        calls.append(files)
        return counts(files)

    monkeypatch.setattr(containers.StoredFiles, "counts", counted)
    folder = read_for_training(tmp_path / "data", ImagesConfig(), runs=tmp_path)
    assert len(folder.classes) == 40
    assert 0 < len(calls) < 10


def test_links_and_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "data" / "0.tar", labeled(range(6)))
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("2000.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    folder = opened(tmp_path / "data", tmp_path)
    assert [(unused.name, unused.why) for unused in folder.unused] == [
        ("0.tar/2000.jpg", "links and other special files")
    ]
    monkeypatch.setattr(tar_shards, "MAX_FILES", 10)
    with pytest.raises(DataError, match="more than 10 members"):
        opened(tmp_path / "data", tmp_path / "other")


def test_settings_and_patterns_that_fit_nothing(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", labeled(range(6)))
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "0.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"compressed shards \(0\.tar\.gz\)"):
        opened(tmp_path / "packed", tmp_path)
    with pytest.raises(DataError, match=r"There is no file .*/1\.tar, which is part of"):
        opened(tmp_path / "{0..3}.tar", tmp_path)
    for setting in ("split_column", "group_column", "path_column"):
        with pytest.raises(ConfigError, match=f"images.{setting} is 'x'"):
            opened(tmp_path / "0.tar", tmp_path, **{setting: "x"})
    with pytest.raises(DataError, match=r"has no class '3'\. It has: 0, 1, 2"):
        opened(tmp_path / "0.tar", tmp_path, classes=("0", "3"))


def write_parquet(path: Path, columns: Mapping[str, Any], features: Any = None, **how: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if features:
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    parquet.write_table(table, path, **how)
    return path


LABEL = {"label": {"names": ["cat", "dog", "bird"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}


def images(count: int) -> list[dict[str, Any]]:
    return [{"bytes": b"photo %d" % n, "path": f"{n}.jpg"} for n in range(count)]


def test_parquet_files_of_hugging_face(tmp_path: Path) -> None:
    for name, labels in {
        "train-00000-of-00002": [0, 1, 2, -1],
        "train-00001-of-00002": [2, 1],
        "test-00000-of-00001": [0],
    }.items():
        columns = {"image": images(len(labels)), "label": labels, "id": labels}
        write_parquet(tmp_path / "set" / "data" / f"{name}.parquet", columns, LABEL, row_group_size=3)
    (tmp_path / "set" / "README.md").write_text("---")
    folder = opened(tmp_path / "set", tmp_path)
    assert folder.classes == ("bird", "cat", "dog")
    found = facts(folder)
    assert found[0] == ("data/test-00000-of-00001.parquet#0", "test", "cat")
    assert found[4] == ("data/train-00000-of-00002.parquet#3", "unlabeled", "")
    assert [read_bytes(file.source) for file in folder.files[1:5]] == [b"photo %d" % n for n in range(4)]
    assert (
        "photos from column image, classes from column label, names of classes from the files' metadata"
        in folder.notes[0]
    )
    assert "Columns that are not used: id." in folder.notes
    plain = write_parquet(tmp_path / "plain.parquet", {"png": [b"1", b"2"], "species": ["cat", "dog"]})
    assert facts(opened(plain, tmp_path)) == [("plain.parquet#0", None, "cat"), ("plain.parquet#1", None, "dog")]


PARQUET_FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "out of range": ({"image": images(2), "label": [0, 3]}, {}, r"0\.parquet, row 1 has the class number 3, but"),
    "several": ({"image": images(1), "label": [[0, 1]]}, {}, r"row 0: the column 'label' holds '\[0, 1\]', which"),
    "no label": (
        {"image": images(2), "a": [0, 1], "b": [0, 1]},
        {},
        r"no column that is known to hold the classes: a, b",
    ),
    "no bytes": (
        {"label": [0, 1]},
        {},
        "no row of the column 'image'",
    ),
    "two": ({"image": images(2), "mask": images(2), "label": [0, 1]}, {}, r"several columns of bytes: image, mask"),
    "addresses": (
        {"image": ["http://a"] * 2, "label": [0, 1]},
        {"path_column": "image"},
        "'image' has no bytes of photos",
    ),
}


@pytest.mark.parametrize("fault", PARQUET_FAULTS)
def test_a_fault_of_a_parquet_file(tmp_path: Path, fault: str) -> None:
    columns, settings, message = PARQUET_FAULTS[fault]
    if fault == "no bytes":
        pyarrow = pytest.importorskip("pyarrow")
        kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        columns = {**columns, "image": pyarrow.array([{"bytes": None, "path": "a.jpg"}] * 2, kind)}
    write_parquet(tmp_path / "data" / "0.parquet", columns, LABEL if fault == "out of range" else None)
    with pytest.raises(DataError, match=message):
        open_photos(tmp_path / "data" / "{0..0}.parquet", ImagesConfig(**settings), runs=tmp_path)


def test_a_parquet_file_of_addresses_only(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train-0.parquet", {"image": ["http://a/b.jpg"] * 2, "label": [0, 1]})
    with pytest.raises(DataError, match=r"(?s)row 1: http://a/b\.jpg.*by `potstill get`"):
        opened(tmp_path, tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        opened(tmp_path, tmp_path)


def test_the_same_photos_give_the_same_store(tmp_path: Path, packer: Callable[..., PixelStore]) -> None:
    """Class folders, shards and parquet files: the same pixels, splits, rejected photos and copies."""
    folder = make_photos(tmp_path / "folder", {"train": 3, "test": 1}, suffix="jpg")
    first = next((folder / "train" / CLASSES[0]).glob("*.jpg"))
    (first.parent / "copy.jpg").write_bytes(first.read_bytes())
    (first.parent / "bad.jpg").write_bytes(b"<html>")
    for split in ("train", "test"):
        paths = sorted((folder / split).rglob("*.jpg"))
        members = {p.relative_to(folder / split).as_posix(): p.read_bytes() for p in paths}
        write_tar(tmp_path / "tars" / f"{split}-0.tar", members)
        photos = [{"bytes": p.read_bytes(), "path": p.name} for p in paths]
        columns = {"image": photos, "label": [CLASSES.index(p.parent.name) for p in paths]}
        features = {"label": {"names": list(CLASSES)}}
        write_parquet(tmp_path / "files" / f"{split}.parquet", columns, features, row_group_size=4)
    found = {}
    for name in ("folder", "tars", "files"):
        store = packer(tmp_path / name, tmp_path / f"packed-{name}")
        images = tmp_path / f"packed-{name}" / "1_images"
        tables = [(images / f"{table}.csv").read_text().splitlines() for table in ("images", "rejected")]
        rows = [
            sorted((row["split"], row["class"], row.get("code"), row["sha256"]) for row in csv.DictReader(table))
            for table in tables
        ]
        pixels = [store.photo(row).tobytes() for row in range(len(store))]
        found[name] = (rows, pixels)
        assert len(rows[1]) == 2
    assert found["folder"] == found["tars"] == found["files"]
    rejected = (tmp_path / "packed-tars" / "1_images" / "rejected.csv").read_text()
    assert f"train-0.tar/{CLASSES[0]}/bad.jpg" in rejected


def test_an_interrupted_packing_goes_on(
    tmp_path: Path, packer: Callable[..., PixelStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = {f"{name}/{n}.jpg": photo(name, n) for name in CLASSES for n in range(4)}
    write_tar(tmp_path / "data" / "0.tar", photos)
    packer(tmp_path / "data", tmp_path / "whole")
    add, added = pack.Store.add, []

    def failing(store: Any, entry: Any, data: bytes) -> None:
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(entry.path)
        add(store, entry, data)
        store.flush()

    monkeypatch.setattr(pack.Store, "add", failing)
    with pytest.raises(KeyboardInterrupt):
        packer(tmp_path / "data", tmp_path / "killed")
    first, added = added, []
    monkeypatch.setattr(
        pack.Store, "add", lambda store, entry, data: (added.append(entry.path), add(store, entry, data))
    )
    packer(tmp_path / "data", tmp_path / "killed")
    assert sorted(first + added) == sorted(f"0.tar/{name}" for name in photos)
    for name in ("images.csv", "pixels.bin"):
        assert (tmp_path / "killed/1_images" / name).read_bytes() == (tmp_path / "whole/1_images" / name).read_bytes()
