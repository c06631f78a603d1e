"""Teachers that are files give the soft labels that they should, and those that they cannot give are refused."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import CLASSES, context_of, label, run_on, teach
from tests.unit.test_teacher_files import write_onnx

from potstill import metrics
from potstill.config.load import from_mapping
from potstill.config.schema import Config, TeacherConfig, ViewsConfig
from potstill.data.given_labels import photo_rows
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.deploy.deployable import Deployable
from potstill.deploy.predictor import load_predictor
from potstill.errors import ConfigError, DataError, PotstillError, StaleError
from potstill.export.formats.onnx import write_graph
from potstill.metrics import multilabel
from potstill.models.classifier import load
from potstill.run.folder import Run
from potstill.soft_labels.plan import SoftLabelsPlan
from potstill.soft_labels.stage import store_soft_labels
from potstill.teacher.external import open_external
from potstill.teacher.plan import TeacherPlan
from potstill.teacher.stage import train_teacher

VIEWS = ViewsConfig(count=3)


def configured(teacher: str, **settings: Any) -> Config:
    return from_mapping({"teacher.model": [teacher], "teacher.min_gain": 0.0, **settings})


def labeled_by(config: Config, run: Run) -> SoftLabels:
    """Stages 2 and 3 by a teacher that is a file."""
    external = open_external(config, CLASSES, list(photo_rows(run.images)))
    assert external is not None
    context = context_of(run)
    train_teacher(TeacherPlan(config.teacher, VIEWS, (external.size,), external=external), context)
    store_soft_labels(SoftLabelsPlan(config.teacher.names, VIEWS, 3), context)
    return SoftLabels.open(run)


def stored(soft: SoftLabels) -> np.ndarray:
    """(N, V, C) probabilities."""
    photos, views = np.divmod(np.arange(soft.views.size), soft.views.shape[1])
    return metrics.softmax(soft.logits(photos, views).astype(np.float64)).reshape(*soft.views.shape, -1)


def test_an_exported_teacher_labels_as_it_did_itself(store: PixelStore, tmp_path: Path) -> None:
    run = run_on(store, tmp_path / "timm")
    small = TeacherConfig(
        model=("mobilenetv1_025",), weights="none", size=32, train="probe", folds=0, probe_views=1, probe_epochs=5,
        probe_min_steps=20, feature_stages=0, min_gain=0.0,
    )  # fmt: skip
    teach(small, VIEWS, context_of(run))
    label(small, VIEWS, 3, context_of(run))
    own, model = SoftLabels.open(run), load(run.teacher)
    path = write_graph(Deployable(model, temperature=1.0).eval(), tmp_path / "teacher.onnx")

    soft = labeled_by(configured(f"onnx:{path}", **{"teacher.size": 32}), run_on(store, tmp_path / "onnx"))
    assert np.array_equal(soft.views, own.views)
    assert stored(soft) == pytest.approx(stored(own), abs=2e-3)  # both are stored in float16
    assert soft.features.shape[-1] == 0
    photo = store.photo(0)
    first, second = (load_predictor(folder / "2_teacher").predict(photo) for folder in (run.path, tmp_path / "onnx"))
    assert first.label == second.label


def test_soft_labels_are_stale_when_the_file_changes(store: PixelStore, tmp_path: Path) -> None:
    run, path = run_on(store, tmp_path / "run"), tmp_path / "m.onnx"
    write_onnx(path, shape=("N", 3, 16, 16))
    labeled_by(configured(f"onnx:{path}"), run)
    before = (run.soft_labels / "logits.npy").stat().st_mtime_ns
    labeled_by(configured(f"onnx:{path}"), run)
    assert (run.soft_labels / "logits.npy").stat().st_mtime_ns == before, "labeled again"
    write_onnx(path, shape=("N", 3, 16, 16), texts={"version": "2"})
    with pytest.raises(StaleError, match=r"external\.weights\.sha256"):
        labeled_by(configured(f"onnx:{path}"), run)


Rows = Mapping[str, Sequence[float]]


def rows_of(run: Run) -> dict[str, list[float]]:
    """Probabilities for every photo of a run, each photo with others."""
    generator = np.random.default_rng(0)
    return {photo: generator.dirichlet([1, 1, 1]).tolist() for photo in photo_rows(run.images)}


def write_csv(path: Path, rows: Rows, header: str = "path,disc,frame,stripes", separator: str = ",") -> Path:
    lines = [header, *(separator.join([photo, *map(str, values)]) for photo, values in rows.items())]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_every_view_gets_its_photos_soft_label(store: PixelStore, tmp_path: Path) -> None:
    run = run_on(store, tmp_path / "run")
    rows = rows_of(run)
    path = write_csv(tmp_path / "labels.csv", rows)
    path.write_text("\ufeff" + path.read_text("utf-8").replace(",", ";"), "utf-8")  # as a spreadsheet saves it
    soft = labeled_by(configured(f"file:{path}"), run)
    given = np.empty((len(store), 3))
    for photo, row in photo_rows(run.images).items():
        given[row] = rows[photo]
    weight, partner = soft.views["weight"][..., None], given[np.maximum(soft.views["partner"], 0)]
    assert (soft.views["partner"] >= 0).any()
    assert (soft.views["partner"] < 0).any()
    assert stored(soft) == pytest.approx(weight * given[soft.photos][:, None] + (1 - weight) * partner, abs=2e-3)
    val = np.load(run.soft_labels / "val_logits.npy", allow_pickle=False)
    assert metrics.softmax(val) == pytest.approx(given[store.rows("val")], abs=1e-5)
    with pytest.raises(PotstillError, match="is a file of soft labels: it cannot classify other photos"):
        load_predictor(with_settings(run), arm="teacher")


def with_settings(run: Run) -> Path:
    """The folder of a run, as one that `distill` made."""
    run.create("", "data = 'photos'\n")
    return run.path


def test_an_array_needs_the_order_of_its_rows(store: PixelStore, tmp_path: Path) -> None:
    run = run_on(store, tmp_path / "run")
    rows = rows_of(run)
    np.save(tmp_path / "outputs.npy", np.log(np.array(list(rows.values()), np.float32)))
    (tmp_path / "paths.txt").write_text("\n".join(rows) + "\n")
    file = f"file:{tmp_path / 'outputs.npy'}"
    with pytest.raises(ConfigError, match="does not name its photos"):
        labeled_by(configured(file), run)
    soft = labeled_by(configured(file, **{"external.order": str(tmp_path / "paths.txt")}), run)
    in_store = {row: photo for photo, row in photo_rows(run.images).items()}
    unmixed = soft.views["partner"] < 0
    expected = np.array([rows[in_store[row]] for row in soft.photos.tolist()])
    assert stored(soft)[unmixed] == pytest.approx(np.repeat(expected[:, None], 3, 1)[unmixed], abs=2e-3)


Change = Callable[[dict[str, list[float]]], Any]


def put(number: int, values: list[float]) -> Change:
    """Another row in the place of one, counted from 0."""
    return lambda rows: rows.update({list(rows)[number]: values})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(2, [0.5, np.nan, 0.5]), "labels.csv, row 4 holds nan, which is not a number"),
        (put(0, [np.inf, 0.0, 0.0]), "labels.csv, row 2 holds inf"),
        (put(1, [1.1, -0.1, 0.0]), "row 3 holds the probability -0.1, which is below 0, while .* of the rows are"),
        (put(1, [0.6, 0.1, 0.1]), "row 3 holds probabilities that add up to 0.8, not to 1"),
        (put(1, ["much", 0.1, 0.1]), "row 3: 'much' in the column 'disc' is not a number"),  # type: ignore[list-item]
        (lambda rows: rows.update({"train/disc/none.png": [1.0, 0.0, 0.0]}), "there is no photo 'train/disc/none.png'"),
        (lambda rows: rows.update({"./" + next(iter(rows)): [1.0, 0.0, 0.0]}), "is in row 2 already"),
        (lambda rows: rows.popitem(), "has no row for the photo"),
    ],
)
def test_a_wrong_row_is_named(store: PixelStore, tmp_path: Path, change: Change, message: str) -> None:
    run = run_on(store, tmp_path / "run")
    rows = rows_of(run)
    change(rows)
    path = write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=message) as refused:
        labeled_by(configured(f"file:{path}"), run)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "path,disc,frame,square",
            r"other classes than the run: it has no stripes; the run has no square.*--class-map",
        ),
        ("path,disc,frame,", "other classes than the run: it has no stripes"),
        ("who,disc,frame,stripes", "has no column with the paths of the photos"),
        ("path|disc|frame|stripes", "has 4 cells, the header 1"),
    ],
)
def test_a_wrong_header_is_refused(store: PixelStore, tmp_path: Path, header: str, message: str) -> None:
    run = run_on(store, tmp_path / "run")
    path = write_csv(tmp_path / "labels.csv", rows_of(run), header)
    with pytest.raises(PotstillError, match=message):
        labeled_by(configured(f"file:{path}"), run)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3), np.float32), "has 3 rows, .*paths.txt .* photos"),
        (np.zeros(3, np.float32), r"holds float32 of the shape \(3,\)"),
        (np.zeros((3, 3), np.int64), "holds int64"),
        (np.array([[{}]], object), "is not a .npy file of numbers"),
    ],
    ids=["length", "rank", "type", "objects"],
)
def test_a_wrong_array_is_refused(store: PixelStore, tmp_path: Path, array: np.ndarray, message: str) -> None:
    run = run_on(store, tmp_path / "run")
    np.save(tmp_path / "outputs.npy", array, allow_pickle=True)
    (tmp_path / "paths.txt").write_text("\n".join(rows_of(run)))
    config = configured(f"file:{tmp_path / 'outputs.npy'}", **{"external.order": str(tmp_path / "paths.txt")})
    with pytest.raises(DataError, match=message):
        labeled_by(config, run)


def test_where_only_test_photos_have_no_row_it_is_said_what_they_are_for(store: PixelStore, tmp_path: Path) -> None:
    run = run_on(store, tmp_path / "run")
    rows, test = rows_of(run), set(store.rows("test").tolist())
    rows = {photo: values for photo, values in rows.items() if photo_rows(run.images)[photo] not in test}
    path = write_csv(tmp_path / "labels.csv", rows)
    with pytest.raises(DataError, match=r"These are test photos\. No model learns from them"):
        labeled_by(configured(f"file:{path}"), run)


def test_soft_labels_of_several_labels_are_those_of_the_file(
    pairs: Path, packer: Callable[..., PixelStore], tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    store = packer(pairs, run.path, labels_per_photo="several", without_label="none")
    generator = np.random.default_rng(0)
    rows = {photo: generator.random(3).tolist() for photo in photo_rows(run.images)}
    path = write_csv(tmp_path / "labels.csv", rows)
    config = configured(f"file:{path}")
    external = open_external(config, CLASSES, list(rows), several_labels=True)
    assert external is not None
    assert "every value lies in 0…1" in "\n".join(external.lines())
    context = context_of(run)
    train_teacher(TeacherPlan(config.teacher, VIEWS, (0,), external=external), context)
    store_soft_labels(SoftLabelsPlan(config.teacher.names, VIEWS, 3), context)
    given = np.empty((len(store), 3))
    for photo, row in photo_rows(run.images).items():
        given[row] = rows[photo]
    soft = SoftLabels.open(run)
    photos, views = np.divmod(np.arange(soft.views.size), soft.views.shape[1])
    found = multilabel.sigmoid(soft.logits(photos, views).astype(np.float64)).reshape(*soft.views.shape, -1)
    weight, partner = soft.views["weight"][..., None], given[np.maximum(soft.views["partner"], 0)]
    assert found == pytest.approx(weight * given[soft.photos][:, None] + (1 - weight) * partner, abs=2e-3)
    val = np.load(run.soft_labels / "val_logits.npy", allow_pickle=False)
    assert multilabel.sigmoid(val) == pytest.approx(given[store.rows("val")], abs=1e-5)
    write_csv(path, {**rows, next(iter(rows)): [0.5, 1.5, 0.5]})
    with pytest.raises(DataError, match=r"row 2 holds the probability 1\.5, which is above 1, while"):
        open_external(config, CLASSES, list(rows), several_labels=True)
