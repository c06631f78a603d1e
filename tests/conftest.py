"""Shared fixtures. One tiny run is made per session; tests that only read share it."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Torch reads these once, when it is imported.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OMP_NUM_THREADS"] = "1"
# No test may reach a model hub: what is not on loopback must fail at once.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"

import hypothesis
import pytest
import torch
from tests.support import SEVERAL, TINY, context_of, label, make_pairs, make_photos, teach
from xdist.scheduler import LoadScopeScheduling

import potstill
from potstill.compute import timing
from potstill.config.load import from_mapping
from potstill.config.schema import ImagesConfig
from potstill.data.pixels import PixelStore
from potstill.images.plan import ImagesPlan
from potstill.images.source import open_photos
from potstill.images.stage import collect_images
from potstill.monitoring.progress import Reporter
from potstill.pipeline import _config_text
from potstill.run.folder import Run

# A shell that starts pytest in the background lets it, and the programs that it tests, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


ROOT = Path(__file__).resolve().parents[1]

# How long an example takes depends on what else the machine does; no test promises it.
hypothesis.settings.register_profile("potstill", deadline=None)
hypothesis.settings.load_profile("potstill")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/*.txt from this run")


class SharedRuns(LoadScopeScheduling):
    """Gives a process whole files, and files that would make the same run twice to the same process."""

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        folder = path.parent.name
        with_run = folder == "unit" and any(
            name in (ROOT / path).read_text("utf-8") for name in ("tiny_run", "run_copy")
        )
        return folder if folder == "export" or with_run else str(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedRuns:
    """With `-n 2`. Groups by marker (`--dist loadgroup`) are without effect in xdist 3.8 with pytest 9."""
    return SharedRuns(config, log)


@pytest.fixture(autouse=True, scope="session")
def _one_thread_and_short_timings() -> None:
    torch.set_num_threads(1)
    timing.PROBE_SECONDS = 0.01  # how fast a model is on this machine matters to no test


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo folder that a model can learn: 3 classes, 14 train and 8 test photos of each. Read only."""
    return make_photos(tmp_path_factory.mktemp("photos") / "shapes", {"train": 14, "test": 8})


@pytest.fixture(scope="session")
def tiny_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> "potstill.Result":
    """A finished run on `photos`. Read only: take `run_copy` to change something."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return potstill.distill(photos, settings=TINY, run=folder, reporter=Reporter(quiet=True))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with several labels each, or none, and their table: 3 classes, 48 train, 14 val and 20 test photos. Read
    only."""
    return make_pairs(tmp_path_factory.mktemp("pairs") / "pairs", {"train": 7, "val": 2, "test": 3}, none=2)


@pytest.fixture(scope="session")
def labels_run(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> "potstill.Result":
    """A finished run on `pairs`. Read only."""
    folder = tmp_path_factory.mktemp("runs") / "labels"
    return potstill.distill(pairs, settings=SEVERAL, run=folder, reporter=Reporter(quiet=True))


@pytest.fixture
def run_copy(tiny_run: "potstill.Result", tmp_path: Path) -> Run:
    """A copy of the tiny run that a test may change."""
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture(scope="session")
def pool_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo folder with 24 photos without labels beside 30 to train on and 9 to test. Read only."""
    return make_photos(tmp_path_factory.mktemp("pool") / "my photos", {"train": 10, "test": 3, "unlabeled": 8})


@pytest.fixture(scope="session")
def pool_run(pool_data: Path, tiny_run: "potstill.Result", tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on `pool_data` up to its soft labels, with the students of the tiny run. Read only."""
    run = Run(tmp_path_factory.mktemp("pool-runs") / "first")
    config = from_mapping({**TINY, "teacher.unlike": "keep"})
    run.create("", _config_text(pool_data, config))
    pack(pool_data, run.path)
    context = context_of(run)
    teach(config.teacher, config.views, context)
    label(config.teacher, config.views, 2, context)
    shutil.copytree(tiny_run.path / "4_students", run.students)
    return run


@pytest.fixture
def pool_copy(pool_run: Run, pool_data: Path, tmp_path: Path) -> Run:
    """A copy of that run beside a copy of its photos, `my photos`, both of which a test may change."""
    data = shutil.copytree(pool_data, tmp_path / pool_data.name)
    run = Run(shutil.copytree(pool_run.path, tmp_path / "runs" / "first"))
    run.create("", _config_text(data, from_mapping({**TINY, "teacher.unlike": "keep"})))
    return run


@pytest.fixture(scope="session")
def store(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> PixelStore:
    """The packed `photos`, short side 80 pixels. Read only."""
    return pack(photos, tmp_path_factory.mktemp("packed"))


def pack(data: Path, target: Path, *, size: int = 80, **settings: Any) -> PixelStore:
    config = ImagesConfig(margin=1.0, **settings)
    plan = ImagesPlan(open_photos(data, config, runs=target.parent), config, size)
    return collect_images(plan, context_of(Run(target)))


@pytest.fixture(scope="session")
def packer() -> Callable[..., PixelStore]:
    """`packer(data, target, size=80, **images_settings)`: pack a folder as stage 1 does."""
    return pack


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
