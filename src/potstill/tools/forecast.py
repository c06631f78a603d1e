"""What more photos would bring: a student and its twin trained on parts of a run's photos, and the curve through them.

Every training has the recipe, the steps and the stored soft labels of the run; no teacher runs. Errors are those on
val. The teacher of the soft labels knows all labels of the run, also in trainings on a part of them: what it would gain
from further labels is not in the forecast.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.table import Table

from potstill import metrics
from potstill.compute.measured import Measured
from potstill.context import Context
from potstill.data.arrays import open_arrays
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.errors import ConfigError, DataError, did_you_mean
from potstill.metrics import Interval
from potstill.models.classifier import load_info
from potstill.monitoring.progress import duration
from potstill.monitoring.tables import text_table
from potstill.run.files import remove_sealed
from potstill.run.folder import Run, Stage
from potstill.run.forecast import Curve, FittedPoint, Forecast, Gain, Point, forecast_path, write_forecast
from potstill.run.integrity import require_whole
from potstill.run.layout import ARMS, comparison_path, model_folder
from potstill.run.results import Comparison, read_comparison, read_training
from potstill.students.batches import shown_views
from potstill.students.recipe import Job
from potstill.students.runner import JobRunner
from potstill.students.stage import render_views
from potstill.tools import power_law
from potstill.wording import counted

SHARES = (0.125, 0.25, 0.5)
"""Of the run's photos; the whole is there already."""

RESAMPLES = 1_000

FLAT = 0.005
"""Less than half a point is called nothing."""

REACH = 4
"""A curve says nothing of more than so many times the photos that it was measured with."""

FITTED_POINTS = 25


@dataclass(frozen=True, slots=True)
class Group:
    """The trainings of one arm, with every seed, on a share of the photos of one kind."""

    kind: str
    """"labeled" or "unlabeled"."""
    arm: str
    share: float
    jobs: tuple[Job, ...]

    def wrong(self) -> np.ndarray:
        """(S, n) bool: whether each val photo is misclassified."""
        found = []
        for job in self.jobs:
            with open_arrays(job.folder / "val_predictions.npz") as stored:
                found.append(stored["logits"].argmax(-1) != stored["labels"])
        return np.stack(found)


@dataclass(frozen=True)
class ForecastPlan:
    """What will be trained, checked before anything long starts."""

    run: Run
    student: str
    seeds: int
    comparison: Comparison
    groups: tuple[Group, ...]
    """By kind and arm, and of each the smallest share first; the last, share 1, is the run's own."""

    @cached_property
    def soft(self) -> SoftLabels:
        return SoftLabels.open(self.run)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) of the photos of the soft labels, -1 for those without one."""
        return PixelStore(self.run.images).labels(self.soft.photos)

    @property
    def todo(self) -> list[Job]:
        """Trainings that are not finished yet."""
        jobs = [job for group in self.groups if group.share < 1 for job in group.jobs]
        return [job for job in jobs if not _is_finished(job)]

    def photos(self, group: Group) -> int:
        """Photos that a group learns from, mean over the seeds: labeled ones, or all where the others grow."""
        counts = [
            int(np.sum(self._shown(job) & ((self.labels >= 0) | (group.kind == "unlabeled")))) for job in group.jobs
        ]
        return round(float(np.mean(counts)))

    def _shown(self, job: Job) -> np.ndarray:
        """(N,) bool: whether a job learns from the photo."""
        return shown_views(job, self.soft, self.labels)[:, 0] >= 0

    def cost(self, jobs_at_a_time: int) -> str:
        """What it takes, in words."""
        todo = self.todo
        if not todo:
            return "All trainings are there already."
        own = {arm: self._seconds(arm) for arm in ARMS}
        seconds = sum(own[job.arm] for job in todo)
        times = seconds / max(sum(own.values()) * self.comparison.seeds, 0.1)
        return (
            f"{counted(len(todo), 'training')}, each as long as one of the run's own: about "
            f"{duration(seconds / min(jobs_at_a_time, len(todo)))} with {jobs_at_a_time} at a time, {times:.1f} times "
            f"what the trainings of {self.student} and its twin took in the run."
        )

    def _seconds(self, arm: str) -> float:
        """Of one training."""
        folders = [model_folder(self.run, self.student, seed, arm) for seed in range(self.comparison.seeds)]
        return float(np.mean([read_training(folder).seconds for folder in folders]))


def plan_forecast(
    run: Run, *, student: str | None = None, shares: Sequence[float] = SHARES, seeds: int | None = None
) -> ForecastPlan:
    """The trainings on parts of the photos of a finished run.

    Args:
        student: its name; the one chosen on val when None.
        shares: of the photos to train on, all between 0 and 1.
        seeds: how many of the run's; all when None.
    Raises:
        PotstillError: the run is not finished.
        DataError: it has no such student, or too few photos.
        ConfigError: shares or seeds do not work.
    """
    run.stage("5_comparison").facts()
    comparison = read_comparison(comparison_path(run))
    name = _checked_student(comparison, student)
    used = tuple(sorted(set(shares)))
    if len(used) < 2 or not all(0 < share < 1 for share in used):
        raise ConfigError("A curve needs two shares or more, all between 0 and 1, such as --shares 0.125,0.25,0.5.")
    if seeds is not None and not 1 <= seeds <= comparison.seeds:
        raise ConfigError(f"--seeds {seeds}: {run.path} was trained with {comparison.seeds}; take 1 to so many.")
    count = seeds or comparison.seeds
    plan = ForecastPlan(run, name, count, comparison, ())
    plan = replace(plan, groups=tuple(_groups(plan, used)))
    fewest, classes = min(map(plan.photos, plan.groups)), len(comparison.classes)
    if fewest < 2 * classes:
        raise DataError(
            f"{used[0]:g} of the photos are {fewest} that can be used, for {classes} classes: too few to train on.\n"
            "  Name larger shares (--shares 0.25,0.5,0.75). Views that are blended with a photo outside the part "
            "cannot be used."
        )
    return plan


def _is_finished(job: Job) -> bool:
    stage = Stage(job.folder, job.folder.name)
    return stage.is_done and stage.facts()["inputs"] == job.inputs()


def _checked_student(comparison: Comparison, name: str | None) -> str:
    names = [student.name for student in comparison.students]
    if name is not None and name not in names:
        raise DataError(f"There is no student {name!r}. The run has: {', '.join(names)}.{did_you_mean(name, names)}")
    return name or comparison.chosen.name


def _groups(plan: ForecastPlan, shares: Sequence[float]) -> list[Group]:
    """Both arms over labeled photos; where there are others, the student over these too: its twin does not see them."""
    kinds = [("labeled", arm) for arm in ARMS]
    Job.read(model_folder(plan.run, plan.student, 0, "distilled")).require_starting_weights("A learning curve")
    own = {arm: [Job.read(model_folder(plan.run, plan.student, s, arm)) for s in range(plan.seeds)] for arm in ARMS}
    if np.any(plan.labels < 0) and own["distilled"][0].recipe.arm == "distilled":
        kinds.append(("unlabeled", "distilled"))
    found = []
    for kind, arm in kinds:
        for share in shares:
            folder = forecast_path(plan.run).parent / plan.student / f"{kind}-{share:g}"
            jobs = [_part(job, folder / f"seed-{job.seed}" / arm, kind, share) for job in own[arm]]
            found.append(Group(kind, arm, share, tuple(jobs)))
        found.append(Group(kind, arm, 1.0, tuple(own[arm])))
    return found


def _part(job: Job, folder: Path, kind: str, share: float) -> Job:
    """The same training on a share of the photos of one kind."""
    if kind == "labeled":
        return replace(job, folder=folder, labeled_share=share)
    return replace(job, folder=folder, unlabeled_share=share)


def make_forecast(plan: ForecastPlan, context: Context, photos: int | None = None) -> Forecast:
    """Train what is missing, fit the curves, and write `forecast/forecast.json`.

    Args:
        photos: a number of further photos to forecast, beside half as many and as many as there are.
    Raises:
        DamageError: a file of the run is not as it was written.
    """
    require_whole(plan.run.path, large=True)
    _train(plan, context)
    curves = []
    for _, groups in groupby(plan.groups, key=lambda group: (group.kind, group.arm)):
        curves.append(_curve(plan, list(groups), photos))
    forecast = Forecast(
        student=plan.student,
        soft_labels=plan.run.stage("3_soft_labels").digest(),
        seeds=plan.seeds,
        val_photos=plan.groups[0].wrong().shape[1],
        confidence=plan.comparison.confidence,
        curves=tuple(curves),
    )
    write_forecast(plan.run, forecast)
    return forecast


def _train(plan: ForecastPlan, context: Context) -> None:
    jobs = [job for group in plan.groups if group.share < 1 for job in group.jobs]
    if plan.todo:
        size = load_info(model_folder(plan.run, plan.student, 0, ARMS[0])).size
        render_views(size, context.machine.requested.cache_gb, plan.soft, context)
    measured = Measured.read(plan.run.students / plan.student)
    threads = measured.threads if measured else 1
    JobRunner(context).run(jobs, f"{plan.student} on parts of the photos", threads)
    for cache in plan.run.students.glob("views-*.npy"):
        remove_sealed(cache)


def _curve(plan: ForecastPlan, groups: Sequence[Group], photos: int | None) -> Curve:
    """The fit of one arm over the photos of one kind, with a bootstrap over val photos and seeds."""
    counts = np.array([plan.photos(group) for group in groups])
    every = int(counts[-1])
    wrong = np.stack([group.wrong() for group in groups]).astype(float)
    fits = power_law.fit(counts / every, wrong.mean((1, 2))[None])
    store = PixelStore(plan.run.images)
    of_val = store.groups_of(store.rows("val"))
    resampled = power_law.fit(counts / every, metrics.resampled_means(wrong, resamples=RESAMPLES, groups=of_val))

    def interval(of: np.ndarray, resamples: np.ndarray) -> Interval:
        tail = (1 - plan.comparison.confidence) / 2
        low, high = np.quantile(resamples, [tail, 1 - tail])
        return Interval(float(of[0]), float(low), float(high))

    kind, arm = groups[0].kind, groups[0].arm
    there = int(np.sum(plan.labels >= 0) if kind == "labeled" else np.sum(plan.labels < 0))
    gains = []
    for more in sorted({there // 2, there, photos or there}):
        at = np.array([every, every + more]) / every
        (now, then), (nows, thens) = fits(at).T, resampled(at).T
        fewer = interval(now - then, nows - thens)
        gains.append(Gain(more, fewer, conclude(counted(more, f"more {kind} photo"), fewer, at[1])))
    drawn = np.geomspace(counts[0], every + max(gain.more for gain in gains), FITTED_POINTS).round().astype(int)
    errors, resampled_errors = fits(drawn / every), resampled(drawn / every)
    return Curve(
        kind=kind,
        arm=arm,
        points=tuple(Point(int(n), float(e)) for n, e in zip(counts, wrong.mean((1, 2)), strict=True)),
        limit=float(fits.limit[0]),
        scale=float(fits.scale[0]),
        exponent=float(fits.exponent[0]),
        fitted=tuple(
            FittedPoint(int(n), interval(errors[:, k], resampled_errors[:, k])) for k, n in enumerate(drawn.tolist())
        ),
        gains=tuple(gains),
    )


def conclude(what: str, fewer: Interval, times: float) -> str:
    """A forecast in words.

    Args:
        what: the photos that would be added.
        fewer: by how much the error would fall.
        times: the photos that there would be then, over those that there are.
    """
    if times > REACH:
        return f"{what}: too far beyond the photos that the curve was measured with to tell."
    span = f"{100 * fewer.low:.1f} to {100 * fewer.high:.1f}"
    if fewer.high < FLAT:
        return f"{what}: the curve is flat, less than {100 * FLAT:.1f} points of error ({span})."
    if 100 * fewer.low < 0.05:
        return f"{what}: cannot be told, the interval of what they would bring is too wide ({span} points)."
    return f"{what} ≈ -{100 * fewer.value:.1f} points of error ({span})."


def forecast_table(forecast: Forecast) -> Table:
    """The measured points, for the terminal."""
    header = ["learning from", "", "photos", "error on val"]
    rows = [
        [f"{curve.kind} photos", curve.arm, f"{point.photos:,}", f"{point.error:.1%}"]
        for curve in forecast.curves
        for point in curve.points
    ]
    return text_table(header, rows, right=range(2, len(header)))


def forecast_lines(forecast: Forecast) -> list[str]:
    """What more photos would bring, and what the numbers are."""
    lines = [f"{forecast.student} {curve.arm}: {gain.conclusion}" for curve in forecast.curves for gain in curve.gains]
    seeds = counted(forecast.seeds, "seed")
    lines.append(
        f"{metrics.percent(forecast.confidence)} intervals over {counted(forecast.val_photos, 'val photo')} and "
        f"{seeds}, with the teacher as it is: what it would gain from more labels is not in them."
    )
    return lines


def open_run(path: Path) -> Run:
    """A run whose earlier trainings for a forecast are made again where they no longer fit it."""
    return replace(Run.open(path), redo=True)
