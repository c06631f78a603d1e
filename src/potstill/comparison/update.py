"""What adding photos brought: the student of the earlier run against this run's, on the same test photos."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from potstill import metrics
from potstill.comparison.plan import ComparisonPlan
from potstill.data.pixels import PixelStore
from potstill.run.files import read_json
from potstill.run.folder import Run
from potstill.run.layout import comparison_path, model_folder, num_seeds
from potstill.run.results import Change, UpdateResult, read_comparison


def measure_update(
    plan: ComparisonPlan,
    run: Run,
    name: str,
    correct: np.ndarray,
    correct_of: Callable[[Path], np.ndarray],
    groups: np.ndarray | None,
) -> UpdateResult | None:
    """Compare the chosen students of both runs; None where photos were not added to an earlier run.

    Args:
        name: of this run's chosen student.
        correct: (S, n) bool, whether each of its seeds predicts the label of each test photo.
        correct_of: the same (n,) of a stored model.
        groups: (n,) the group of each test photo, see `metrics.bootstrap_mean`.
    """
    if plan.earlier is None:
        return None
    earlier = Run(plan.earlier)
    before = _chosen(earlier)
    seeds = min(len(correct), num_seeds(earlier))
    earlier_correct = np.stack([correct_of(folder) for folder in _models(earlier, before)[:seeds]])
    store, old_store = PixelStore(run.images), PixelStore(earlier.images)
    ids = store.index["id"][store.rows("test")]
    old = np.isin(ids, old_store.index["id"][old_store.rows("test")])

    def change(photos: np.ndarray) -> Change:
        mine = None if groups is None else groups[photos]
        return _change(plan, earlier_correct[:, photos], correct[:seeds, photos], mine)

    return UpdateResult(
        run=earlier.path.resolve().name,
        before=before,
        after=name,
        seeds=seeds,
        learned_before=_learned_from(earlier),
        learned_after=_learned_from(run),
        warm=plan.warm,
        on_old=change(old),
        on_new=change(~old) if not old.all() else None,
    )


def earlier_digests(earlier: Path) -> list[str]:
    """sha256 of the weights of the earlier run's chosen student, seed by seed."""
    run = Run(earlier)
    return [read_json(folder / "model.json")["sha256"] for folder in _models(run, _chosen(run))]


def _chosen(earlier: Run) -> str:
    """The name of the earlier run's student to deploy."""
    return read_comparison(comparison_path(earlier)).chosen.name


def _models(earlier: Run, name: str) -> list[Path]:
    """Where a student is stored, distilled, with each seed."""
    return [model_folder(earlier, name, seed, "distilled") for seed in range(num_seeds(earlier))]


def _learned_from(run: Run) -> int:
    return int(run.stage("3_soft_labels").facts()["photos"])


def _change(plan: ComparisonPlan, before: np.ndarray, after: np.ndarray, groups: np.ndarray | None) -> Change:
    """Of (S, n) bool each."""

    def interval(values: np.ndarray) -> metrics.Interval:
        config = plan.config
        return metrics.bootstrap_mean(
            values.astype(float), resamples=config.resamples, confidence=config.confidence, groups=groups
        )

    return Change(
        photos=before.shape[1],
        before=interval(before),
        after=interval(after),
        difference=interval(after.astype(float) - before),
        only_after=tuple(np.sum(after & ~before, axis=1).tolist()),
        only_before=tuple(np.sum(before & ~after, axis=1).tolist()),
    )
