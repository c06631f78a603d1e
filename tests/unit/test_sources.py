"""Each source, from the word to the photos, against a server or files in its real format."""

import csv
import io
import json
import tarfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image
from tests.servers.apis import Nature, Viewer, Wiki, send_photo
from tests.servers.helpers import assert_sound, photos, run_get
from tests.servers.loopback import Server, serve
from tests.servers.pictures import jpeg

from potstill.errors import SourceError
from potstill.get.sources import Candidate, Concept, SourceOptions, archives, registry, resolve
from potstill.get.sources.registry import SourceType

NOBODY = Server(1)
"""For sources that ask nobody."""


def test_commons_pages_waits_and_credits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wiki = Wiki()
    with serve(wiki.app()) as server:
        monkeypatch.setenv("POTSTILL_COMMONS_BASE", server.url)
        monkeypatch.setenv("POTSTILL_WIKIDATA_BASE", server.url)
        result = run_get(
            tmp_path / "data", server, "cat", source="commons", contact="me@example.org", train=40, test=15
        )
    assert result.is_complete
    assert result.streams[0].concept.id == "Q146"
    assert "bulldozers" in result.streams[0].concept.note
    assert result.streams[0].reasons["license"] > 0
    assert {agent.split("/")[0] for agent in wiki.agents} == {"potstill-bot"}
    assert all("me@example.org" in agent for agent in wiki.agents)
    kept = assert_sound(tmp_path / "data")
    entry = next(iter(kept.values()))
    assert entry["author"] == "X & Y"
    assert entry["license"] == "CC-BY-SA-4.0"
    assert entry["group"].startswith("commons:A cat")
    assert entry["landing_url"].startswith("https://commons.wikimedia.org/wiki/File:")


def test_commons_requires_a_contact(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"--contact me@example\.org"):
        run_get(tmp_path / "data", NOBODY, "cat", source="commons")


def test_commons_knows_pins_and_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Wiki().app()) as server:
        monkeypatch.setenv("POTSTILL_COMMONS_BASE", server.url)
        monkeypatch.setenv("POTSTILL_WIKIDATA_BASE", server.url)
        result = run_get(tmp_path / "a", server, "hund=Q144", contact="me@example.org", train=2, test=1)
        assert result.streams[0].concept.name == "dog"
        with pytest.raises(SourceError, match="no item Q999"):
            run_get(tmp_path / "b", server, "x=Q999", contact="me@example.org")
        with pytest.raises(SourceError, match="finds nothing for 'xyzzy'"):
            run_get(tmp_path / "c", server, "xyzzy", source="commons", contact="me@example.org")


def test_inaturalist_keeps_observations_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Nature().app()) as server:
        monkeypatch.setenv("POTSTILL_INATURALIST_BASE", server.url)
        result = run_get(tmp_path / "data", server, "cat", source="inaturalist", train=80, test=40)
    assert result.is_complete
    assert result.streams[0].concept.id == "118552", "the exact name wins over the first hit"
    kept = assert_sound(tmp_path / "data")
    sides: dict[str, set[str]] = {}
    for entry in kept.values():
        sides.setdefault(entry["group"], set()).add(entry["split"])
        assert entry["license"] in ("CC-BY", "CC0")
        assert "/medium.jpg" in entry["url"]
    assert all(len(splits) == 1 for splits in sides.values())
    assert result.streams[0].reasons["license"] > 0, "non-commercial photos are left out by default"


def test_inaturalist_pins_and_near_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Nature().app()) as server:
        monkeypatch.setenv("POTSTILL_INATURALIST_BASE", server.url)
        result = run_get(tmp_path / "a", server, "katze=inat:118552", train=2, test=1)
        assert result.streams[0].concept.name == "Felis catus (Domestic Cat)"
        with pytest.raises(SourceError, match=r"Near: Bobcat \(inat:41976\)"):
            run_get(tmp_path / "b", server, "lynx", source="inaturalist")


def test_hugging_face_uses_signed_addresses_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Viewer().app()) as server:
        monkeypatch.setenv("POTSTILL_HF_VIEWER_BASE", server.url)
        monkeypatch.setenv("POTSTILL_HF_BASE", server.url)
        result = run_get(tmp_path / "data", server, "Cats", "dog", source="hf:me/pets", train=110, test=20)
        with pytest.raises(SourceError, match=r"no class 'bird'.*\n.*Its classes: cat, dog\."):
            run_get(tmp_path / "b", server, "bird", source="hf:me/pets")
    assert result.is_complete
    kept = assert_sound(tmp_path / "data")
    for path, entry in kept.items():
        assert entry["split"] == entry["dataset_split"], "the published split holds"
        assert entry["revision"] == "abc123"
        assert "Signature" not in json.dumps(entry)
        assert (tmp_path / "data" / path).read_bytes() == jpeg(entry["row"])


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def wnid_tar(path: Path, wnid: str, numbers: range) -> Path:
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            add(tar, f"{wnid}_{number}.JPEG", jpeg(number))
    return path


CATS, DOGS = "n02123045", "n02085620"
"""tabby, Chihuahua"""


def test_imagenet_from_wnid_tars(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    wnid_tar(own / f"{CATS}.tar", CATS, range(30))
    wnid_tar(own / "n02123159.tar", "n02123159", range(100, 130))  # tiger cat
    wnid_tar(own / f"{DOGS}.tar", DOGS, range(200, 230))
    result = run_get(tmp_path / "data", NOBODY, "cat", "dog=n02084071", source=f"imagenet:{own}", train=20, test=8)
    assert result.is_complete
    assert result.streams[0].concept.note.startswith("2 subclasses")
    kept = assert_sound(tmp_path / "data")
    assert {entry["wnid"] for entry in kept.values() if entry["label"] == "cat"} == {CATS, "n02123159"}


def test_imagenet_from_the_train_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid, numbers in ((CATS, range(40)), (DOGS, range(50, 90))):
            add(outer, f"{wnid}.tar", wnid_tar(tmp_path / "inner", wnid, numbers).read_bytes())
    source = f"imagenet:{tmp_path / 'ILSVRC2012_img_train.tar'}"
    result = run_get(tmp_path / "data", NOBODY, "cat", "dog", source=source, train=8, test=4)
    assert result.is_complete
    for path, entry in assert_sound(tmp_path / "data").items():
        number = int(entry["file"].split("_")[1])
        assert (tmp_path / "data" / path).read_bytes() == jpeg(number)
    with pytest.raises(SourceError, match="no photos of 'bird'"):
        run_get(tmp_path / "b", NOBODY, "bird", source=source)


def test_imagenet_is_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="registered researchers"):
        run_get(tmp_path / "data", NOBODY, "cat", source="imagenet:")


def serve_files(folder: Path) -> AbstractContextManager[Server]:
    app = web.Application()
    app.router.add_static("/", folder)
    return serve(app)


def packed(path: Path, files: dict[str, bytes]) -> str:
    import hashlib

    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            add(tar, name, data)
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_imagenette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    files = {"imagenette2-160/noisy_imagenette.csv": b"path,noisy_labels_0"}
    for split, start in (("train", 0), ("val", 50)):
        for number in range(start, start + 12):
            files[f"imagenette2-160/{split}/n01440764/n01440764_{number}.JPEG"] = jpeg(number)
    md5 = packed(site / "imagenette2-160.tgz", files)
    monkeypatch.setitem(
        archives.ARCHIVES,
        "imagenette2-160",
        archives.Archive("wnid", ((f"{archives.FASTAI}/imagenette2-160.tgz", md5),), "ImageNet-non-commercial"),
    )
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    with serve_files(site) as server:
        monkeypatch.setenv("POTSTILL_ARCHIVES_BASE", server.url)
        result = run_get(tmp_path / "data", server, "fish", source="archive:imagenette2-160", train=10, test=10)
        with pytest.raises(SourceError, match="Archives: imagenette2-160"):
            run_get(tmp_path / "x", server, "fish", source="archive:imagenet")
    assert result.is_complete
    assert result.streams[0].concept.id != "n01440764", "fish is above tench in WordNet"
    for entry in assert_sound(tmp_path / "data").values():
        assert (int(entry["file"].split("_")[1]) < 50) == (entry["split"] == "train")


def test_a_wrong_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path / "imagenette2-160.tgz", {"a": b"b"})
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    with serve_files(tmp_path) as server:
        monkeypatch.setenv("POTSTILL_ARCHIVES_BASE", server.url)
        with pytest.raises(SourceError, match="checksum"):
            run_get(tmp_path / "data", server, "fish", source="archive:imagenette2-160")


def test_oxford_pets_by_breed_and_by_species(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    breeds = {"Abyssinian": (1, 0), "Bengal": (1, 100), "beagle": (2, 200)}
    photos_of = {f"images/{name}_{i}.jpg": jpeg(start + i) for name, (_, start) in breeds.items() for i in range(20)}
    lists = {"trainval": range(12), "test": range(12, 20)}
    notes = {
        f"annotations/{split}.txt": "".join(
            f"{name}_{i} 1 {species} 1\n" for name, (species, _) in breeds.items() for i in numbers
        ).encode()
        for split, numbers in lists.items()
    }
    md5s = packed(site / "images.tar.gz", photos_of), packed(site / "annotations.tar.gz", notes)
    names = ("images.tar.gz", "annotations.tar.gz")
    files = tuple((f"{archives.PETS}/{name}", md5) for name, md5 in zip(names, md5s, strict=True))
    monkeypatch.setitem(archives.ARCHIVES, "oxford-pets", archives.Archive("pets", files, "CC-BY-SA-4.0"))
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    with serve_files(site) as server:
        monkeypatch.setenv("POTSTILL_ARCHIVES_BASE", server.url)
        result = run_get(tmp_path / "data", server, "cat", "beagles", source="archive:oxford-pets", train=12, test=8)
    assert result.is_complete
    kept = assert_sound(tmp_path / "data")
    assert {entry["file"].split("_")[0] for entry in kept.values() if entry["label"] == "cat"} == {
        "Abyssinian",
        "Bengal",
    }
    assert all(entry["license"] == "CC-BY-SA-4.0" for entry in kept.values())


def test_stl10_pixels_are_the_right_way_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    site = tmp_path / "site"
    site.mkdir()
    images = [np.asarray(Image.open(io.BytesIO(jpeg(n, width=96, height=96)))) for n in range(12)]
    binary = np.stack([image.transpose(2, 1, 0) for image in images]).tobytes()
    labels = bytes([1, 2] * 6)
    files = {
        "stl10_binary/class_names.txt": b"airplane\nbird\n",
        "stl10_binary/train_X.bin": binary,
        "stl10_binary/train_y.bin": labels,
        "stl10_binary/test_X.bin": b"",
        "stl10_binary/test_y.bin": b"",
    }
    md5 = packed(site / "stl10_binary.tar.gz", files)
    monkeypatch.setitem(
        archives.ARCHIVES, "stl10", archives.Archive("stl10", ((f"{archives.STL}/stl10_binary.tar.gz", md5),), "x")
    )
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    with serve_files(site) as server:
        monkeypatch.setenv("POTSTILL_ARCHIVES_BASE", server.url)
        assert run_get(tmp_path / "data", server, "bird", source="archive:stl10", train=6, test=0).is_complete
    kept = Image.open(tmp_path / "data/train/bird/stl10-train-00001.png")
    assert (np.asarray(kept) == images[1]).all()


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "txt"])
def test_lists_of_addresses(kind: str, tmp_path: Path) -> None:
    from aiohttp import web

    app = web.Application()
    app.router.add_get("/{number:\\d+}.jpg", send_photo)
    with serve(app) as server:
        rows = [
            {
                "url": f"http://user:secret@{server.address}/{n}.jpg",
                "label": "cat",
                "license": "CC BY 4.0",
                "author": "=Me",
                "split": "test" if n < 5 else "train",
            }
            for n in range(20)
        ]
        path = tmp_path / f"cat.{kind}"
        if kind == "txt":
            path.write_text("# my cats\n" + "\n".join(row["url"] for row in rows))
        elif kind == "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        elif kind == "parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, rows[0], delimiter="\t" if kind == "tsv" else ",")
                table.writeheader()
                table.writerows(rows)
        result = run_get(tmp_path / "data", server, "Cat", source=str(path), train=12, test=4)
    assert result.is_complete or kind == "txt"
    kept = assert_sound(tmp_path / "data")
    if kind != "txt":
        assert {entry["split"] for entry in kept.values() if int(entry["url"].split("/")[-1][:-4]) < 5} == {"test"}
        assert "'=Me" in (tmp_path / "data/ATTRIBUTION.csv").read_text(), "no formulas for spreadsheets"


def test_a_promised_hash_must_hold(tmp_path: Path) -> None:
    import hashlib

    from aiohttp import web

    app = web.Application()
    app.router.add_get("/{number:\\d+}.jpg", send_photo)
    with serve(app) as server:
        lines = ["url,label,sha256"]
        lines += [f"{server.url}/{n}.jpg,cat,{hashlib.sha256(jpeg(n)).hexdigest()}" for n in range(4)]
        lines += [f"{server.url}/{n}.jpg,cat,{'0' * 64}" for n in range(4, 6)]
        (tmp_path / "list.csv").write_text("\n".join(lines))
        result = run_get(tmp_path / "data", server, "cat", source=str(tmp_path / "list.csv"), train=6, test=6)
    assert result.streams[0].reasons == {"checksum": 2}
    assert len(assert_sound(tmp_path / "data")) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [("url\nhttp://a/b.jpg\n", "row 2: url and label are required"), ("", "has no label 'cat'")],
)
def test_bad_lists_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        run_get(tmp_path / "data", NOBODY, "cat", source=str(tmp_path / "list.csv"))


def test_a_folder_of_photos(tmp_path: Path) -> None:
    for label, start in (("cat", 0), ("dog", 100)):
        (tmp_path / "own" / label).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "own" / label / f"{number}.png").write_bytes(jpeg(start + number))
    result = run_get(tmp_path / "data", NOBODY, "cat", "dog", source=str(tmp_path / "own"), train=15, test=5)
    assert result.is_complete
    assert all(path.endswith(".jpg") for path in photos(tmp_path / "data")), "named by what they are"
    assert_sound(tmp_path / "data")


def shard(path: Path, numbers: range, *, style: str) -> None:
    """As webdataset writes (`.cls`), or as img2dataset does (`.json` and `.txt`)."""
    with tarfile.open(path, "w") as tar:
        for n in numbers:
            add(tar, f"{n:09d}.jpg", jpeg(n))
            if style == "cls":
                add(tar, f"{n:09d}.cls", b"cat")
            else:
                facts = {"url": f"http://x/{n}.jpg", "key": f"{n:09d}", "status": "success", "label": "cat"}
                add(tar, f"{n:09d}.json", json.dumps(facts).encode())
                add(tar, f"{n:09d}.txt", b"a cat")
        add(tar, "../../evil.jpg", jpeg(1))
        add(tar, "odd.pkl", b"cos\nsystem\n")


@pytest.mark.parametrize("style", ["cls", "json"])
def test_tar_shards(style: str, tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"{number:03d}.tar", range(number * 20, number * 20 + 20), style=style)
    source = str(tmp_path / "{000..002}.tar")
    result = run_get(tmp_path / "data", NOBODY, "cat", source=source, train=30, test=10)
    assert result.is_complete
    kept = assert_sound(tmp_path / "data")
    for path, entry in kept.items():
        assert (tmp_path / "data" / path).read_bytes() == jpeg(int(entry["sample"]))
    assert not list(tmp_path.parent.rglob("evil*"))
    with pytest.raises(SourceError, match=r"003\.tar is missing \(1 of 4"):
        run_get(tmp_path / "b", NOBODY, "cat", source=str(tmp_path / "{000..003}.tar"))


def test_a_source_that_does_not_exist_gets_near_matches(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no source 'openimage'.*Did you mean 'openimages'\?"):
        run_get(tmp_path / "data", NOBODY, "cat", source="openimage")


class Toy:
    """Photos in a folder, as a source of somebody else's own."""

    name, has_licenses, public = "toy", False, False

    def __init__(self, text: str, options: SourceOptions) -> None:
        self._folder = Path(text)

    async def resolve(self, label: str, wanted: str) -> Concept:
        return Concept(label=label, id=wanted.removeprefix("toy-"), name=wanted)

    async def candidates(self, concepts: Sequence[Concept], concept: Concept) -> AsyncIterator[Candidate]:
        for path in sorted(self._folder.glob(f"{concept.id}-*")):
            yield Candidate(key=f"toy-{path.stem}", label=concept.label, group=path.stem, read=path.read_bytes)

    async def facts(self) -> dict[str, Any]:
        return {}

    async def probe(self) -> str:
        return "answers"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> SourceType:
    sources = dict(registry.SOURCES)  # a copy, so that no other test meets the toy
    monkeypatch.setattr(registry, "SOURCES", sources)
    monkeypatch.setattr(resolve, "SOURCES", sources)
    source = SourceType(name="toy", open=Toy, usage="toy:FOLDER", summary="numbered photos", id_pattern=r"toy-\w+")
    registry.register(source)
    return source


def test_a_registered_source_is_opened_described_and_recognized_by_its_ids(tmp_path: Path, toy: SourceType) -> None:
    for number in range(20):
        (tmp_path / f"cat-{number:02}.jpg").write_bytes(jpeg(number))
    result = run_get(tmp_path / "data", NOBODY, "cat", source=f"toy:{tmp_path}", train=6, test=2)
    assert result.is_complete
    assert {entry["source"] for entry in assert_sound(tmp_path / "data").values()} == {"toy"}
    assert "toy:FOLDER (numbered photos)" in registry.source_help()
    assert registry.owner_of("toy-cat") == "toy"
    assert registry.owner_of("cat") == ""
    with pytest.raises(ValueError, match="is a source 'toy' already"):
        registry.register(toy)
