"""Photos that the nodes of a cluster decode are the same bytes as those that one machine does, whatever happens."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.support import CLASSES, context_of, make_photos
from tests.unit.test_containers import write_parquet, write_tar
from tests.unit.test_shards import Ended, Here

from potstill.config.schema import ImagesConfig
from potstill.images import shards
from potstill.images.pack import Store
from potstill.images.plan import ImagesPlan
from potstill.images.shards import pack_shard
from potstill.images.source import open_photos
from potstill.images.stage import collect_images
from potstill.run.folder import Run

KINDS = ("folder", "tars", "files")


def work(job: Path) -> None:
    """As `potstill.packing` does."""
    pack_shard(job)


@dataclass
class Nodes(Here):
    """A cluster, in this process."""

    without: Sequence[str] = ()
    hidden: Path | None = None
    """A photo that no node can read."""
    most: int = 1000
    """Tasks; then the command is killed."""
    asked: list[Path] = field(default_factory=list)

    def nodes_without(self, files: Sequence[Path]) -> list[str]:
        self.asked += files
        return list(self.without)

    def start(self, module: str, job: Path, *, threads: int, processes: int = 1) -> Ended:
        if len(self.started) == self.most:
            raise KeyboardInterrupt
        if self.hidden is None:
            return super().start(module, job, threads=threads)
        self.hidden.rename(self.hidden.with_suffix(".away"))
        try:
            return super().start(module, job, threads=threads)
        finally:
            self.hidden.with_suffix(".away").rename(self.hidden)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.engines.engine._POLL_SECONDS", 0)
    monkeypatch.setattr(shards, "SHARD", 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos as files, in tar shards and in parquet files: 16, of which one is a copy and one is none."""
    root = tmp_path_factory.mktemp("data")
    folder = make_photos(root / "folder", {"train": 3, "test": 1}, suffix="jpg")
    first = next((folder / "train" / CLASSES[0]).glob("*.jpg"))
    (first.parent / "copy.jpg").write_bytes(first.read_bytes())
    (first.parent / "bad.jpg").write_bytes(b"<html>")
    first.rename(os.fsdecode(os.fsencode(first.parent) + b"/not \xff UTF-8.jpg"))
    for split in ("train", "test"):
        paths = sorted((folder / split).rglob("*.jpg"))
        members = {f"{p.parent.name}/{number}.jpg": p.read_bytes() for number, p in enumerate(paths)}
        write_tar(root / "tars" / f"{split}-0.tar", members)
        photos = [{"bytes": p.read_bytes(), "path": str(number)} for number, p in enumerate(paths)]
        columns = {"image": photos, "label": [CLASSES.index(p.parent.name) for p in paths]}
        write_parquet(root / "files" / f"{split}.parquet", columns, {"label": {"names": list(CLASSES)}})
    return root


def pack(photos: Path, target: Path, nodes: Nodes | None = None) -> dict[str, bytes]:
    """The packed photos: every file with its content."""
    config = ImagesConfig(margin=1.0)
    target.mkdir(exist_ok=True)
    context = context_of(Run(target))
    context.reporter.log_to(target / "log.txt")
    if nodes is not None:
        context = replace(context, engine=nodes)
    folder = open_photos(photos, config, runs=target.parent)
    collect_images(ImagesPlan(folder, config, 48), context, worker=__name__)
    images = target / "1_images"
    return {path.name: path.read_bytes() for path in images.iterdir() if path.name != "done.json"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_packed_photos_are_those_of_one_machine(data: Path, tmp_path: Path, kind: str) -> None:
    whole = pack(data / kind, tmp_path / "whole")
    nodes = Nodes()
    assert pack(data / kind, tmp_path / "shards", nodes) == whole
    assert len(nodes.started) == 4
    assert {"pixels.bin", "images.csv", "rejected.csv"} < whole.keys()


@pytest.mark.parametrize("moment", [0, 2, 3])
def test_what_is_done_is_not_done_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    whole = pack(data / "folder", tmp_path / "whole")
    first, second = Nodes(most=moment), Nodes()
    with pytest.raises(KeyboardInterrupt):
        pack(data / "folder", tmp_path / "killed", first)
    assert pack(data / "folder", tmp_path / "killed", second) == whole
    assert not set(first.started) & set(second.started)
    assert len(first.started + second.started) == 4


def test_killed_while_shards_are_joined(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pack(data / "folder", tmp_path / "whole")
    add, added = Store.add, []

    def failing(store: Store, entry: object, pixels: bytes) -> None:
        if store._pixels.name.endswith("1_images/pixels.bin"):
            if len(added) == 6:
                raise KeyboardInterrupt
            added.append(entry)
        add(store, entry, pixels)  # type: ignore[arg-type]
        store.flush()

    first, second = Nodes(), Nodes()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", failing)
        with pytest.raises(KeyboardInterrupt):
            pack(data / "folder", tmp_path / "killed", first)
    assert pack(data / "folder", tmp_path / "killed", second) == whole
    assert not set(first.started) & set(second.started)


def test_a_damaged_shard_is_made_again(data: Path, tmp_path: Path) -> None:
    whole = pack(data / "folder", tmp_path / "whole")
    first, second = Nodes(most=1), Nodes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards._Shards, "remove", lambda *_: None)
        patch.setattr(shards._Shards, "is_done", lambda *_: False)
        with pytest.raises(KeyboardInterrupt):
            pack(data / "folder", tmp_path / "killed", first)
    path = next((tmp_path / "killed").rglob("packed/pixels.bin"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert pack(data / "folder", tmp_path / "killed", second) == whole
    assert len(second.started) == 4


def test_nodes_that_do_not_see_the_photos_get_none(data: Path, tmp_path: Path) -> None:
    nodes = Nodes(without=["10.0.0.7"])
    assert pack(data / "folder", tmp_path / "here", nodes) == pack(data / "folder", tmp_path / "whole")
    assert nodes.started == []
    assert len(nodes.asked) == 3, "the first photo, one between, and the last one"
    line = f"Photos are decoded on this machine alone: the node 10.0.0.7 does not see {data / 'folder'}"
    assert line in (tmp_path / "here" / "log.txt").read_text()


def test_a_photo_that_a_node_cannot_read_is_read_here(data: Path, tmp_path: Path) -> None:
    hidden = next((data / "folder" / "train" / CLASSES[1]).glob("*.jpg"))
    nodes = Nodes(hidden=hidden)
    assert pack(data / "folder", tmp_path / "shards", nodes) == pack(data / "folder", tmp_path / "whole")
    assert len(nodes.started) == 4


def test_killed_when_all_are_joined(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pack(data / "folder", tmp_path / "whole")
    monkeypatch.setattr(shards, "SHARD", 5)  # the last one has fewer
    first, second = Nodes(), Nodes()
    with monkeypatch.context() as patch:
        patch.setattr("potstill.images.stage.select", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack(data / "folder", tmp_path / "killed", first)
    assert pack(data / "folder", tmp_path / "killed", second) == whole
    assert (len(first.started), second.started) == (3, [])
