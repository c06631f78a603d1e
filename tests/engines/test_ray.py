"""On a Ray cluster of two nodes, each with one core of this machine, a run has the same bytes as without it."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.behavior.test_ranks import difference, train_tiny
from tests.support import TINY

import potstill
from potstill.config.load import from_mapping
from potstill.config.schema import MachineConfig
from potstill.engines.local import LocalEngine
from potstill.engines.opening import open_engine
from potstill.errors import ConfigError, DataError, PotstillError
from potstill.monitoring.progress import Reporter
from potstill.pipeline import dry_run
from potstill.processes.child import ChildCrashError
from potstill.run.files import read_json, sha256_of, write_json

ray = pytest.importorskip("ray")
ray_engine = pytest.importorskip("potstill.engines.ray_engine")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

ON_RAY = MachineConfig(engine="ray", device="cpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, and two nodes of one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(str(Path(p).resolve()) for p in ("src", ".")))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()


def hashes(run: Path) -> dict[str, str]:
    """Of everything that a finished run keeps but times and speeds."""
    kept = {}
    for done in sorted(run.rglob("done.json")):
        for name, (_, sha256) in read_json(done).get("files", {}).items():
            if Path(name).suffix in (".npy", ".npz", ".safetensors") or name in ("pixels.bin", "images.csv"):
                kept[f"{done.parent.relative_to(run)}/{name}"] = sha256
    return kept


def test_a_run_has_the_same_bytes_as_on_this_machine(
    cluster: Any, photos: Path, tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("potstill.images.shards.decode_here", _not_here)
    settings = {**TINY, "machine.engine": "ray", "machine.jobs": "auto"}
    result = potstill.distill(photos, settings=settings, run=tmp_path / "run", reporter=Reporter(quiet=True))
    assert "Ray cluster: nodes 2, cores 2, GPUs 0" in (result.path / "log.txt").read_text()
    mine, theirs = hashes(result.path), hashes(tiny_run.path)
    assert mine == theirs
    assert len(mine) > 5
    assert "1_images/pixels.bin" in mine
    with open_engine(ON_RAY, "cpu", tmp_path) as engine:
        seen = sorted(photos.rglob("*.png"))[:3]
        assert engine.nodes_without(seen) == []
        monkeypatch.setattr(ray_engine, "_on", lambda node, function: ray.remote(num_cpus=0)(_sees_nothing))
        assert len(engine.nodes_without(seen)) == 2


def _not_here(*given: Any, **options: Any) -> None:
    raise AssertionError("The nodes decode.")


def _sees_nothing(paths: list[str]) -> list[int]:
    return [-1] * len(paths)


def test_a_dry_run_states_the_cluster(cluster: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = []
    monkeypatch.setattr("potstill.pipeline.estimate", lambda plan, machine: machines.append(machine) or _Nothing())
    config = from_mapping({**TINY, "machine.engine": "ray", "machine.jobs": "auto"})
    assert "Ray cluster: nodes 2, cores 2, GPUs 0" in list(dry_run(photos, config))
    assert machines[0].jobs == 2
    assert machines[0].label_speedup == 2 / machines[0].cores


class _Nothing:
    def lines(self) -> list[str]:
        return []


def test_a_task_of_a_lost_node_ends_on_another(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, resources={"third": 1})
    with open_engine(ON_RAY, "cpu", tmp_path) as engine:
        assert engine.room(1) == 3
        tasks = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            write_json(folder / "worker.json", {"seconds": 4.0})
            tasks.append(engine.start("tests.engines.job", folder / "worker.json", threads=1))
        began = wait_for(lambda: [path.parent for path in tmp_path.glob("*/began-*")], 3)
        assert len(began) == 3
        cluster.remove_node(node, allow_graceful=False)
        for task in tasks:
            task.check()
    assert all((tmp_path / str(number) / "done").is_file() for number in range(3))
    starts = [len(list((tmp_path / str(number)).glob("began-*"))) for number in range(3)]
    assert sorted(starts) == [1, 1, 2], "only the lost one is begun again"


def test_errors_and_ends_of_tasks(cluster: Any, tmp_path: Path) -> None:
    with open_engine(ON_RAY, "cpu", tmp_path) as engine:
        for kind, error in (("data", DataError), ("bug", ChildCrashError)):
            folder = tmp_path / kind
            folder.mkdir()
            write_json(folder / "worker.json", {"fail": kind})
            with pytest.raises(error, match="says why"):
                engine.start("tests.engines.job", folder / "worker.json", threads=1).check()
        write_json(tmp_path / "worker.json", {"seconds": 600})
        task = engine.start("tests.engines.job", tmp_path / "worker.json", threads=1)
        wait_for(lambda: list(tmp_path.glob("began-*")), 1)
        assert not task.has_ended
        task.stop()
        assert task.has_ended


def test_what_a_node_lacks_is_said_before_long_work(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "_versions", lambda: {"potstill": "0.0.1"})
    with (
        pytest.raises(ConfigError, match=r"other versions.*: potstill \S+, here 0.0.1"),
        open_engine(ON_RAY, "cpu", tmp_path),
    ):
        pass
    monkeypatch.undo()
    real = ray_engine._look_at
    monkeypatch.setattr(ray_engine, "_look_at", lambda node, mark: real(node, mark / "elsewhere"))
    with pytest.raises(ConfigError, match="does not see"), open_engine(ON_RAY, "cpu", tmp_path):
        pass
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="has no GPU"), open_engine(ON_RAY, "cuda", tmp_path):
        pass


def test_no_cluster_is_one_error(tmp_path: Path) -> None:
    nowhere = MachineConfig(engine="ray", ray_address="127.0.0.1:9")
    with (
        pytest.raises(PotstillError, match=r"there is no Ray cluster at 127.0.0.1:9(.|\n)*ray start --head"),
        open_engine(nowhere, "cpu", tmp_path),
    ):
        pass


def wait_for(found: Callable[[], list[Path]], number: int, seconds: float = 120) -> list[Path]:
    end = time.monotonic() + seconds
    while len(found()) < number and time.monotonic() < end:
        time.sleep(0.1)
    return found()


def test_gpus_are_shared_where_more_trainings_are_wanted() -> None:
    nodes = (ray_engine._Node("a", "a", cores=32, gpus=4), ray_engine._Node("b", "b", cores=16, gpus=2))
    engines = {jobs: ray_engine.RayEngine(nodes, on_gpus=True, jobs=jobs) for jobs in ("auto", 3, 6, 7, 12, 13)}
    assert [engine._gpus(1) for engine in engines.values()] == [1, 1, 1, 1 / 2, 1 / 2, 1 / 3]
    assert engines["auto"]._gpus(4) == 1
    assert [engines["auto"].room(processes) for processes in (1, 2, 3, 5, 7)] == [6, 3, 1, 1, 0]
    on_cores = ray_engine.RayEngine(nodes, on_gpus=False)
    assert on_cores._gpus(1) == on_cores._gpus(2) == 0
    assert on_cores.room(2) == 24


@pytest.fixture(scope="module")
def on_two_nodes(cluster: Any, tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One training, each of its two processes on a node of its own."""
    folder = tmp_path_factory.mktemp("nodes") / "together"
    with open_engine(ON_RAY, "cpu", folder.parent) as engine:
        assert (engine.room(2), engine.largest_node) == (1, 1)
        train_tiny(engine, tiny_run.path, folder, 2)
    return folder


def test_one_training_on_two_nodes_is_that_of_one_process(on_two_nodes: Path, tiny_run: Any, tmp_path: Path) -> None:
    train_tiny(LocalEngine(), tiny_run.path, tmp_path, 1)
    assert len({path.read_text() for path in on_two_nodes.glob("rank-*/node")}) == 2
    assert difference(tmp_path, on_two_nodes) < 1e-6


@pytest.mark.long
def test_it_stays_so_where_one_process_is_killed(on_two_nodes: Path, tiny_run: Any, tmp_path: Path) -> None:
    once, killed = tmp_path / "once", tmp_path / "killed"
    with open_engine(ON_RAY, "cpu", tmp_path) as engine:
        train_tiny(engine, tiny_run.path, killed, 2, rank=1, step=9, how="killed", once=str(once))
    assert once.exists()
    assert sha256_of(killed / "model.safetensors") == sha256_of(on_two_nodes / "model.safetensors")


@pytest.mark.long
def test_a_run_whose_trainings_are_on_two_nodes(cluster: Any, tiny_run: Any, photos: Path) -> None:
    settings = {**TINY, "machine.engine": "ray", "machine.processes_per_training": 2, "seeds": 1, "machine.reuse": "on"}
    run = tiny_run.path.with_name("on-ray")
    result = potstill.distill(photos, settings=settings, run=run, reporter=Reporter(quiet=True))
    machine = read_json(result.path / "environment.json")["machine"]
    assert (machine["jobs"], machine["processes"]) == (1, 2)
    assert not list(result.path.rglob("rank-*"))
    with pytest.raises(ConfigError, match="processes_per_training = 3, but all nodes together have only 2 cores"):
        list(dry_run(photos, from_mapping({**settings, "machine.processes_per_training": 3})))


@pytest.mark.long
def test_processes_of_a_task_are_on_one_node_where_it_has_room_and_begin_again_where_it_is_lost(
    cluster: Any, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=2)
    write_json(tmp_path / "worker.json", {"seconds": 4.0})
    with open_engine(ON_RAY, "cpu", tmp_path) as engine:
        assert (engine.room(2), engine.largest_node) == (1, 2)
        task = engine.start("tests.engines.job", tmp_path / "worker.json", threads=1, processes=2)
        assert len(wait_for(lambda: list(tmp_path.glob("rank-*/node")), 2)) == 2
        assert len(nodes_of(tmp_path)) == 1
        cluster.remove_node(node, allow_graceful=False)
        task.check()
        assert len(nodes_of(tmp_path)) == 2
        assert [len(list(tmp_path.glob(f"rank-{rank}/began-*"))) for rank in range(2)] == [2, 2]


def nodes_of(folder: Path) -> set[str]:
    """The nodes on which processes of a task have begun last."""
    return {path.read_text() for path in folder.glob("rank-*/node")}


@pytest.mark.long
def test_errors_and_ends_of_tasks_of_several_processes(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "worker.json"
    with open_engine(ON_RAY, "cpu", tmp_path) as engine:
        for kind, error in (("data", DataError), ("bug", ChildCrashError)):
            write_json(job, {"fail": kind})
            with pytest.raises(error, match="says why"):
                engine.start("tests.engines.job", job, threads=1, processes=2).check()
        write_json(job, {"seconds": 600})
        task = engine.start("tests.engines.job", job, threads=1, processes=2)
        wait_for(lambda: list(tmp_path.glob("rank-*/began-*")), 6)
        assert not task.has_ended
        task.stop()
        assert task.has_ended
        monkeypatch.setattr("potstill.engines.ray_group.MISSING_SECONDS", 0.5)
        with pytest.raises(PotstillError, match="A training of 3 processes waits for nodes"):
            engine.start("tests.engines.job", job, threads=1, processes=3).check()


def test_each_process_gets_the_cores_that_leave_room_for_all() -> None:
    nodes = (ray_engine._Node("a", "a", cores=32, gpus=4), ray_engine._Node("b", "b", cores=16, gpus=2))
    cases = {(64, 1): 32, (16, 3): 16, (16, 4): 10, (2, 24): 2, (2, 25): 1}
    on_cores = ray_engine.RayEngine(nodes, on_gpus=False)
    assert {case: on_cores._cores(*case) for case in cases} == cases
    on_gpus = ray_engine.RayEngine(nodes, on_gpus=True)
    assert [on_gpus._cores(16, 3), on_gpus._cores(16, 6), on_gpus._cores(1, 1)] == [16, 8, 1]
