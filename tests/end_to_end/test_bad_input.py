"""Every mistake a user can make: one screen that names what is wrong and the way out, exit code 2, nothing lost."""

import errno
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tests.support import CLASSES, TINY, draw_photo, flags, make_photos, weight_hashes

import potstill
from potstill.cli import run
from potstill.data.arrays import RowWriter
from potstill.run.folder import Run

SCREEN = 24
"""Lines of an ordinary terminal."""

Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """`refused("distill", …)`: run a command that must be refused; returns what it printed, on one line."""

    def call(*arguments: str | Path) -> str:
        code = run([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert code == 2, said
        assert "Traceback" not in said.out + said.err
        assert said.out == "", "a refusal goes to stderr"
        assert 0 < len(said.err.strip().splitlines()) <= SCREEN, said.err
        return " ".join(said.err.split())

    return call


@pytest.fixture
def data(tmp_path: Path, photos: Path) -> Path:
    """A good photo folder that a test may spoil."""
    return Path(shutil.copytree(photos, tmp_path / "data"))


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture
def distil(data: Path, tmp_path: Path, refused: Refused) -> Refused:
    """`distil(…)`: a refused `potstill distill` of the data, that must leave all photos where they are."""

    def call(*arguments: str | Path) -> str:
        before = tree(data)
        said = refused("distill", data, "--run", tmp_path / "run", *flags(TINY), *arguments)
        assert tree(data) == before, "nothing of the user's may be lost"
        return said

    return call


def test_no_such_folder(photos: Path, refused: Refused) -> None:
    said = refused("distill", photos.parent / "shape")
    assert f"There is no folder {photos.parent / 'shape'}. Did you mean {photos}?" in said
    assert "FOLDER/train/CLASS/*.jpg" in said
    assert "potstill init cat dog --into" in said


def test_a_file_for_a_folder(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert "is neither a folder nor a file that can be read" in refused("distill", tmp_path / "photo.jpg")


def test_one_class(data: Path, distil: Refused) -> None:
    for name in CLASSES[1:]:
        shutil.rmtree(data / "train" / name)
        shutil.rmtree(data / "test" / name)
    said = distil()
    assert f"{data / 'train'} has only one class (disc)" in said
    assert "at least 2" in said
    assert "potstill init" in said
    assert len(list(data.rglob("*.png"))) == 22


def test_an_empty_class(data: Path, distil: Refused) -> None:
    (data / "train" / "nothing").mkdir()
    assert f"The class folder {data / 'train' / 'nothing'} is empty. Add photos, or remove the folder." in distil()


def test_a_class_in_test_but_not_in_train(data: Path, distil: Refused) -> None:
    (data / "test" / "stripe").mkdir()
    draw_photo("stripes", 1).save(data / "test" / "stripe" / "a.png")
    said = distil()
    assert f"{data / 'test'} has the class 'stripe', but {data}/train does not" in said
    assert "Did you mean 'stripes'?" in said


def test_a_class_in_train_but_not_in_test(data: Path, distil: Refused) -> None:
    shutil.rmtree(data / "test" / "frame")
    said = distil()
    assert "The class 'frame' has 0 usable photos for test" in said
    assert "--images.classes" in said


def test_only_bad_photos(data: Path, distil: Refused, tmp_path: Path) -> None:
    for number, photo in enumerate(sorted(data.rglob("*.png"))):
        photo.write_bytes([b"", b"<!doctype html><html>404</html>", photo.read_bytes()[:300]][number % 3])
    said = distil()
    assert "The class 'disc' has 0 usable photos for train" in said
    assert "22 files were rejected, such as train/disc/" in said
    assert "the file has 0 bytes" in said
    assert not (tmp_path / "run" / "1_images" / "done.json").exists()


def test_one_class_of_bad_photos_names_that_class(data: Path, distil: Refused) -> None:
    for photo in (data / "train" / "frame").iterdir():
        photo.write_text("not a photo")
    said = distil()
    assert "The class 'frame' has 0 usable photos" in said
    assert "not an image format that Potstill reads" in said


@pytest.mark.parametrize("name", [r"a\b", "a:b", "what?", " space", "dot.", "...", "CON", "val", "x" * 101, "e\u0301"])
def test_odd_class_names_in_the_folder(name: str, data: Path, distil: Refused) -> None:
    (data / "train" / name).mkdir()
    draw_photo("disc", 1).save(data / "train" / name / "a.png")
    if name == "...":  # hidden folders are nobody's class
        shutil.rmtree(data / "train" / name)
        (data / "train" / "a*b").mkdir()
        name = "a*b"
    said = distil()
    assert f"The class name {name!r}" in said
    assert "Rename it." in said


@pytest.mark.parametrize("name", ["a/b", "../up", ".", "..", ".hidden", "", "-x", "tab\there"])
def test_odd_class_names_for_init(name: str, tmp_path: Path, refused: Refused) -> None:
    said = refused("init", "--into", tmp_path / "new", "--", "cat", name)
    assert "The class name" in said
    assert not (tmp_path / "new").exists(), "nothing half made"
    assert not (tmp_path / "up").exists()


def test_names_with_spaces_dots_and_accents_go_all_the_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ("Rote Grütze, 'v1.2'", "猫", "naïve café [x] & b")
    for kind, name in zip(CLASSES, names, strict=True):
        make_photos(tmp_path / "drawn", {"": 12}, classes=[kind])
        (tmp_path / "drawn" / kind).rename(tmp_path / "drawn" / name)
    settings = {**TINY, "seeds": 1, "teacher.probe_epochs": 30, "student.epochs": 1, "teacher.min_gain": 0.0}
    settings |= {"images.test_share": 0.4, "images.val_share": 0.4}
    code = run(["distill", str(tmp_path / "drawn"), "--run", str(tmp_path / "run"), *flags(settings)])
    assert code == 0, capfd.readouterr()
    assert (tmp_path / "run" / "1_images" / "classes.txt").read_text("utf-8").splitlines() == sorted(names)
    assert potstill.load(tmp_path / "run").classes == tuple(sorted(names))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--student.epoch", "3"], "--student.epochs"),
        (["--teacher.wieghts", "none"], "--teacher.weights"),
        (["--sedes", "3"], "--seeds"),
        (["--student.epochs", "three"], "three"),
        (["--student.epochs", "0"], "student.epochs must be at least 1, got 0"),
        (["--machine.precision", "float16"], "float16"),
    ],
)
def test_settings_that_do_not_exist_or_fit(words: list[str], says: str, data: Path, refused: Refused) -> None:
    assert says in refused("distill", data, *words)


def test_an_unknown_setting_in_a_recipe(data: Path, tmp_path: Path, refused: Refused) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[student]\nepoch = 3\n")
    said = refused("distill", data, "--recipe", recipe)
    assert f"{recipe}: there is no setting 'student.epoch'. Did you mean 'student.epochs'?" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--teacher", "densenet210"], "There is no model 'densenet210'. Near: densenet201, densenet121"),
        (["--students", "mobilenetv3_smal_100"], "mobilenetv3_small_100"),
        (["--students", "mobilenetv3_small_100@big"], "is not NAME, NAME@SIZE"),
    ],
)
def test_unknown_models(words: list[str], says: str, data: Path, tmp_path: Path, refused: Refused) -> None:
    said = refused("distill", data, "--run", tmp_path / "run", *words)
    assert says in said
    assert not (tmp_path / "run").exists(), "noticed before anything is made"


def test_an_unknown_command_and_no_folder_at_all(refused: Refused) -> None:
    assert "distill" in refused("distil", "data")
    assert "DATA" in refused("distill").upper()


def test_a_full_disk_is_noticed_before_the_work(
    distil: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10_000, 10_000))
    said = distil()
    assert "needs 0.0" in said
    assert f"GB in {tmp_path / 'run'}, but 0.00 GB are free there" in said
    assert "--run" in said
    assert not (tmp_path / "run" / "1_images" / "pixels.bin").exists()


def test_a_disk_that_fills_up_in_the_middle_keeps_what_is_finished(
    distil: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(writer: RowWriter, rows: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(writer.growing))

    with monkeypatch.context() as patched:
        patched.setattr(RowWriter, "write", full)
        said = distil()
    assert "No space left on device" in said
    assert "features.npy.growing" in said
    assert "What was finished is kept. Fix this, then run: potstill distill" in said
    assert (tmp_path / "run" / "1_images" / "done.json").is_file()


def test_a_run_folder_made_with_other_settings(photos: Path, run_copy: Run, refused: Refused) -> None:
    before = weight_hashes(run_copy.path)
    said = refused("distill", photos, "--run", run_copy.path, *flags(TINY), "--teacher.dropout", "0.123")
    assert "2_teacher was made from other settings or photos" in said
    assert "teacher.dropout" in said
    assert "→ 0.123" in said
    assert "--redo" in said
    assert "another --run folder" in said
    assert weight_hashes(run_copy.path) == before
    assert not list(run_copy.path.rglob("inputs.json")), "nothing was begun"


def test_a_run_folder_of_other_photos(data: Path, run_copy: Run, refused: Refused) -> None:
    draw_photo("disc", 999).save(data / "train" / "disc" / "new.png")
    said = refused("distill", data, "--run", run_copy.path, *flags(TINY))
    assert "1_images was made from other settings or photos" in said
    assert (run_copy.path / "5_comparison" / "comparison.json").is_file()


@pytest.mark.parametrize("command", ["predict", "export", "report", "serve"])
def test_a_folder_that_is_no_run(command: str, tmp_path: Path, refused: Refused) -> None:
    more = {"predict": ["photo.jpg"], "export": ["--to", "onnx"]}.get(command, [])
    said = refused(command, tmp_path, *more)
    assert f"{tmp_path} is not a run folder" in said
    assert "potstill distill DATA" in said


def test_a_run_that_does_not_exist_is_told_from_a_photo_that_does_not(in_folder: Path, refused: Refused) -> None:
    assert "There is no run folder runs/nope." in refused("predict", "runs/nope", "photo.jpg")
    draw_photo("disc", 1).save(in_folder / "photo.png")
    assert "photo.png is a file, not a run folder." in refused("predict", "photo.png", "runs/nope")


def test_a_photo_that_is_none_does_not_stop_the_others(
    tiny_run: "potstill.Result", tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jpg").write_text("hello")
    Image.new("RGB", (40, 40)).save(tmp_path / "good.png")
    words = [tmp_path / "bad.jpg", tmp_path / "missing.jpg", tmp_path / "good.png"]
    assert run(["predict", str(tiny_run.path), *map(str, words)]) == 1
    bad, missing, good = capfd.readouterr().out.splitlines()
    assert "not_image" in bad
    assert "There is no file" in missing
    assert good.split("\t")[1] in CLASSES
