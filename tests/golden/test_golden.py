"""Twenty training steps of student and twin, number by number: a change of training must be meant.

`pytest tests/golden --update-golden` rewrites the expected losses; nothing else does.

All is computed in float64, from drawn soft labels. In float32 these losses are no golden numbers: processors add in
another order, AdamW's first steps go by the sign of gradients, and a small batch norm amplifies what differs. With AVX2
instead of AVX-512, the same machine gave losses 10 % apart after 20 steps, and 50 % with a teacher that was
itself trained in float32. In float64, with a small learning rate, they agree to 1e-9 (AVX-512, AVX2 and SSE4.1, by
ATEN_CPU_CAPABILITY and DNNL_MAX_CPU_ISA).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from potstill.data.arrays import RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.views import mixed_labels
from potstill.run.folder import Run, Stage
from potstill.students import job as student_job
from potstill.students.job import train_job
from potstill.students.recipe import Job, Recipe
from potstill.training.loop import Callbacks, Task

EXPECTED = Path(__file__).with_name("losses.txt")
COMMAND = "python -m pytest tests/golden --update-golden"
STEPS = 20
TOLERANCE = 1e-6
"""Relative: a thousand times what processors differ by, and far below what any change of training does."""

TWIN = Recipe(epochs=5, batch_size=8, lr=5e-4, weight_decay=0.02, ema=0.99, dtype="float32", soft_labels="")
RECIPES = {
    "alone": TWIN,
    "alone-smooth": replace(TWIN, label_smoothing=0.1),
    "kl": replace(TWIN, temperature=4.0, distill_weight=1.0, task_weight=0.0),
    "kl-features": replace(TWIN, temperature=3.0, distill_weight=1.0, feature_weight=1.0, task_weight=0.3),
    "logit-mse": replace(TWIN, method="logit_mse", distill_weight=1.0, task_weight=0.0),
    "dist": replace(TWIN, method="dist", temperature=2.0, distill_weight=1.0, task_weight=0.0),
    "dkd": replace(TWIN, method="dkd", temperature=2.0, distill_weight=1.0, task_weight=0.3),
}


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New tensors are float64, and what the training loop asks to be float32 is float64 too."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def drawn_run(run_copy: Run) -> Run:
    """The tiny run with drawn soft labels: those of a teacher that is trained here differ from machine to machine."""
    _draw_soft_labels(run_copy, classes=3)
    return run_copy


@pytest.fixture
def five_classes_run(run_copy: Run) -> Run:
    """The same with five classes, which "dkd" needs: the photos are given drawn labels too."""
    index = np.load(run_copy.images / "index.npy")
    index["label"] = np.random.default_rng(5).integers(5, size=len(index))
    np.save(run_copy.images / "index.npy", index)
    (run_copy.images / "classes.txt").write_text("a\nb\nc\nd\ne\n", "utf-8")
    _draw_soft_labels(run_copy, classes=5)
    return run_copy


def _draw_soft_labels(run: Run, *, classes: int) -> None:
    store = PixelStore(run.images)
    photos, views = (np.load(run.soft_labels / f"{name}.npy") for name in ("photos", "views"))
    generator = np.random.default_rng(7)
    labels = mixed_labels(store, photos, views, classes)
    logits = 3 * labels + generator.normal(0, 1, labels.shape)
    features = labels @ generator.normal(0, 1, (classes, 16)) + generator.normal(0, 0.5, (*views.shape, 16))
    for name, values in (("logits", logits), ("features", features)):
        path = run.soft_labels / f"{name}.npy"
        path.unlink()
        writer = RowWriter(path, values.shape, np.float16)
        writer.write(values)
        writer.close()
    statistics = {"mean": features.mean((0, 1)), "std": features.std((0, 1))}
    np.savez(run.soft_labels / "statistics.npz", **{n: v.astype(np.float32) for n, v in statistics.items()})


def losses_of(recipe: Recipe, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The losses of the first steps of a whole training."""
    losses: list[float] = []
    fit = student_job.fit

    def recording(task: Task[Any], *others: Any, callbacks: Callbacks, **options: Any) -> None:
        def exact(step: int) -> Any:
            made = task.batch(step)
            values = {name: getattr(made, name).double() for name in ("targets", "teacher_logits", "teacher_features")}
            return made._replace(**values)

        def record(step: int, loss: float) -> None:
            losses.append(loss)
            callbacks.after_step(step, loss)

        fit(replace(task, batch=exact), *others, callbacks=replace(callbacks, after_step=record), **options)

    monkeypatch.setattr(student_job, "fit", recording)
    job = Job(folder, "mobilenetv1_025", 32, "none", 0, recipe)
    Stage(folder, "golden").begin(job.inputs())
    train_job(job, run, "cpu", lambda step: None)
    return losses[:STEPS]


def expected() -> dict[str, list[float]]:
    if not EXPECTED.is_file():
        pytest.fail(f"{EXPECTED} is missing. Make it with: {COMMAND}")
    lines = (line.split() for line in EXPECTED.read_text("utf-8").splitlines() if not line.startswith("#"))
    return {name: [float(number) for number in numbers] for name, *numbers in lines}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.usefixtures("tiny_run", "float64")  # the run is made before float64 is turned on
def test_the_first_twenty_losses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue("five_classes_run" if name == "dkd" else "drawn_run")
    found = losses_of(RECIPES[name], run, tmp_path / "job", monkeypatch)
    assert len(found) == STEPS
    if request.config.getoption("--update-golden"):
        kept = expected() if EXPECTED.is_file() else {}
        kept[name] = found
        lines = [f"{key} {' '.join(f'{x:.10g}' for x in kept[key])}" for key in RECIPES if key in kept]
        EXPECTED.write_text("\n".join([f"# Losses of the first 20 steps. Made by: {COMMAND}", *lines]) + "\n", "utf-8")
        return
    assert name in expected(), f"{EXPECTED.name} has no line {name!r}. Make it with: {COMMAND}"
    assert found == pytest.approx(expected()[name], rel=TOLERANCE), f"If this change is meant: {COMMAND}"


@pytest.mark.parametrize(
    "change",
    [{"lr": 5.01e-4}, {"weight_decay": 0.021}, {"temperature": 3.01}, {"feature_weight": 1.01}, {"task_weight": 0.301}],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.usefixtures("float64")
def test_a_small_change_of_training_does_not_pass(
    change: dict[str, float], drawn_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = losses_of(replace(RECIPES["kl-features"], **change), drawn_run, tmp_path / "job", monkeypatch)
    assert found != pytest.approx(expected()["kl-features"], rel=100 * TOLERANCE)


@pytest.mark.usefixtures("float64")
def test_a_small_change_of_dkd_does_not_pass(
    five_classes_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = losses_of(replace(RECIPES["dkd"], temperature=2.01), five_classes_run, tmp_path / "job", monkeypatch)
    assert found != pytest.approx(expected()["dkd"], rel=100 * TOLERANCE)


def test_the_file_has_no_line_that_nobody_checks() -> None:
    assert set(expected()) == set(RECIPES)
