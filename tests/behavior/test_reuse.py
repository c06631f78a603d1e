"""A new run takes over what an earlier run beside it made from the same inputs, and is the same bit for bit."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import pack
from tests.support import TINY, context_of, draw_photo, make_photos, weight_hashes

import potstill
from potstill.config.schema import ImagesConfig
from potstill.images.decode import decode
from potstill.images.plan import ImagesPlan
from potstill.images.source import open_photos
from potstill.images.stage import collect_images
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json, sha256_of
from potstill.run.folder import Run
from potstill.run.reuse import EarlierRuns

SETTINGS = {**TINY, "machine.reuse": "on", "seeds": 1, "student.epochs": 1}


def distill(photos: Path, run: Path, **settings: Any) -> tuple["potstill.Result", str]:
    """The result, and the log."""
    wanted = {**SETTINGS, **{name.replace("__", "."): value for name, value in settings.items()}}
    result = potstill.distill(photos, settings=wanted, run=run, reporter=Reporter(quiet=True))
    return result, (run / "log.txt").read_text("utf-8")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _arrays(folder: Path) -> dict[str, str]:
    """All files but those with facts, which differ in how long something took."""
    return {name: sha for name, sha in contents(folder).items() if "json" not in name}


@pytest.fixture(scope="module")
def first(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("earlier") / "first"
    distill(photos, run)
    return run


def test_another_student_reuses_all_and_is_bit_equal_to_a_run_from_nothing(
    first: Path, photos: Path, tmp_path: Path
) -> None:
    before = contents(first)
    other = {"student__models": ["mobilenetv1_025@48"]}
    result, log = distill(photos, first.with_name("second"), **other)
    for stage in ("1_images", "2_teacher", "3_soft_labels"):
        assert f"{stage} is reused from {first}: same photos and settings" in log
    assert "Decoding photos" not in log
    assert "Soft labels: the teacher labels" not in log
    assert not list(result.path.rglob("*.part"))
    anew, log = distill(photos, tmp_path / "anew", **other, machine__reuse="off")
    assert "is reused from" not in log
    for stage in ("1_images", "2_teacher", "3_soft_labels"):
        assert _arrays(result.path / stage) == _arrays(anew.path / stage), stage
    assert weight_hashes(result.path) == weight_hashes(anew.path)
    assert contents(first) == before, "the earlier run stays as it was"
    with_redo = {**SETTINGS, "student.models": ["mobilenetv1_025@48"], "teacher.head_l2": 0.05}
    potstill.distill(photos, settings=with_redo, run=result.path, redo=True, reporter=Reporter(quiet=True))
    assert contents(first) == before, "also when the new run is made again"


def test_what_was_made_otherwise_is_made_anew_and_the_reason_is_told(first: Path, photos: Path, tmp_path: Path) -> None:
    result, log = distill(photos, first.with_name("other-teacher"), teacher__head_l2=0.03)
    assert "1_images is reused from" in log
    assert re.search(r"2_teacher is recomputed: \S+ has a different one \(teacher.head_l2: 0\.0\d → 0\.03\)", log)
    assert (result.path / "1_images/pixels.bin").stat().st_ino == (first / "1_images/pixels.bin").stat().st_ino
    assert read_json(result.path / "2_teacher/done.json")["inputs"]["teacher"]["head_l2"] == 0.03


def test_a_damaged_stage_is_not_taken_over(first: Path) -> None:
    other = first.with_name("damaged")
    shutil.copytree(first, other)
    with (other / "1_images/pixels.bin").open("r+b") as file:
        file.write(b"x")
    said: list[str] = []
    inputs = read_json(first / "1_images/done.json")["inputs"]
    earlier = EarlierRuns((other, first), said.append)
    assert earlier.take_over(first.with_name("new") / "1_images", inputs)
    assert f"1_images is not reused from {other}: " in said[0]
    assert said[1] == f"1_images is reused from {first}: same photos and settings"
    shutil.rmtree(other)


def test_another_environment_is_not_trusted(first: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from potstill import pipeline
    from potstill.compute import device

    def other(machine: Any) -> dict[str, Any]:
        found = device.environment(machine)
        return {**found, "versions": {**found["versions"], "torch": "1.0"}}

    monkeypatch.setattr(pipeline, "environment", other)
    monkeypatch.setattr(pipeline, "_stages", lambda *_: None)
    _, log = distill(photos, first.with_name("another-torch"))
    assert f"Nothing is reused from {first}, which was made differently (versions.torch: " in log


def test_a_photo_that_got_its_label_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed is the same as without the earlier run, byte for byte."""
    data, decoded = make_photos(tmp_path / "data", {"train": 4, "test": 2, "unlabeled": 3}), []
    first = pack(data, tmp_path / "first")
    (data / "unlabeled/disc-19.png").rename(data / "train/disc/disc-19.png")
    draw_photo("frame", 4711).save(data / "train/frame/new.png")
    anew = pack(data, tmp_path / "anew")
    monkeypatch.setattr("potstill.images.pack.decode", lambda *a, **k: decoded.append(1) or decode(*a, **k))
    said: list[str] = []
    with_earlier = Run(tmp_path / "second", earlier=EarlierRuns((tmp_path / "first",), said.append))
    config = ImagesConfig(margin=1.0)
    plan = ImagesPlan(open_photos(data, config, runs=tmp_path), config, 80)
    second = collect_images(plan, context_of(with_earlier))
    assert len(decoded) == 1
    assert _arrays(second.folder) == _arrays(anew.folder)
    assert _arrays(second.folder) != _arrays(first.folder)
    monkeypatch.setattr("potstill.images.pack.decode", decode)
    with (first.folder / "pixels.bin").open("r+b") as file:
        file.write(b"damaged")
    third = collect_images(plan, context_of(replace(with_earlier, path=tmp_path / "third")))
    assert _arrays(third.folder) == _arrays(anew.folder), "damaged pixels are not taken over"
