"""`get` from an Open Images on loopback: counts, order, resume, faults, provenance."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.servers.faults import PASSING, PERMANENT, notice
from tests.servers.helpers import assert_sound, open_images, photos, run_get
from tests.servers.openimages import World

from potstill.errors import ConfigError, DataError, SourceError
from potstill.get import provenance
from potstill.get.run import GetRequest, get, preview
from potstill.get.summary import preview_table
from potstill.images.folder import read_folder
from potstill.monitoring.progress import Reporter


def test_get_fills_both_splits_with_licenses_and_authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 20, "Dog": 20}, "test": {"Cat": 20, "Dog": 20}})
    data = tmp_path / "data"
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        result = run_get(data, server, "cat", "Dogs", train=10, test=5)
    assert result.is_complete
    kept = assert_sound(data)
    assert sorted(path.rsplit("/", 1)[0] for path in kept) == sorted(
        ["train/cat"] * 10 + ["train/Dogs"] * 10 + ["test/cat"] * 5 + ["test/Dogs"] * 5
    )
    for entry in kept.values():
        assert entry["license"] == "CC-BY-2.0"
        assert entry["author"] == "Doe, J"
        assert entry["landing_url"].startswith("https://www.flickr.com/photos/u")
        assert entry["group"].startswith("flickr:u")
    with (data / "ATTRIBUTION.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == set(kept)
    facts = json.loads((data / "dataset.json").read_text())
    assert facts["classes"]["Dogs"]["concept"] == "/m/0bt9lr"
    assert facts["sources"]["openimages"]["files"]["v7/oidv7-class-descriptions.csv"]["etag"]


def test_train_lists_are_only_fetched_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 90, "Dog": 90}, "train": {"Cat": 200, "Dog": 200}})
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        run_get(tmp_path / "a", server, "cat", "dog", train=8, test=4)
        assert not [line for line in server.log if "train" in line]
        assert run_get(tmp_path / "b", server, "cat", "dog", train=80, test=40).is_complete
        assert [line for line in server.log if "train-annotations" in line]


def test_missing_photos_are_reported_with_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 12}})
    world.faults = dict.fromkeys(world.ids("validation", "Cat")[:6], PERMANENT["gone"][0])
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        result = run_get(tmp_path / "data", server, "cat", train=20, test=10)
    assert not result.is_complete
    (stream,) = result.streams
    assert stream.reasons["gone"] == 6
    assert sum(side.have for side in stream.sides.values()) == 6
    assert_sound(tmp_path / "data")


@pytest.mark.parametrize("name", PERMANENT)
def test_lasting_faults_are_refused_with_their_reason(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, code = PERMANENT[name]
    world = World({"validation": {"Cat": 9}})
    bad = world.ids("validation", "Cat")[:2]
    world.faults = dict.fromkeys(bad, fault)
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        result = run_get(tmp_path / "data", server, "cat", train=9, test=9)
    kept = assert_sound(tmp_path / "data")
    assert len(kept) == 7
    assert result.streams[0].reasons == {code: 2}
    reasons = {entry["key"]: entry for entry in provenance.latest(tmp_path / "data") if entry["status"] != "ok"}
    assert set(reasons) == {f"openimages-{image_id}" for image_id in bad}
    assert {entry["reason"] for entry in reasons.values()} == {code}


@pytest.mark.parametrize("name", PASSING)
def test_passing_faults_are_survived(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 6}})
    world.faults = dict.fromkeys(world.ids("validation", "Cat"), PASSING[name])
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        result = run_get(tmp_path / "data", server, "cat", train=6, test=6)
    assert len(assert_sound(tmp_path / "data")) == 6
    assert not result.streams[0].reasons


def test_one_picture_under_three_addresses_is_a_placeholder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 40}})
    world.faults = dict.fromkeys(world.ids("validation", "Cat")[::4], notice)
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        result = run_get(tmp_path / "data", server, "cat", train=40, test=40)
    assert len(assert_sound(tmp_path / "data")) == 30
    assert result.streams[0].reasons["placeholder"] == 10


def test_a_second_run_adds_and_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 60}})
    data = tmp_path / "data"
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        run_get(data, server, "cat", train=6, test=3)
        first = photos(data)
        asked = sum(world.asked.values())
        run_get(data, server, "cat", train=6, test=3)
        assert photos(data) == first
        assert sum(world.asked.values()) == asked
        run_get(data, server, "cat", train=20, test=5)
        assert first < photos(data)
    assert len(assert_sound(data)) == 25


def test_deleted_photos_stay_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 30}})
    data = tmp_path / "data"
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        run_get(data, server, "cat", train=6, test=3)
        victim = sorted((data / "train/cat").iterdir())[0]
        victim.unlink()
        assert run_get(data, server, "cat", train=6, test=3).is_complete
    assert not victim.exists()


def test_lists_that_break_off_are_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 300}}, cut_lists_after=5000)
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        assert run_get(tmp_path / "data", server, "cat", train=6, test=3).is_complete
        labels = [line for line in server.log if "val-annotations" in line]
    assert len(labels) == 2


def test_an_unknown_word_gets_near_matches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        open_images(World({}), monkeypatch, tmp_path / "cache") as server,
        pytest.raises(SourceError, match=r"no class 'celo'\. Near: Cello\."),
    ):
        run_get(tmp_path / "data", server, "celo", source="openimages")


def test_a_pin_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Doll, Barbie": 9}})
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        result = run_get(tmp_path / "data", server, "toy=/m/0167gd", train=2, test=1)
    assert result.streams[0].concept.name == "Doll, Barbie"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat", "Cat"), "same folder"),
        (("../cat",), "contains '/'"),
        (("cat", "cat"), "given twice"),
        ((), "Name the classes"),
    ],
)
def test_bad_class_names_are_refused_before_any_request(
    names: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_images(World({}), monkeypatch, tmp_path / "cache") as server:
        with pytest.raises(DataError, match=message):
            run_get(tmp_path / "data", server, *names)
        assert not server.log


def test_another_seed_in_the_same_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 9}})
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        run_get(tmp_path / "data", server, "cat", train=2, test=1)
        with pytest.raises(DataError, match="would mix train and test"):
            run_get(tmp_path / "data", server, "cat", train=2, test=1, seed=1)


def folders(root: Path) -> dict[str, set[str]]:
    """The photos of each split, by name."""
    found: dict[str, set[str]] = {}
    for path in photos(root):
        found.setdefault(path.split("/")[0], set()).add(path.rsplit("/", 1)[1])
    return found


def test_photos_without_labels_are_those_that_train_has_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World({"validation": {"Cat": 40, "Dog": 40}})
    data, plain = tmp_path / "data", tmp_path / "plain"
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        run_get(plain, server, "cat", "dog", train=6, test=3)
        result = run_get(data, server, "cat", "dog", train=6, test=3, unlabeled=8)
        assert result.is_complete
        kept = assert_sound(data)
        with (data / "ATTRIBUTION.csv").open(newline="") as file:
            assert {row["path"]: row["license"] for row in csv.DictReader(file)} == dict.fromkeys(kept, "CC-BY-2.0")
        asked = sum(world.asked.values())
        run_get(data, server, "cat", "dog", train=6, test=3, unlabeled=8)
        assert sum(world.asked.values()) == asked, "a second time nothing is fetched"
        before = photos(data)
        run_get(data, server, "cat", "dog", train=9, test=3, unlabeled=8)
        assert before < photos(data), "no photo changes its split"
    found = folders(data)
    assert photos(plain) == {path for path in before if not path.startswith("unlabeled/")}, "the labeled ones stay"
    assert {name: len(names) for name, names in found.items()} == {"train": 18, "test": 6, "unlabeled": 16}
    assert not found["unlabeled"] & (found["train"] | found["test"])
    assert sum(path.startswith("unlabeled/cat/") for path in kept) == 8
    groups = {split: {e["group"] for e in kept.values() if e["split"] == split} for split in found}
    assert not groups["test"] & groups["unlabeled"], "nor from the authors of test's photos"
    facts = json.loads((data / "dataset.json").read_text())
    assert facts["classes"]["cat"]["photos"] == {"train": 9, "test": 3, "unlabeled": 8}


def test_names_of_other_classes_may_fill_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"validation": {"Cat": 40, "Dog": 40, "Bird": 40}})
    data = tmp_path / "data"
    with open_images(world, monkeypatch, tmp_path / "cache") as server:
        run_get(data, server, "cat", "dog", train=4, test=2)
        assert run_get(data, server, "bird", train=0, test=0, unlabeled=5).is_complete
    assert_sound(data)
    assert {entry.name for entry in (data / "train").iterdir()} == {"cat", "dog"}, "bird is no class"
    assert len(list((data / "unlabeled/bird").iterdir())) == 5
    folder = read_folder(data)
    assert folder.classes == ("cat", "dog")
    assert sum(file.split == "unlabeled" for file in folder.files) == 5


def test_a_copy_without_a_label_takes_no_label_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The photos of the class "pet" are those of the cats again, in folders of one's own."""
    own = tmp_path / "own"
    with open_images(World({"validation": {"Cat": 12}}), monkeypatch, tmp_path / "cache") as server:
        run_get(own, server, "cat", train=6, test=3)
    for split in ("train", "test"):
        shutil.copytree(own / split / "cat", own / split / "pet")
    data = tmp_path / "data"
    request = GetRequest(classes=("cat",), into=data, train=6, test=3, source=str(own))
    assert get(request, Reporter(quiet=True)).is_complete
    labeled = photos(data)
    assert len(labeled) == 9
    result = get(replace(request, classes=("pet",), train=0, test=0, unlabeled=9), Reporter(quiet=True))
    assert photos(data) == labeled
    assert result.streams[0].reasons == {"identical": 6}
    assert_sound(data)


def test_at_least_one_photo_must_be_wanted(tmp_path: Path) -> None:
    for counts in ({"train": 0, "test": 0}, {"unlabeled": -1}):
        with pytest.raises(ConfigError, match="at least one must be above 0"):
            GetRequest(classes=("cat",), into=tmp_path, **counts)


def test_a_preview_counts_what_is_left_for_unlabeled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_images(World({"validation": {"Cat": 90}}), monkeypatch, tmp_path / "cache") as server:
        request = GetRequest(
            classes=("cat",), into=tmp_path / "data", train=10, test=5, unlabeled=20, allow_private=(server.address,)
        )
        (found,) = preview(request, Reporter(quiet=True))
    assert found.wanted == {"train": 10, "test": 5, "unlabeled": 20}
    assert found.candidates["train"] == 13
    assert found.candidates["unlabeled"] >= 20
    assert not (tmp_path / "data").exists()
    assert "unlabeled candidates" in [column.header for column in preview_table([found]).columns]
