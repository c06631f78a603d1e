"""What a new user types: get, check, count, distill. Each command is a process of its own, the servers are loopback."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from tests.servers.faults import PASSING, PERMANENT
from tests.servers.helpers import assert_sound, open_images
from tests.servers.loopback import Server
from tests.servers.openimages import World
from tests.support import TINY, flags, potstill

TRAIN, TEST = 36, 12


def world() -> World:
    """Cats are reddish, dogs greenish. Every sixth photo is bad, or comes only at the second try."""
    found = World({"validation": {"Cat": 80, "Dog": 80}}, tinted=True)
    faults = [PERMANENT[name][0] for name in ("html", "truncated", "gone", "tiny")] + [*PASSING.values()]
    for label in ("Cat", "Dog"):
        for number, image_id in enumerate(found.ids("validation", label)[::6]):
            found.faults[image_id] = faults[number % len(faults)]
    return found


def get(server: Server, cwd: Path) -> str:
    done = potstill(
        "get", "cat", "Dogs", "--into", "data", "--train", str(TRAIN), "--test", str(TEST),
        "--allow-private", server.address, cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_from_class_names_to_a_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    with open_images(world(), monkeypatch, tmp_path / "cache") as server:
        said = get(server, tmp_path)
        before = assert_sound(data)
        assert "cat: openimages /m/01yrx “Cat”" in said
        assert "Dogs: openimages /m/0bt9lr “Dog” read as 'dog'" in said, "what was chosen is printed"
        assert "Next: potstill check data" in said

        get(server, tmp_path)
        assert assert_sound(data) == before, "a second time nothing changes"

    # What happens to folders: a saved web page, and a photo of the test set that got into train.
    (data / "train/cat/saved.jpg").write_text("<!DOCTYPE html><title>Cats</title>")
    leaked = sorted((data / "test/Dogs").iterdir())[0]
    shutil.copy(leaked, data / "train/Dogs/again.jpg")

    done = potstill("check", "data", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    moved = {
        (f["path"], f["code"]) for f in json.loads(done.stdout)["findings"] if f["code"] in ("not_image", "in_test")
    }
    assert moved == {("train/cat/saved.jpg", "not_image"), ("train/Dogs/again.jpg", "in_test")}
    assert (data / ".quarantine/in_test/train/Dogs/again.jpg").is_file()

    done = potstill("count", "data", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        json.loads(done.stdout).items()
        >= {
            "splits": {"train": {"Dogs": TRAIN, "cat": TRAIN}, "test": {"Dogs": TEST, "cat": TEST}},
            "totals": {"train": 2 * TRAIN, "test": 2 * TEST},
            "imbalance": {"train": 1.0, "test": 1.0},
            "quarantine": {"in_test": 1, "not_image": 1},
        }.items()
    )

    settings = {**TINY, "seeds": 1, "student.epochs": 2}
    done = potstill("distill", "data", "--quick", "--run", "run", *flags(settings), cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run/1_images/rejected.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [], "check had found everything"
    page = (tmp_path / "run/7_report/index.html").read_text()
    assert "CC-BY-2.0" in page
    assert "openimages" in page
    assert "Doe, J" in page, "beside the photos that it shows"
    with (tmp_path / "run/1_images/ATTRIBUTION.csv").open(newline="") as file:
        credited = {row["path"]: (row["author"], row["license"]) for row in csv.DictReader(file)}
    assert credited == dict.fromkeys(before, ("Doe, J", "CC-BY-2.0"))

    done = potstill("check", "data", "--run", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = potstill("predict", "run", sorted((data / "test/cat").iterdir())[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
