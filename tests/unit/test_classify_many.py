"""What `potstill predict` takes, what it writes, and how it sorts, with a model that sees brightness only."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.support import environment

from potstill.deploy import batches, inputs, video
from potstill.deploy.batches import predict_each, probabilities_of_each
from potstill.deploy.classify import classify
from potstill.deploy.inputs import collect
from potstill.deploy.outputs import kind_of, writer
from potstill.deploy.predictor import Photo, to_pixels
from potstill.deploy.sorting import Sorter, require_apart
from potstill.errors import ConfigError, DataError, PotstillError
from potstill.processes import pools


@dataclass
class Brightness:
    """Bright or dark, by the mean of all pixels."""

    classes: tuple[str, ...] = ("bright", "dark")
    threshold: float = 0.6
    thresholds: tuple[float, ...] = ()
    operating_point: None = None
    works_in_processes: bool = True
    batches: list[int] = field(default_factory=list)

    def worker(self, *, processes: bool) -> Callable[[Photo], np.ndarray]:
        return to_pixels

    def from_workers(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        self.batches.append(len(parts))
        bright = np.array([pixels.mean() / 255 for pixels in parts])
        return np.stack([bright, 1 - bright], -1).astype(np.float32)


def photo(path: Path, gray: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (gray, gray, gray)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five photos, one of them damaged, in two folders, beside other files."""
    root = tmp_path / "in"
    for name, gray in (("a.png", 250), ("b.png", 5), ("deeper/a.png", 10), ("deeper/c.png", 140)):
        photo(root / name, gray)
    (root / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / "notes.txt").write_text("not a photo")
    (root / "clip.mp4").write_bytes(b"video")
    return root


def nothing() -> bytes:
    raise AssertionError("standard input is not to be read")


def names(words: Sequence[str | Path], data: bytes | None = None) -> list[str]:
    return [str(name) for name, _ in collect(words, nothing if data is None else lambda: data).photos()]


def test_folders_patterns_and_lists_give_the_same_photos(folder: Path) -> None:
    wanted = [str(folder / name) for name in ("a.png", "b.png", "deeper/a.png", "deeper/c.png")]
    assert sorted(names([folder])) == sorted([*wanted, str(folder / "cut.jpg")])
    assert names([f"{folder}/**/*.png"]) == wanted
    for end in (b"\n", b"\r\n", b"\0"):
        assert names(["-"], b"".join(os.fsencode(name) + end for name in wanted)) == wanted
    assert names(["-"], f"{folder}\n".encode()) == names([folder])


def test_what_a_folder_has_beside_photos_is_counted(folder: Path) -> None:
    videos, others = collect([folder], nothing).notes
    assert "1 video in" in videos
    assert "clip.mp4" in videos
    assert "1 file in" in others
    assert "notes.txt" in others


def test_a_name_with_brackets_is_a_name_where_there_is_such_a_file(tmp_path: Path) -> None:
    odd = photo(tmp_path / "holiday [1].png", 9)
    photo(tmp_path / "holiday 1.png", 9)
    assert names([odd]) == [str(odd)]
    assert names(["-"], str(tmp_path / "*.png").encode()) == [str(tmp_path / "*.png")], "a list has no patterns"


@pytest.mark.parametrize(
    ("words", "data", "says"),
    [
        (["nothing/*.jpg"], None, "No file matches the pattern nothing/.*jpg"),
        (["empty"], None, "There are no photos in empty. It is empty"),
        (["texts"], None, r"There are no photos in texts. It holds 1 other file, such as texts/a.txt"),
        (["-"], b" \n", "Standard input is empty"),
        (["a.mov"], None, r"a.mov is a video; .* pip install 'potstill\[video\]'"),
    ],
)
def test_what_holds_no_photo_is_refused_with_what_to_do(
    words: list[str], data: bytes | None, says: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/a.txt").touch()
    with pytest.raises(DataError, match=says):
        collect(words, nothing if data is None else lambda: data)


def test_a_photo_that_is_missing_is_named_with_the_nearest_one(in_folder: Path) -> None:
    photo(in_folder / "kitten.png", 200)
    Path("gone.png").symlink_to("nowhere.png")
    given = collect(["kiten.png", "no/kitten.png", "gone.png", "kitten.png"], nothing)
    *bad, good = [outcome for _, outcome in predict_each(Brightness(), given.photos())]
    assert [str(error) for error in bad] == [
        "There is no file kiten.png. Did you mean kitten.png?",
        "There is no folder no, and so no file kitten.png in it.",
        "gone.png is a link to nowhere.png, which is not there.",
    ]
    assert not isinstance(good, DataError)
    assert good.label == "bright"


def test_the_bytes_of_a_photo_are_a_photo_even_where_they_are_cut_off(tmp_path: Path) -> None:
    data = photo(tmp_path / "a.png", 250).read_bytes()
    for given, label in ((data, "bright"), (data[:50], None)):
        ((name, outcome),) = predict_each(Brightness(), collect(["-"], lambda given=given: given).photos())
        assert str(name) == "-"
        assert (None if isinstance(outcome, DataError) else outcome.label) == label


def test_batches_threads_and_processes_give_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = collect([folder] * 20, nothing)
    model = Brightness()
    one_by_one = [(str(n), p) for item in given.photos() for n, p in predict_each(Brightness(), [item])]
    many = [(str(n), p) for n, p in predict_each(model, given.photos())]
    assert [(n, str(p)) for n, p in many] == [(n, str(p)) for n, p in one_by_one]
    assert len(many) == 100
    assert sum(model.batches) == 80
    assert max(model.batches) > 20, "they are not run one by one"
    began, pool = [], pools.process_pool
    monkeypatch.setattr(pools, "process_pool", lambda: began.append(True) or pool())
    monkeypatch.setattr(batches, "available_cores", lambda: 3)
    by_processes = predict_each(Brightness(), given.photos(), count=batches.PROCESSES_FROM)
    assert [(str(n), str(p)) for n, p in by_processes] == [(n, str(p)) for n, p in many]
    assert began


def test_photos_are_read_only_as_they_are_needed() -> None:
    read = []

    def endless() -> Iterator[tuple[int, np.ndarray]]:
        for number in range(10**6):
            read.append(number)
            yield number, np.full((9, 9, 3), 200, np.uint8)

    found = probabilities_of_each(Brightness(), endless())
    assert [next(found)[0] for _ in range(3)] == [0, 1, 2]
    assert len(read) < 1000
    found.close()


def run(model: Brightness, words: Sequence[Path], kind: str, target: Path, **more: object) -> list[str]:
    with writer(kind, model.classes, target) as write:
        classify(model, collect(words, nothing), write, **more)
    return target.read_text("utf-8").splitlines()


def test_csv_json_and_text_say_the_same(folder: Path, tmp_path: Path) -> None:
    text = [line.split("\t") for line in run(Brightness(), [folder], "text", tmp_path / "o.txt")]
    rows = list(csv.DictReader(run(Brightness(), [folder], "csv", tmp_path / "o.csv")))
    objects = [json.loads(line) for line in run(Brightness(), [folder], "json", tmp_path / "o.jsonl")]
    assert len(rows) == len(objects) == len(text) == 5
    for line, row, value in zip(text, rows, objects, strict=True):
        assert line[0] == row["photo"] == value["photo"]
        if "cut.jpg" in line[0]:
            assert line[2] == row["error"] == value["error"]
            assert row["label"] == row["p_dark"] == ""
        else:
            assert line[1] == row["label"] == value["label"]
            assert float(row["p_bright"]) == pytest.approx(value["probabilities"]["bright"], abs=1e-6)
            assert (row["known"] == "yes") == value["known"] == (len(line) == 3)
    assert sum(not value.get("known", True) for value in objects) == 1, "the gray one"


def test_a_file_is_there_only_when_it_is_whole(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.csv"
    target.write_text("yesterday's")

    def fail(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Brightness(), [folder], "csv", target, update=fail)
    assert target.read_text() == "yesterday's"
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_flags_and_names_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    assert kind_of(None, as_json=False, as_csv=False) == "text"
    assert kind_of(Path("a.csv"), as_json=False, as_csv=False) == "csv"
    assert kind_of(Path("a.dat"), as_json=True, as_csv=False) == "json"
    for target, as_json, as_csv, says in (
        (None, True, True, "choose one"),
        (Path("a.csv"), True, False, "contradicts the name a.csv"),
        (Path("a.dat"), False, False, "or add --json or --csv"),
        (tmp_path, True, False, "is a folder"),
    ):
        with pytest.raises(ConfigError, match=says):
            kind_of(target, as_json=as_json, as_csv=as_csv)


def sort(folder: Path, into: Path, *, move: bool = False) -> dict[str, int]:
    """Sort, and return the files below the target with their brightness."""
    model = Brightness()
    with writer("text", model.classes, into.parent / "o.txt") as write:
        classify(model, collect([folder], nothing), write, sorter=Sorter(into, model.classes, move=move))
    assert not list(into.rglob("*.part"))
    return {str(p.relative_to(into)): np.asarray(Image.open(p)).flat[0] for p in sorted(into.rglob("*.*"))}


def test_photos_are_sorted_by_class_and_none_overwrites_another(folder: Path, tmp_path: Path) -> None:
    photo(folder / "deeper/b.png", 7)
    before = {p: p.read_bytes() for p in folder.rglob("*.*")}
    wanted = {"bright/a.png": 250, "bright/c.png": 140, "dark/a.png": 10, "dark/b.png": 5, "dark/b-2.png": 7}
    assert sort(folder, tmp_path / "out") == dict(sorted(wanted.items()))
    assert sort(folder, tmp_path / "out") == dict(sorted(wanted.items())), "the same command again copies nothing"
    assert {p: p.read_bytes() for p in folder.rglob("*.*")} == before
    photo(tmp_path / "out/dark/b-2.png", 99)
    assert sort(folder, tmp_path / "out") == dict(sorted({**wanted, "dark/b-2.png": 99, "dark/b-3.png": 7}.items()))


def test_only_move_takes_originals_away_and_never_what_it_cannot_read(folder: Path, tmp_path: Path) -> None:
    found = sort(folder, tmp_path / "out", move=True)
    assert len(found) == 4
    assert sorted(p.name for p in folder.rglob("*.*")) == ["clip.mp4", "cut.jpg", "notes.txt"]
    assert sort(tmp_path / "out", tmp_path / "out", move=True) == found, "photos that are in place stay"


def test_a_disk_without_hard_links_overwrites_nothing_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(folder / "deeper/b.png", 7)

    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert sort(folder, tmp_path / "out").keys() >= {"dark/b.png", "dark/b-2.png"}


@pytest.mark.parametrize("name", ["../../etc", "a/b", ""])
def test_a_class_that_would_lead_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class name"):
        Sorter(tmp_path, ("cat", name))


def test_photos_are_not_sorted_into_their_own_folder(folder: Path) -> None:
    for inside in (folder, folder / "sorted", folder / "deeper" / ".." / "x"):
        with pytest.raises(DataError, match="a second run would sort the copies too"):
            require_apart(inside, [folder])
    require_apart(folder.parent / "in-sorted", [folder, folder / "a.png"])


def test_what_is_no_file_is_not_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "require_reader", lambda path: None)
    data = photo(tmp_path / "a.png", 1).read_bytes()
    for words in (["-"], ["a.mp4"]):
        with pytest.raises(DataError, match="--sort-into sorts photo files"):
            collect(words, lambda: data).require_files()


def film(path: Path, seconds: int, *, rate: int = 10) -> Path:
    """A video that gets darker every second."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(seconds * rate):
            gray = 240 - 60 * (number // rate)
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), gray, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_video_gives_a_frame_for_every_second(tmp_path: Path) -> None:
    clip = film(tmp_path / "clip.mp4", 4)
    given = collect([clip], nothing)
    assert given.count() == pytest.approx(4, abs=1)
    found = {str(name): outcome for name, outcome in predict_each(Brightness(), given.photos())}
    assert list(found) == [f"{clip}#t={second}.000" for second in range(4)]
    bright = [outcome.probabilities["bright"] for outcome in found.values() if not isinstance(outcome, DataError)]
    assert bright == pytest.approx([(240 - 60 * second) / 255 for second in range(4)], abs=0.03)
    assert len(list(collect([clip], nothing, every=0).photos())) == 40
    assert len(list(collect([clip], nothing, every=0.5).photos())) == 8


def test_a_damaged_video_is_named_and_the_photos_are_classified(folder: Path) -> None:
    pytest.importorskip("av")
    (name, bad), (_, good) = predict_each(
        Brightness(), collect([folder / "clip.mp4", folder / "a.png"], nothing).photos()
    )
    assert str(name).endswith("clip.mp4")
    assert "cannot be read as a video" in str(bad)
    assert not isinstance(good, PotstillError)


def test_a_list_of_broken_names_is_a_list(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    photo(Path(os.fsdecode(raw)), 250)
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        with writer("json", ("bright", "dark")) as write:
            classify(Brightness(), collect(["-"], lambda: raw + b"\n"), write)
    assert json.loads(out.getvalue())["label"] == "bright"


def test_neither_torch_nor_a_video_reader_is_loaded_for_it() -> None:
    code = (
        "import sys\nfrom potstill.deploy import batches, classify, inputs, outputs, sorting\n"
        "print([m for m in ('torch', 'av', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.strip() == "[]"
    assert inputs.STANDARD_INPUT == "-"
