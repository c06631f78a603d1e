"""`check`: every reason is found, the right copy stays, quarantine loses nothing."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.servers.pictures import jpeg

import potstill
from potstill.check.quarantine import Quarantine
from potstill.check.run import apply, check
from potstill.cli import run as command
from potstill.data.label_errors import check_labels, label_noise, suspects
from potstill.data.pixels import PixelStore
from potstill.errors import DamageError, DataError
from potstill.images.reasons import meaning
from potstill.monitoring.progress import Reporter
from potstill.run.files import read_json
from potstill.run.folder import Run

QUIET = Reporter(quiet=True)


def folder(root: Path, count: int = 12) -> Path:
    """Two classes of `count` good, different photos in train and 3 in test."""
    for label, start in (("cat", 0), ("dog", 1000)):
        for split, numbers in (("train", range(count)), ("test", range(500, 503))):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            for number in numbers:
                (root / split / label / f"{number}.jpg").write_bytes(jpeg(start + number))
    return root


def resaved(number: int, *, quality: int = 60, scale: float = 1.0, mirror: bool = False) -> bytes:
    image = Image.open(io.BytesIO(jpeg(number)))
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    if mirror:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def noise(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    small = np.random.default_rng(9).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


BAD = {
    "empty": b"",
    "not_image": b"<!DOCTYPE html><title>404</title>",
    "corrupt": jpeg(7000)[:-700],
    "too_small": png(noise((20, 30))),
    "thin": png(noise((600, 60))),
    "blank": png(Image.new("RGB", (100, 100), (250, 250, 250))),
}


@pytest.mark.parametrize("code", BAD)
def test_bad_files_go_to_quarantine_and_come_back(code: str, tmp_path: Path) -> None:
    root = folder(tmp_path)
    path = root / "train/cat/bad.jpg"
    path.write_bytes(BAD[code])
    result = check(root, QUIET)
    assert [(f.path, f.code) for f in result.to_move] == [("train/cat/bad.jpg", code)]
    assert path.exists(), "check itself moves nothing"
    assert apply(result) == 1
    assert (root / ".quarantine" / code / "train/cat/bad.jpg").read_bytes() == BAD[code]
    assert not path.exists()
    assert not check(root, QUIET).to_move
    assert Quarantine(root).restore(code) == 1
    assert path.read_bytes() == BAD[code]
    assert not (root / ".quarantine").exists()


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.png", jpeg(7001), "wrong_extension"),
        ("a.png", png(noise((90, 90), "P")), "odd_mode"),
        ("a.tif", b"", ""),
        ("a.png", png(noise((90, 90), "L").convert("RGB")), "gray"),
        ("a.png", png(noise((90, 90)).point(lambda v: v // 8)), "dark"),
        ("a.png", png(noise((90, 90)).point(lambda v: 230 + v // 11)), "bright"),
    ],
)
def test_oddities_are_listed_and_stay(name: str, data: bytes, code: str, tmp_path: Path) -> None:
    root = folder(tmp_path)
    if name == "a.tif":  # 16 bits per channel
        out = io.BytesIO()
        Image.fromarray(np.asarray(noise((90, 90), "L")).astype(np.uint16) * 257).save(out, "TIFF")
        data, code = out.getvalue(), "odd_mode"
    (root / "train/cat" / name).write_bytes(data)
    result = check(root, QUIET)
    assert not result.to_move
    assert code in {f.code for f in result.findings if f.path == f"train/cat/{name}"}


def test_a_photo_on_its_side_and_an_animation_are_noted(tmp_path: Path) -> None:
    root = folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise((200, 100)).save(root / "train/cat/side.jpg", exif=exif)
    frames = [noise((80, 80)).rotate(90 * turn) for turn in range(3)]
    frames[0].save(root / "train/cat/moving.gif", save_all=True, append_images=frames[1:])
    found = {(f.path, f.code) for f in check(root, QUIET).findings}
    assert ("train/cat/side.jpg", "rotated") in found
    assert ("train/cat/moving.gif", "animated") in found


@pytest.mark.parametrize(
    ("split", "label", "data", "expected"),
    [
        ("train", "cat", jpeg(3), {"train/cat/x.jpg": "identical"}),
        ("train", "cat", resaved(3), {"train/cat/x.jpg": "duplicate"}),
        ("train", "cat", resaved(3, scale=0.5), {"train/cat/x.jpg": "duplicate"}),
        ("train", "cat", resaved(3, scale=2.0), {"train/cat/3.jpg": "duplicate"}),
        ("train", "cat", resaved(3, mirror=True), {"train/cat/x.jpg": "duplicate"}),
        ("train", "cat", resaved(501), {"train/cat/x.jpg": "in_test"}),
        ("train", "cat", jpeg(501), {"train/cat/x.jpg": "in_test"}),
        ("test", "cat", resaved(3, scale=0.5), {"train/cat/3.jpg": "in_test"}),
        ("train", "dog", jpeg(3), {"train/dog/x.jpg": "two_classes", "train/cat/3.jpg": "two_classes"}),
        ("train", "dog", resaved(3), {"train/dog/x.jpg": "two_classes", "train/cat/3.jpg": "two_classes"}),
    ],
)  # fmt: skip
def test_the_right_copy_stays(split: str, label: str, data: bytes, expected: dict[str, str], tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / split / label / "x.jpg").write_bytes(data)
    found = {f.path: f.code for f in check(root, QUIET).to_move}
    sizes = {path: (root / path).stat().st_size for path in found}
    if expected == {"train/cat/x.jpg": "identical"}:  # equals: either may stay
        assert set(found.values()) == {"identical"}
        assert set(sizes) <= {"train/cat/x.jpg", "train/cat/3.jpg"}
        assert len(found) == 1
    elif (
        set(expected.values()) == {"duplicate"} and len(data) and found.keys() <= {"train/cat/x.jpg", "train/cat/3.jpg"}
    ):
        assert set(found.values()) == {"duplicate"}
        assert len(found) == 1
        if data in (resaved(3, scale=0.5), resaved(3, scale=2.0)):
            assert found == expected, "the one with more pixels stays"
    else:
        assert found == expected


def test_a_clean_folder_is_left_alone_on_all_cores(tmp_path: Path) -> None:
    result = check(folder(tmp_path, count=150), QUIET)
    assert result.photos == 306
    assert not result.to_move


def test_too_much_of_a_class_needs_a_yes(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for number in range(5):
        (root / f"train/cat/{number}.jpg").write_bytes(b"<html>")
    result = check(root, QUIET)
    with pytest.raises(DataError, match=r"More than 20%.*\n.*cat: 33%"):
        apply(result)
    assert (root / "train/cat/0.jpg").exists()
    assert apply(result, yes=True) == 5


def test_restore_never_overwrites(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "train/cat/bad.jpg").write_bytes(b"first")
    apply(check(root, QUIET))
    (root / "train/cat/bad.jpg").write_bytes(b"second")
    Quarantine(root).restore()
    assert {(root / f"train/cat/{name}").read_bytes() for name in ("bad.jpg", "bad-2.jpg")} == {b"first", b"second"}


def test_a_crash_between_log_and_move_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path)
    (root / "train/cat/bad.jpg").write_bytes(b"bad")
    result = check(root, QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            apply(result)
    assert (root / "train/cat/bad.jpg").exists()
    assert Quarantine(root).counts() == {}
    assert apply(check(root, QUIET)) == 1
    assert Quarantine(root).counts() == {"not_image": 1}


def test_unknown_reasons_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no photo for 'blury'\. It holds: nothing"):
        Quarantine(folder(tmp_path)).restore("blury")


def test_the_command_writes_page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path)
    (root / "train/cat/bad.jpg").write_bytes(b"<html>")
    assert command(["check", str(root), "--json", "--strict"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["counts"] == {"not_image": 1}
    assert read_json(root / "check.json") == printed
    page = (root / "check.html").read_text()
    assert "train/cat/bad.jpg" in page
    assert command(["count", str(root), "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert [group["name"] for group in counted["unused"]] == [".quarantine/"], "its own page and JSON are passed over"
    assert counted["splits"] == {"train": {"cat": 12, "dog": 12}, "test": {"cat": 3, "dog": 3}}
    assert counted["quarantine"] == {"not_image": 1}
    assert command(["check", str(root), "--purge", "all"]) == 2, "without a terminal, --yes is needed"
    assert Quarantine(root).counts()
    assert command(["check", str(root), "--purge", "all", "--yes"]) == 0
    assert not (root / ".quarantine").exists()


def test_tables_in_a_pipe_have_every_column_and_whole_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    root = folder(tmp_path)
    (root / "train/cat/bad.jpg").write_bytes(b"<html>")
    assert command(["check", str(root)]) == 0
    printed = capsys.readouterr().err
    (line,) = [line for line in printed.splitlines() if line.startswith("not_image")]
    assert line.split() == ["not_image", "1", "quarantine", *meaning("not_image").split()]
    assert "Moved 1 photo to" in printed
    assert command(["count", str(root)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["class", "train", "test"] in lines
    assert ["cat", "12", "3"] in lines
    assert ["total", "24", "6"] in lines
    assert ["largest", ":", "smallest", "1.0", ":", "1", "1.0", ":", "1"] in lines
    assert ["in", "quarantine:", "1", "not_image"] in lines


def test_wrong_labels_of_a_real_run_are_ranked_and_stay(
    photos: Path, tiny_run: "potstill.Result", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each training photo has out-of-fold outputs; since the run, some photos were moved to another class."""
    root = tmp_path / "data"
    shutil.copytree(photos, root)
    with (tiny_run.run.images / "images.csv").open(newline="") as file:
        paths = [line["path"] for line in csv.DictReader(file)]
    with np.load(tiny_run.run.teacher / "out_of_fold.npz") as stored:
        others = np.exp(stored["logits"][:, :2] - stored["logits"][:, 2:]).sum(axis=1)
        ranked = stored["row"][np.argsort(others)]
    names = [Path(paths[row]).name for row in ranked if "stripes" in paths[row]][:3]
    for name in names:
        (root / "train/stripes" / name).rename(root / "train/disc" / name)
    moved = {f"train/disc/{name}": "probably stripes" for name in names}
    assert command(["check", str(root), "--run", str(tiny_run.path), "--near-bits", "-1", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = [finding for finding in printed["findings"] if finding["code"] == "wrong_label"]
    scores = [finding["score"] for finding in found]
    assert scores == sorted(scores)
    details = {finding["path"]: finding["detail"] for finding in found}
    assert moved.items() <= details.items()
    assert len(found) <= 12, "of 42 photos, by a tiny teacher"
    assert all((root / finding["path"]).is_file() for finding in found), "listed, never moved"
    assert "probability of its label" in (root / "check.html").read_text()


def test_a_run_without_out_of_fold_outputs_is_refused(run_copy: Run, tmp_path: Path) -> None:
    with (run_copy.images / "images.csv").open(newline="") as file:
        hashes = [line["sha256"] for line in csv.DictReader(file)]
    with pytest.raises(DataError, match="trained on other photos or classes"):
        suspects(run_copy.path, {"0" * 64: "disc"})
    with pytest.raises(DataError, match="trained on other photos or classes"):
        suspects(run_copy.path, dict.fromkeys(hashes, "whale"))
    (run_copy.teacher / "out_of_fold.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DamageError, match="is damaged"):
        suspects(run_copy.path, dict.fromkeys(hashes, "disc"))
    (run_copy.teacher / "out_of_fold.npz").unlink()
    with pytest.raises(DataError, match="likely wrong labels cannot be found"):
        suspects(run_copy.path, dict.fromkeys(hashes, "disc"))


def test_several_teachers_are_averaged(tmp_path: Path) -> None:
    Run(tmp_path).create("potstill distill photos", "")
    (tmp_path / "1_images").mkdir()
    (tmp_path / "1_images/classes.txt").write_text("cat\ndog\n")
    lines = ["row,path,split,class,sha256", *(f"{10 + n},train/cat/{n}.jpg,train,cat,{n}" for n in range(4))]
    (tmp_path / "1_images/images.csv").write_text("\n".join(lines))
    for name, last in (("1_a", 3.0), ("2_b", 1.0)):
        (tmp_path / "2_teacher" / name).mkdir(parents=True)
        logits = np.array([[4, 0], [4, 0], [0, 0.5], [0, last]], np.float32)
        np.savez(
            tmp_path / "2_teacher" / name / "out_of_fold.npz", row=np.arange(10, 14), logits=logits, labels=[0] * 4
        )
    (suspect,) = suspects(tmp_path, {"0": "cat", "1": "cat", "2": "dog", "3": "cat"})
    assert (suspect.sha256, suspect.likely) == ("3", "dog")
    assert suspect.probability == pytest.approx((1 / (1 + np.exp(3)) + 1 / (1 + np.exp(1))) / 2)


def test_distill_leaves_out_what_check_would_move(tmp_path: Path, packer: Callable[..., PixelStore]) -> None:
    root = folder(tmp_path / "data")
    for code, data in BAD.items():
        (root / f"train/cat/{code}.jpg").write_bytes(data)
    (root / "train/cat/notice.png").write_bytes(png(Image.linear_gradient("L").resize((70, 66))).ljust(2051, b"\0"))
    (root / "train/dog/near.jpg").write_bytes(resaved(1004, scale=0.5))
    (root / "train/dog/mirrored.jpg").write_bytes(resaved(1500, scale=0.7, mirror=True))
    (root / "train/dog/other.jpg").write_bytes(resaved(5, scale=0.7))
    (root / "val/dog").mkdir(parents=True)
    (root / "val/cat").mkdir()
    (root / "val/dog/a.jpg").write_bytes(jpeg(2000))
    (root / "val/cat/a.jpg").write_bytes(jpeg(2001))
    (root / "train/cat/leak.jpg").write_bytes(resaved(2001, scale=0.7))
    (root / "unlabeled").mkdir()
    (root / "unlabeled/known.jpg").write_bytes(resaved(1006, scale=0.7))
    (root / "unlabeled/new.jpg").write_bytes(jpeg(3000))
    would_move = {(f.path, f.code) for f in check(root, QUIET).to_move}
    packer(root, tmp_path / "run", size=100)
    with (tmp_path / "run/1_images/rejected.csv").open(newline="") as file:
        left_out = {(row["path"], row["code"]): row["reason"] for row in csv.DictReader(file)}
    assert set(left_out) == would_move
    assert len(would_move) == len(BAD) + 7
    assert left_out["train/dog/mirrored.jpg", "in_test"].endswith("the test photo test/dog/500.jpg")
    assert left_out["train/cat/leak.jpg", "in_test"].endswith("the val photo val/cat/a.jpg")
    assert "in the class cat: train/cat/5.jpg" in left_out["train/dog/other.jpg", "two_classes"]
    assert left_out["unlabeled/known.jpg", "duplicate"].endswith("picture as train/dog/6.jpg")


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
def test_label_noise_is_told_from_photos_that_are_hard(noise: float) -> None:
    draw = np.random.default_rng(0)
    # Half of the photos are easy; of the others a calibrated teacher errs on a quarter, whatever the labels.
    sure = np.where(draw.random(12000) < 0.5, 0.98, draw.uniform(0.5, 0.99, 12000))
    truth = draw.integers(2, size=12000)
    top = np.where(draw.random(12000) < sure, truth, 1 - truth)
    probabilities = np.where(np.arange(2) == top[:, None], sure[:, None], 1 - sure[:, None])
    labels = np.where(draw.random(12000) < noise, 1 - truth, truth)
    assert label_noise(probabilities, labels) == pytest.approx(noise, abs=0.03)


def test_few_photos_tell_nothing_about_label_noise() -> None:
    probabilities = np.tile([0.9, 0.1], (200, 1))
    assert label_noise(probabilities, np.ones(200, int)) == 0.0


def test_label_rule_finds_planted_errors_and_few_others() -> None:
    """1,000 photos, 3 classes, a teacher that is right 90 % of the time, 5 % of labels wrong."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 1000)
    seen = np.where(rng.random(1000) < 0.9, truth, rng.integers(0, 3, 1000))
    logits = rng.normal(0, 1, (1000, 3))
    logits[np.arange(1000), seen] += 4
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = truth.copy()
    planted = rng.choice(1000, 50, replace=False)
    labels[planted] = (truth[planted] + 1 + rng.integers(0, 2, 50)) % 3
    found, likely = check_labels(probabilities, labels)
    hits = np.isin(planted, found).sum()
    assert hits >= 40
    assert len(found) <= 150
    assert (likely != labels[found]).all()
    own = probabilities[found, labels[found]]
    assert (np.diff(own) >= 0).all()


def test_a_folder_that_may_only_be_read_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = folder(tmp_path / "data", 6)
    (root / "train/cat/bad.jpg").write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("potstill.run.files.tempfile.mkstemp", refuse)
    assert command(["check", str(root), "--json"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["counts"]["empty"] == 1
    assert "Nothing can be written to" in printed.err
    assert "no photo is moved" in printed.err
    assert "check.html" not in printed.err
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_dry_run_as_json_writes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = folder(tmp_path / "data", 6)
    before = sorted(root.rglob("*"))
    assert command(["check", str(root), "--dry-run", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["photos"] == 18
    assert sorted(root.rglob("*")) == before
