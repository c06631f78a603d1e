"""Labels from tables: what is understood, what is refused, and what people are told."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support import CLASSES, make_photos, table_of

import potstill
from potstill import pipeline
from potstill.cli import run
from potstill.config.schema import ImagesConfig
from potstill.data import table_file
from potstill.errors import ConfigError, DataError
from potstill.images.folder import Folder
from potstill.images.source import open_photos


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos named after their class, all in one folder, with a table. Read only."""
    data = tmp_path_factory.mktemp("flat")
    return table_of(make_photos(data / "folders", {"": 4}, suffix="jpg"), data / "flat")


@pytest.fixture
def photos(flat: Path, tmp_path: Path) -> Path:
    """A copy of `flat` without the table."""
    shutil.copytree(flat, tmp_path / "photos", ignore=lambda *_: {"labels.csv"})
    return tmp_path / "photos"


def names(photos: Path) -> list[str]:
    return sorted(path.name for path in photos.rglob("*.jpg"))


def label(name: str) -> str:
    return name.partition("-")[0]


def opened(photos: Path, text: str, *, name: str = "labels.csv", **settings: Any) -> Folder:
    """The folder with this table in it."""
    (photos / name).write_text(text, "utf-8")
    return open_photos(photos, ImagesConfig(**settings))


def labels(folder: Folder) -> dict[str, str]:
    """Class by file name; "" for photos without one."""
    return {file.path.name: [*folder.classes, ""][file.label] for file in folder.files}


def splits(folder: Folder) -> dict[str, str | None]:
    return {file.path.name: file.split for file in folder.files}


def right(photos: Path) -> dict[str, str]:
    return {name: label(name) for name in names(photos)}


@pytest.mark.parametrize(
    ("file", "header", "row"),
    [
        ("labels.csv", "path,label\n", "{name},{label}\n"),
        ("labels.csv", "label;file_name\n", "{label};{name}\n"),
        ("labels.tsv", "Image\tTarget\n", "{name}\t{label}\n"),
        ("labels.csv", "id,label\n", "{stem},{label}\n"),
        ("train.csv", "Image Id,breed\n", '"{name}","{label}"\n'),
        ("trainLabels.csv", "image,level\r\n", "{stem},{label}\r\n"),
        ("metadata.csv", "file_name,caption,category\n", '{name},"a, b",{label}\n'),
        ("metadata.jsonl", "", '{{"file_name": "{name}", "label": "{label}"}}\n'),
        ("labels.csv", "path,label,\n", "./{name},{label},\n\n"),
        ("labels.csv", "path,label\n", "photos/{name}, {label} \n"),
        ("labels.csv", "path,label\n", "photos\\{name},{label}\n"),
        ("labels.csv", "\ufeffpath,label\n", "{name},{label}\n"),
    ],
)
def test_a_table_by_its_usual_name(photos: Path, file: str, header: str, row: str) -> None:
    rows = [row.format(name=name, stem=name[:-4], label=label(name)) for name in names(photos)]
    folder = opened(photos, header + "".join(rows), name=file)
    assert labels(folder) == right(photos)
    assert folder.classes == CLASSES
    assert folder.flat
    assert f"Labels from {file}: 12 rows, 12 photos" in " ".join(folder.notes)
    assert not folder.unused


def test_the_table_itself_and_a_table_elsewhere(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "path,label\n" + "".join(f"{name},{label(name)}\n" for name in names(photos))
    elsewhere = tmp_path / "table.csv"
    elsewhere.write_text(text)
    assert labels(open_photos(photos, ImagesConfig(labels=str(elsewhere)))) == right(photos)
    monkeypatch.chdir(tmp_path)
    assert labels(open_photos(Path("photos"), ImagesConfig(labels="table.csv"))) == right(photos)
    (photos / "inside.csv").write_text(text)
    assert labels(open_photos(photos, ImagesConfig(labels="inside.csv"))) == right(photos)
    assert labels(open_photos(photos / "inside.csv", ImagesConfig())) == right(photos)
    for data, table in (("photos", "table.csv"), ("photos/inside.csv", "")):
        with pytest.raises(ConfigError, match="both say what the classes are"):
            open_photos(Path(data), ImagesConfig(labels=table, classes_from="names"))
    with pytest.raises(ConfigError, match=r"there is no file absent\.csv, neither here nor in"):
        open_photos(photos, ImagesConfig(labels="absent.csv"))


def test_absolute_paths_below_the_folder(photos: Path) -> None:
    text = "path,label\n" + "".join(f"{photos.resolve() / name},{label(name)}\n" for name in names(photos))
    assert labels(opened(photos, text)) == right(photos)


def test_parquet(photos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"file_name": names(photos), "label": [CLASSES.index(label(name)) for name in names(photos)]}
    columns["label"][0] = None
    parquet.write_table(pyarrow.table(columns), photos / "metadata.parquet")
    folder = open_photos(photos, ImagesConfig())
    expected = {name: str(CLASSES.index(label(name))) for name in names(photos)} | {names(photos)[0]: ""}
    assert labels(folder) == expected
    photo = {"bytes": [b"x"] * 12, "path": names(photos)}
    parquet.write_table(
        pyarrow.table(
            {
                "image": [dict(zip(photo, p, strict=True)) for p in zip(*photo.values(), strict=True)],
                "label": columns["label"],
            }
        ),
        photos / "metadata.parquet",
    )
    with pytest.raises(DataError, match="holds the photos themselves, in the column 'image'"):
        open_photos(photos, ImagesConfig())


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_other_encodings(photos: Path, encoding: str) -> None:
    text = "path;label\n" + "".join(f"{name};größe {label(name)}\n" for name in names(photos))
    (photos / "labels.csv").write_bytes(text.encode(encoding))
    folder = open_photos(photos, ImagesConfig())
    assert folder.classes[0] == "größe disc"
    assert ("read as windows-1252" in " ".join(folder.notes)) == (encoding == "cp1252")


def test_columns_can_be_named(photos: Path) -> None:
    text = "photo,label,what,path\n" + "".join(f"{name},x,{label(name)},/elsewhere\n" for name in names(photos))
    assert labels(opened(photos, text, path_column="Photo", label_column="what")) == right(photos)
    with pytest.raises(
        ConfigError, match=r"images.label_column: .*labels.csv has no column 'wha'. Did you mean 'what'"
    ):
        opened(photos, text, path_column="photo", label_column="wha")


def test_the_only_column_that_is_left_holds_the_classes(photos: Path) -> None:
    text = "file,split,animal\n" + "".join(f"{name},train,{label(name)}\n" for name in names(photos))
    assert labels(opened(photos, text)) == right(photos)
    text = "file,animal,color\n" + "".join(f"{name},{label(name)},red\n" for name in names(photos))
    with pytest.raises(
        DataError, match=r"(?s)no column that is known to hold the classes.*file, animal, color\.\n.*--images.label"
    ):
        opened(photos, text)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("train", "train"), ("Training", "train"), ("TEST", "test"), ("valid", "val"), ("Validation", "val"),
    ],
)  # fmt: skip
def test_splits_under_their_usual_names(photos: Path, written: str, expected: str) -> None:
    every = names(photos)
    others = {"train": "test", "test": "train", "val": "train"}
    rows = [f"{n},{label(n)},{written if i % 2 else others[expected]}\n" for i, n in enumerate(every)]
    folder = opened(photos, "path,label,split\n" + "".join(rows))
    if expected == "val":  # without test photos, test is drawn from those of train
        assert Counter(splits(folder).values()) == {None: 6, "val": 6}
        assert any("a test split is drawn" in note for note in folder.notes)
    else:
        assert Counter(splits(folder).values()) == {"train": 6, "test": 6}
        assert not folder.flat
        assert splits(folder)[every[1]] == expected


def test_photos_in_the_folders_of_splits(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "folders", {"train": 3, "test": 2}, suffix="jpg")
    for split in ("train", "test"):
        table_of(data / split, tmp_path / "both" / split)
    (tmp_path / "both" / "train" / "labels.csv").rename(tmp_path / "both" / "train" / "metadata.csv")
    (tmp_path / "both" / "test" / "labels.csv").rename(tmp_path / "both" / "test" / "metadata.csv")
    folder = open_photos(tmp_path / "both", ImagesConfig())
    assert Counter(file.split for file in folder.files) == {"train": 9, "test": 6}
    text = "file_name,label\n" + "".join(
        f"{path.relative_to(tmp_path / 'both').as_posix()},{label(path.name)}\n"
        for path in (tmp_path / "both").rglob("*.jpg")
    )
    for split in ("train", "test"):
        (tmp_path / "both" / split / "metadata.csv").unlink()
    assert {f.path: f.split for f in opened(tmp_path / "both", text, name="metadata.csv").files} == {
        f.path: f.split for f in folder.files
    }


def test_a_competition_with_test_photos_that_have_no_labels(tmp_path: Path) -> None:
    data = make_photos(tmp_path / "folders", {"": 4}, suffix="jpg")
    table_of(data, tmp_path / "c" / "train")
    (tmp_path / "c" / "train" / "labels.csv").rename(tmp_path / "c" / "train.csv")
    shutil.copytree(tmp_path / "c" / "train", tmp_path / "c" / "test")  # the same names, other photos
    (tmp_path / "c" / "test.csv").write_text("path\n" + "".join(f"{name}\n" for name in names(tmp_path / "c" / "test")))
    folder = open_photos(tmp_path / "c", ImagesConfig())
    assert folder.flat, "test photos are drawn from those with labels"
    assert {file.path.parent.name for file in folder.files} == {"train"}
    assert [(unused.files, "no row" in unused.why) for unused in folder.unused] == [(12, True)]
    assert any("test.csv has no labels" in note for note in folder.notes)


def test_what_has_no_label_no_row_or_no_photo(photos: Path) -> None:
    every = names(photos)
    (photos / "unlabeled").mkdir()
    (photos / every[-1]).rename(photos / "unlabeled" / every[-1])
    rows = ["gone.jpg,disc\n", f"{every[0]},\n", *(f"{name},{label(name)}\n" for name in every[1:-2])]
    rows += [rows[-1]]
    folder = opened(photos, "path,label\n" + "".join(rows))
    found = labels(folder)
    assert found[every[0]] == found[every[-1]] == "", "an empty label, and the folder unlabeled"
    assert every[-2] not in found
    assert [(unused.name, unused.files) for unused in folder.unused] == [(every[-2], 1)]
    assert any("1 row names no photo that is there, such as row 2: gone.jpg" in note for note in folder.notes)
    assert any("1 row repeats another one" in note for note in folder.notes)


def test_unlabeled_test_photos_are_not_trained_on(photos: Path) -> None:
    every = names(photos)
    rows = [f"{n},{'' if i == 1 else label(n)},{'test' if i % 2 else 'train'}\n" for i, n in enumerate(every)]
    folder = opened(photos, "path,label,split\n" + "".join(rows))
    assert every[1] not in labels(folder)
    assert any("1 photo of val or test without a label" in note for note in folder.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("../{0},disc\n", r"row 2: '\.\./\S+' leads out of the folder"),
        ("a/../../{0},disc\n", "row 2: .* leads out of the folder"),
        ("..\\{0},disc\n", "row 2: .* leads out of the folder"),
        ("/etc/passwd,disc\n", "row 2: '/etc/passwd' is an absolute path"),
        ("C:\\photos\\{0},disc\n", "row 2: .* is an absolute path"),
        (",disc\n", "row 2: the path is empty"),
        ("{0},disc\n{1},disc\n{0},frame\n", r"row 4: \S+ has the class 'disc' and the class 'frame'; .* in row 2"),
        ("{0},a/b\n", "row 2: The class name 'a/b' contains '/'"),
        ("{0},disc,x\n", "row 2 has 3 cells, the header 2"),
        ('{0},"disc\n{1},disc\n', r"row \d: unexpected end of data"),
        ("gone.jpg,disc\nlost.jpg,frame\n", r"None of the 2 rows of \S+ names a photo below .*: row 2: gone.jpg"),
        ("{0},disc\n{1},disc\n", r"The table has 1 class \(disc\); a classifier needs at least 2"),
        ("", "has no rows"),
    ],
)  # fmt: skip
def test_rows_that_are_wrong(photos: Path, rows: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(photos, "path,label\n" + rows.format(*names(photos)))


def test_only_the_first_faults_are_listed(photos: Path) -> None:
    with pytest.raises(DataError, match=r"row 6: .*\n    and 35 more\n") as refused:
        opened(photos, "path,label\n" + "../x.jpg,disc\n" * 40)
    assert str(refused.value).count("leads out") == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\nx,disc\n", r"(?s)no column that is known to hold the paths.*--images\.path-column"),
        ("path,label,label\nx,y,z\n", "two columns 'label'"),
        ("path,label,split\n{0},disc,sometimes\n", "row 2: 'sometimes' in the column 'split' is not a split"),
        ("filename,disc,frame\n{0},1,0\n{1},0,1\n", "a column of 0 and 1 for each class"),
        ("path,label,split\n{0},disc,train\n{1},frame,train\n{5},stripes,test\n", "No photo of train has the class"),
    ],
)  # fmt: skip
def test_columns_that_are_wrong(photos: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(photos, text.format(*names(photos)))


def test_lists_of_labels_are_refused_where_photos_are_said_to_have_one_each(photos: Path) -> None:
    line = json.dumps({"file_name": names(photos)[0], "label": ["disc", "frame"]})
    with pytest.raises(ConfigError, match=r'labels_per_photo is "one", but .*metadata.jsonl holds lists of labels'):
        opened(photos, line + "\n", name="metadata.jsonl", labels_per_photo="one")


def test_captions_are_no_classes(photos: Path) -> None:
    rows = "".join(f"{name},caption {number}\n" for number, name in enumerate(names(photos)))
    with pytest.raises(DataError, match=r"12 photos 12 different labels, such as .*these are hardly classes"):
        opened(photos, "file_name,text\n" + rows, name="metadata.csv")


def test_two_tables_have_to_be_chosen_from(photos: Path) -> None:
    text = "path,label\n" + "".join(f"{name},{label(name)}\n" for name in names(photos))
    (photos / "train.csv").write_text(text)
    with pytest.raises(
        DataError, match=r"has the tables labels\.csv and train\.csv\. Name the one to use: --labels labels"
    ):
        opened(photos, text)
    assert labels(open_photos(photos, ImagesConfig(labels="labels.csv"))) == right(photos)


def test_a_name_that_fits_two_photos_is_refused(photos: Path) -> None:
    name = names(photos)[0]
    for folder in ("a", "b"):
        (photos / folder).mkdir()
        shutil.copy(photos / name, photos / folder / name)
    (photos / name).unlink()
    with pytest.raises(DataError, match=rf"row 2: '{name}' may be 2 files, such as a/{name}, b/{name}"):
        open_photos(photos, ImagesConfig(labels=str(table(photos, f"path,label\n{name},disc\n"))))


def table(photos: Path, text: str) -> Path:
    (photos / "labels.csv").write_text(text)
    return photos / "labels.csv"


def test_class_folders_win_over_a_table_unless_it_is_named(photos: Path, tmp_path: Path) -> None:
    data = make_photos(tmp_path / "classes", {"": 3}, suffix="jpg")
    rows = [
        f"{path.relative_to(data).as_posix()},{'ab'[i % 2]}\n" for i, path in enumerate(sorted(data.rglob("*.jpg")))
    ]
    table(data, "path,label\n" + "".join(rows))
    assert open_photos(data, ImagesConfig()).classes == CLASSES
    assert open_photos(data, ImagesConfig(labels="labels.csv")).classes == ("a", "b")
    with pytest.raises(ConfigError, match=r"images\.label_column is 'x', but the labels are the names of folders"):
        open_photos(data, ImagesConfig(label_column="x"))


def test_classes_can_be_chosen(photos: Path) -> None:
    text = "path,label\n" + "".join(f"{name},{label(name)}\n" for name in names(photos))
    folder = opened(photos, text, classes=("stripes", "disc"))
    assert folder.classes == ("disc", "stripes")
    assert len(folder.files) == 8
    assert any("4 photos of classes that images.classes leaves out" in note for note in folder.notes)
    with pytest.raises(DataError, match=r"The table has no class 'discs'.*Did you mean 'disc'"):
        opened(photos, text, classes=("discs", "frame"))


def test_tables_have_limits(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "path,label\n" + "".join(f"{name},{label(name)}\n" for name in names(photos))
    monkeypatch.setattr(table_file, "MAX_ROWS", 11)
    with pytest.raises(DataError, match="more than 11 rows"):
        opened(photos, text)
    monkeypatch.setattr(table_file, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="a table may have 100"):
        opened(photos, text)


@pytest.mark.parametrize("data", [b"\xff\xfe\xff", b"path,label\n\x81\xff", b"path\0,label\nx,y\n"])
def test_what_is_no_text(photos: Path, data: bytes) -> None:
    (photos / "labels.csv").write_bytes(data)
    with pytest.raises(DataError, match="is not a text"):
        open_photos(photos, ImagesConfig())


def test_a_file_of_another_kind(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos.rar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"photos\.rar is neither a folder nor a file that can be read \(\.zip, "):
        open_photos(tmp_path / "photos.rar", ImagesConfig())
    (tmp_path / "labels.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"labels\.xlsx is not a table that can be read .* Save it as CSV"):
        open_photos(photos, ImagesConfig(labels=str(tmp_path / "labels.xlsx")))


def test_the_commands_read_a_table(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "picture,species,label\n" + "".join(f"{name},{label(name)},x\n" for name in names(photos)[1:])
    (tmp_path / "mine.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    table = ["--labels", "mine.csv", "--images.path-column", "picture", "--images.label-column", "species"]
    assert run(["count", "photos", *table]) == 0
    printed = capsys.readouterr().out
    assert "Labels from mine.csv: 11 rows, 11 photos (columns used: picture, species; not used: label)." in printed
    assert f"Not used: {names(photos)[0]} (1 file: no row in the table" in printed
    assert re.search(r"disc +3\n", printed)
    assert run(["check", "photos", "--dry-run", *table]) == 0
    assert "Checked 11 photos" in capsys.readouterr().err
    assert run(["check", "mine.csv"]) == 2
    assert "potstill check FOLDER --labels TABLE" in capsys.readouterr().err
    columns = {"images.path_column": "picture", "images.label_column": "species"}
    read: list[Folder] = []
    monkeypatch.setattr(pipeline, "with_students", lambda config, folder: read.append(folder) or stop())
    assert run(["distill", "photos", *table]) == 2
    with pytest.raises(DataError, match="stopped"):
        potstill.distill(photos, labels="mine.csv", settings=columns)
    assert [folder.classes for folder in read] == [CLASSES, CLASSES]
    assert not (tmp_path / "runs").exists()


def stop() -> None:
    raise DataError("stopped")
