"""One student that has learned its classes, and all its files that can be made in this environment."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from tests.support import TINY, context_of, run_on, teach, unseal

import potstill
from potstill.config.load import from_mapping
from potstill.data.pixels import PixelStore
from potstill.export import export
from potstill.export.tolerance import Tolerance
from potstill.models.classifier import load, load_info, save
from potstill.monitoring.progress import Reporter
from potstill.run.folder import Run

STUDENT = "mobilenetv1_025-32px"
FORMATS = ("onnx", "torch")
"""Those that install beside torch in seconds. The others are proved by benchmarks/export."""


def quiet() -> Reporter:
    return Reporter(quiet=True)


@pytest.fixture(scope="session")
def taught_run(tiny_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run with a student that knows its classes: int8 files of untrained networks say nothing. Read only."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    shutil.copytree(tiny_run.path, folder)
    run = Run(folder)
    store = PixelStore(run.images)
    knowing = run_on(store, tmp_path_factory.mktemp("knowing") / "run")
    # The head of a student sees the last features; one without penalty is turned by rounding sooner.
    config = from_mapping(
        {
            **TINY,
            "teacher.probe_min_steps": 500,
            "teacher.feature_stages": 0,
            "teacher.head_l2": 0.0,
            "teacher.probe_lr": 1e-3,
        }
    )
    teach(config.teacher, config.views, context_of(knowing))
    for student in run.students.glob("*/seed-*/distilled"):
        replace_by(knowing.teacher, student)
    unseal(run.path)
    return run


def replace_by(teacher: Path, folder: Path) -> None:
    """Put a teacher in the place of a stored student: a real network with ImageNet weights, at no cost."""
    trained = load_info(folder).trained
    model = load(teacher)
    model.info = dataclasses.replace(model.info, crop_pct=0.875)  # less than 1, so that a lost crop shows
    save(model, folder, dataclasses.replace(trained, temperature=1.5))


@pytest.fixture(scope="session")
def exported(taught_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run with every file that can be made here, each scored by its own runtime. Read only."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(taught_run.path, folder)
    run = Run(folder)
    # One photo of the few is 4 points; half precision may turn one more.
    export(run, FORMATS, tolerance=Tolerance(max_loss=0.05, min_agreement=0.9), reporter=quiet())
    return run


@pytest.fixture
def exported_copy(exported: Run, tmp_path: Path) -> Run:
    """A copy that a test may damage."""
    shutil.copytree(exported.path, tmp_path / "exported")
    return Run(tmp_path / "exported")


@pytest.fixture
def taught_copy(taught_run: Run, tmp_path: Path) -> Run:
    """A copy of the run without exports, that a test may change."""
    shutil.copytree(taught_run.path, tmp_path / "taught")
    return Run(tmp_path / "taught")
