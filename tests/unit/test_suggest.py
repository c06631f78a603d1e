"""`potstill suggest`: which photos are listed, what the list says of them, and how photos get their labels."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import draw_photo, edit_settings, table_of

import potstill
from potstill.cli import run as command
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.unlike import write_unlike
from potstill.errors import DataError
from potstill.images.selection import read_for_training
from potstill.run.folder import Run
from potstill.run.layout import journal_path
from potstill.suggest.choice import choose, disagree, doubt
from potstill.suggest.labeling import Labeler, class_folders
from potstill.suggest.listing import write_listing
from potstill.suggest.pool import RunPhotos, read_pool
from potstill.suggest.suggestions import (
    Suggestion,
    Suggestions,
    _why,
    make_suggestions,
    read_suggestions,
    summary_lines,
)

# --- the choice ---


def test_doubt_is_largest_where_two_classes_are_equally_probable_and_where_two_models_contradict_each_other() -> None:
    teacher = np.array([[0.98, 0.01, 0.01], [0.5, 0.5, 0.0], [0.98, 0.01, 0.01]])
    student = np.array([[0.98, 0.01, 0.01], [0.5, 0.5, 0.0], [0.01, 0.98, 0.01]])
    assert doubt(teacher).tolist() == pytest.approx([0.03, 1, 0.03])
    assert doubt(teacher, student).tolist() == pytest.approx([0.03, 1, 1])
    assert disagree(teacher, student).tolist() == [False, False, True]
    assert disagree(teacher, None).tolist() == [False] * 3


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 9))
def test_different_photos_are_chosen_the_same_ones_each_time(photos: int, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.integers(0, 2, (photos, 3)).astype(np.float32)  # many of them the same
    weights = random.integers(0, 2, photos).astype(float)
    chosen = choose(features, weights, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, photos)
    assert chosen.tolist() == choose(features, weights, count).tolist()


def test_one_photo_of_each_kind_is_chosen_and_the_most_doubtful_kind_comes_first() -> None:
    angles = np.radians([0, 1, 60, 61, 62, 120, 121, 180, 181])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    kinds = np.array([0, 0, 1, 1, 1, 2, 2, 3, 3])
    for seed in range(20):
        chosen = choose(features, np.ones(9), 4, seed=seed)
        assert sorted(kinds[chosen].tolist()) == [0, 1, 2, 3]
        assert chosen[0] == 3, "the middle one of three"


def test_photos_that_the_models_know_are_not_chosen_where_there_are_others() -> None:
    random = np.random.default_rng(0)
    features, weights = random.normal(size=(500, 4)).astype(np.float32), np.zeros(500)
    weights[random.permutation(500)[:20]] = 1
    assert (weights[choose(features, weights, 2)] == 1).all()


# --- the list ---


def test_the_list_has_the_photos_the_reasons_and_small_pictures(
    pool_copy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["suggest", str(pool_copy.path), "--count", "7"]) == 0
    printed = capsys.readouterr().out
    with (pool_copy.path / "suggest/suggestions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    data = pool_copy.path.parents[1] / "my photos"
    assert list(rows[0]) == ["path", "suggested_class", "doubt", "why"]
    assert len({row["path"] for row in rows}) == 7
    for row in rows:
        assert (data / row["path"]).is_file()
        assert row["path"].startswith("unlabeled/")
        assert row["suggested_class"] in ("disc", "frame", "stripes")
        assert 0 <= float(row["doubt"]) <= 1
        assert row["path"] in printed
        assert row["why"] in printed
    assert re.search(r"^7 photos to label next, of \d+ without labels:$", printed, re.MULTILINE)
    assert "would become val or test photos" in printed
    run = str(pool_copy.path)
    assert f"potstill suggest {run} --label" in printed
    assert f"--recipe {run}/config.toml --run {run}-2" in printed
    before = (pool_copy.path / "suggest/suggestions.csv").read_bytes()
    assert command(["suggest", str(pool_copy.path), "--count", "7"]) == 0
    assert (pool_copy.path / "suggest/suggestions.csv").read_bytes() == before


def test_the_page_runs_no_script_asks_nobody_and_names_no_folder(pool_copy: Run, tmp_path: Path) -> None:
    photos = RunPhotos.of(pool_copy)
    page = write_listing(pool_copy, photos, make_suggestions(pool_copy, photos, 5)).read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    assert "default-src 'none'" in policy[1].replace("&#39;", "'")
    assert "<script" not in page
    assert page.count("data:image/webp;base64,") == 5
    assert str(tmp_path) not in page
    (link,) = {Path(found).parent.as_posix() for found in re.findall(r'href="([^"]+)"', page)}
    assert link == "../../../my%20photos/unlabeled"
    with_links = write_listing(pool_copy, photos, make_suggestions(pool_copy, photos, 5), links=True).read_text("utf-8")
    assert f'href="{tmp_path.as_uri()}/my%20photos/unlabeled/' in with_links


def test_a_photo_folder_elsewhere_is_not_linked(pool_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(pool_run.path, tmp_path / "a/runs/first"))  # its photos stay where they are
    photos = RunPhotos.of(run)
    page = write_listing(run, photos, make_suggestions(run, photos, 3)).read_text("utf-8")
    assert "href" not in page


def test_means_are_those_of_the_views_in_which_a_photo_is_alone(pool_run: Run) -> None:
    pool, soft = read_pool(pool_run, RunPhotos.of(pool_run)), SoftLabels.open(pool_run)
    position = {row: number for number, row in enumerate(soft.photos.tolist())}
    for row, found in zip(pool.rows.tolist(), pool.teacher, strict=True):
        weights = soft.views["weight"][position[row]]
        views = np.flatnonzero(weights == weights.max())
        logits = soft.logits(np.full(len(views), position[row]), views).astype(float) / soft.meta["val_temperature"]
        each = np.exp(logits - logits.max(-1, keepdims=True))
        assert found == pytest.approx((each / each.sum(-1, keepdims=True)).mean(0), abs=1e-4)
    assert np.linalg.norm(pool.features, axis=1) == pytest.approx(1, abs=1e-4)
    assert pool.student is not None
    assert pool.student.sum(1) == pytest.approx(1, abs=1e-4)


def test_no_photo_of_the_list_would_be_a_val_or_test_photo(pool_copy: Run) -> None:
    """Whatever is labeled, the photos that models are judged by stay those that they were."""
    before = RunPhotos.of(pool_copy)
    pool = read_pool(pool_copy, before)
    assert {before.becomes(row) for row in pool.rows.tolist()} == {"train"}
    held = [row for row in PixelStore(pool_copy.images).rows("unlabeled").tolist() if before.becomes(row) == "val"]
    assert held
    assert not set(held) & set(pool.rows.tolist())
    (note,) = [note for note in pool.notes if "val or test" in note]
    assert note.startswith(f"{len(held)} photo")


def test_photos_that_are_unlike_the_classes_are_not_listed_and_that_is_reported(pool_copy: Run) -> None:
    store = PixelStore(pool_copy.images)
    write_unlike(pool_copy, store.rows("unlabeled")[:2], np.array([0.1, 0.2]))
    notes = " ".join(read_pool(pool_copy, RunPhotos.of(pool_copy)).notes)
    assert "2 photos unlike any of the labeled ones (2_teacher/unlike.csv): not suggested" in notes


def test_a_run_without_students_is_asked_too(pool_copy: Run) -> None:
    shutil.rmtree(pool_copy.students)
    found = make_suggestions(pool_copy, RunPhotos.of(pool_copy), 2)
    assert "No student is trained yet: the teacher decides alone." in found.notes
    assert not any("student" in photo.why for photo in found.photos)


def test_a_disagreement_and_mere_variety_are_put_into_words() -> None:
    teacher, classes = np.array([0.9, 0.08, 0.02]), ("disc", "frame", "stripes")
    assert _why(teacher, np.array([0.1, 0.8, 0.1]), 0.99, classes) == "teacher: disc (90 %), student: frame (80 %)"
    assert _why(teacher, None, 0.18, classes) == "probably disc; for variety"
    assert _why(np.array([0.5, 0.45, 0.05]), None, 0.95, classes) == "disc (50 %) or frame (45 %)?"


def test_what_was_moved_since_is_not_listed_again(pool_copy: Run) -> None:
    photos = RunPhotos.of(pool_copy)
    first = make_suggestions(pool_copy, photos, 4).photos[0].path
    (photos.folder.root / first).rename(photos.folder.root / "train/disc/by-hand.png")
    pool = read_pool(pool_copy, RunPhotos.of(pool_copy))
    paths = [photos.lines[row]["path"] for row in pool.rows.tolist()]
    assert first not in paths
    assert "1 photo moved or labeled since the run: not suggested." in pool.notes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "0"], "--count must be 1 or more"),
        (["--copy"], "--copy says how --label places photos"),
    ],
)
def test_mistakes_are_refused(
    words: list[str], message: str, pool_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["suggest", str(pool_run.path), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_without_a_pool_is_refused(tiny_run: "potstill.Result", capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["suggest", str(tiny_run.path)]) == 2
    assert "has no photos without labels" in capsys.readouterr().err


# --- labels ---


@pytest.fixture
def run_photos(pool_copy: Run) -> RunPhotos:
    return RunPhotos.of(pool_copy)


@pytest.fixture
def found(pool_copy: Run, run_photos: RunPhotos) -> Suggestions:
    return make_suggestions(pool_copy, run_photos, 5)


def labeler(run: Run, run_photos: RunPhotos, found: Suggestions, *, copy: bool = False) -> Labeler:
    return Labeler(run_photos.folder.root, class_folders(run_photos), found.photos, journal_path(run), copy=copy)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_labels_are_given_and_taken_back(pool_copy: Run, run_photos: RunPhotos, found: Suggestions) -> None:
    root = run_photos.folder.root
    before, paths = contents(root), [photo.path for photo in found.photos]
    given = labeler(pool_copy, run_photos, found)
    steps = [given.give(path, name) for path, name in zip(paths, ("disc", "frame", "disc"), strict=False)]
    assert [step.to for step in steps] == [f"train/{s.label}/{Path(s.path).name}" for s in steps]
    for step in steps:
        assert (root / step.to).read_bytes() == before[step.path]
        assert not (root / step.path).exists()
        assert not given.is_open(step.path)
    assert len(read_for_training(root, run_photos.config.images).files) == len(run_photos.folder.files)
    again = labeler(pool_copy, run_photos, found)  # another program, later
    assert again.steps == steps
    for step in reversed(steps):
        assert again.undo() == step
    assert contents(root) == before
    with pytest.raises(DataError, match="no label to undo"):
        again.undo()
    assert labeler(pool_copy, run_photos, found).steps == []


def test_copies_leave_the_photos_and_are_not_suggested_again(
    pool_copy: Run, run_photos: RunPhotos, found: Suggestions
) -> None:
    root, path = run_photos.folder.root, found.photos[0].path
    before = contents(root)
    given = labeler(pool_copy, run_photos, found, copy=True)
    step = given.give(path, "frame")
    assert contents(root) == before | {step.to: before[path]}
    assert path not in [photo.path for photo in make_suggestions(pool_copy, RunPhotos.of(pool_copy), 99).photos]
    (root / step.to).write_bytes(b"changed")
    with pytest.raises(DataError, match="is not the copy of"):
        given.undo()
    (root / step.to).write_bytes(before[path])
    given.undo()
    assert contents(root) == before


@pytest.mark.parametrize("noticed", ["before", "meanwhile"])
def test_nothing_is_overwritten(
    noticed: str, pool_copy: Run, run_photos: RunPhotos, found: Suggestions, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path = run_photos.folder.root, found.photos[0].path
    taken = root / "train/disc" / Path(path).name
    taken.write_bytes(b"another photo")
    given = labeler(pool_copy, run_photos, found)
    with monkeypatch.context() as patch:
        if noticed == "meanwhile":  # another program writes a file of that name just now
            patch.setattr("os.path.lexists", lambda _: False)
        step = given.give(path, "disc")
    assert labeler(pool_copy, run_photos, found).steps == [step]
    assert step.to == f"train/disc/{Path(path).stem}-2.png"
    assert taken.read_bytes() == b"another photo"
    (root / path).write_bytes(b"a new photo of that name")
    with pytest.raises(DataError, match="There is another file"):
        given.undo()
    assert (root / path).read_bytes() == b"a new photo of that name"
    assert (root / step.to).is_file()


@pytest.mark.parametrize("path", ["unlabeled/../train/disc/disc-1.png", "../outside.png", "train/disc/disc-1.png", ""])
def test_only_photos_of_the_list_get_labels(
    path: str, pool_copy: Run, run_photos: RunPhotos, found: Suggestions, tmp_path: Path
) -> None:
    (tmp_path / "outside.png").write_bytes(b"mine")
    before = contents(tmp_path)
    given = labeler(pool_copy, run_photos, found)
    with pytest.raises(DataError, match="was not suggested"):
        given.give(path, "frame")
    with pytest.raises(DataError, match=r"no class '\.\./\.\./outside'"):
        given.give(found.photos[0].path, "../../outside")
    assert contents(tmp_path) == before


def test_a_list_that_leads_outside_moves_nothing(
    pool_copy: Run, run_photos: RunPhotos, found: Suggestions, tmp_path: Path
) -> None:
    """Even one that somebody has changed."""
    (tmp_path / "outside.png").write_bytes(b"mine")
    other = Suggestion("../outside.png", "disc", 1.0, "", 0, found.photos[0].sha256)
    with pytest.raises(DataError, match="is a link, or in a folder that is one"):
        Labeler(run_photos.folder.root, class_folders(run_photos), [other], journal_path(pool_copy))
    outside = dict.fromkeys(class_folders(run_photos), tmp_path)
    with pytest.raises(DataError, match="leads out of"):
        Labeler(run_photos.folder.root, outside, found.photos, journal_path(pool_copy))


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_photos_behind_links_are_copied_but_not_moved(linked: str, pool_copy: Run, tmp_path: Path) -> None:
    root = tmp_path / "my photos"
    if linked == "folder":
        (root / "unlabeled").rename(tmp_path / "elsewhere")
        (root / "unlabeled").symlink_to(tmp_path / "elsewhere")
    else:
        shutil.copytree(root / "unlabeled", tmp_path / "elsewhere")
        for path in (root / "unlabeled").iterdir():
            path.unlink()
            path.symlink_to(tmp_path / "elsewhere" / path.name)
    photos = RunPhotos.of(pool_copy)
    found = make_suggestions(pool_copy, photos, 3)
    before = contents(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="Add --copy"):
        labeler(pool_copy, photos, found)
    step = labeler(pool_copy, photos, found, copy=True).give(found.photos[0].path, "disc")
    assert not (root / step.to).is_symlink()
    assert contents(tmp_path / "elsewhere") == before


def test_a_photo_that_changed_since_the_run_is_refused(
    pool_copy: Run, run_photos: RunPhotos, found: Suggestions
) -> None:
    path = run_photos.folder.root / found.photos[0].path
    draw_photo("disc", 4711).save(path)
    with pytest.raises(DataError, match="no longer the file that the run has read"):
        labeler(pool_copy, run_photos, found).give(found.photos[0].path, "disc")
    assert path.is_file()


@pytest.mark.parametrize("killed", ["before", "between"])
def test_a_program_that_was_stopped_leaves_every_photo_in_one_place(
    killed: str, pool_copy: Run, run_photos: RunPhotos, found: Suggestions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a photo has its new name, or between that and the end of its old one."""
    root, path = run_photos.folder.root, found.photos[0].path
    data = (root / path).read_bytes()

    class KilledError(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise KilledError

    given = labeler(pool_copy, run_photos, found)
    with monkeypatch.context() as patch:
        patch.setattr("os.link" if killed == "before" else "pathlib.Path.unlink", die)
        with pytest.raises(KilledError):
            given.give(path, "disc")
    places = [root / path, root / "train/disc" / Path(path).name]
    assert [place.is_file() for place in places] == [True, killed == "between"]
    again = labeler(pool_copy, run_photos, found)
    assert [place.is_file() for place in places] == [killed == "before", killed == "between"]
    assert next(place for place in places if place.is_file()).read_bytes() == data
    assert again.is_open(path) == (killed == "before")


def test_a_journal_that_was_cut_off_is_read_and_continued(
    pool_copy: Run, run_photos: RunPhotos, found: Suggestions
) -> None:
    given = labeler(pool_copy, run_photos, found)
    steps = [given.give(found.photos[number].path, "disc") for number in range(2)]
    journal = journal_path(pool_copy)
    journal.write_bytes(journal.read_bytes()[:-9])
    again = labeler(pool_copy, run_photos, found)
    assert again.steps == steps[:1]
    again.give(found.photos[2].path, "frame")
    assert [step.label for step in labeler(pool_copy, run_photos, found).steps] == ["disc", "frame"]


@pytest.mark.parametrize("kind", ["table", "names"])
def test_labels_that_are_no_folders_are_not_given_by_moving(kind: str, pool_copy: Run, tmp_path: Path) -> None:
    photos = RunPhotos.of(pool_copy)
    if kind == "names":
        edit_settings(pool_copy.path, lambda text: text.replace('classes_from = "folders"', 'classes_from = "names"'))
        with pytest.raises(DataError, match="names of its files"):
            class_folders(RunPhotos.of(pool_copy))
        return
    table = table_of(photos.folder.root / "train", tmp_path / "table")
    edit_settings(pool_copy.path, lambda text: text.replace("my photos", "table"))
    assert table.is_dir()
    with pytest.raises(DataError, match="are in a table"):
        class_folders(RunPhotos.of(pool_copy))


def test_the_list_is_continued_until_it_is_done(pool_copy: Run, run_photos: RunPhotos, found: Suggestions) -> None:
    assert read_suggestions(pool_copy) == found
    (pool_copy.path / "suggest/suggestions.json").write_text("{}")
    assert read_suggestions(pool_copy) is None
    assert "learn from the new labels" in summary_lines(pool_copy, run_photos, found, labeled=True)[-1]
