"""One training of one student: distilled or alone, one seed.

Every term of the loss is logged by name in `metrics.jsonl`: `loss/distillation`, `loss/features` and `loss/labels`,
weighted, so that they sum to `loss`.
"""

import functools
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from potstill import metrics
from potstill.compute.inference import BATCH, leaves_cores_free, outputs, plain_outputs
from potstill.compute.precision import Precision
from potstill.data.arrays import RowReader, save_arrays
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import Renderer, mixed_labels, plain_pixels
from potstill.errors import ModelError, PotstillError
from potstill.metrics import multilabel
from potstill.metrics.choice import Metric
from potstill.metrics.classification import Classification
from potstill.models.classifier import Classifier, ModelInfo, build, describe, load, normalize, save
from potstill.run.files import read_json, replacing, write_json, write_text
from potstill.run.folder import Run, Stage
from potstill.run.layout import views_path
from potstill.run.trained import Trained
from potstill.students.operating_point import operating_point_of
from potstill.students.recipe import Job, Recipe
from potstill.students.subset import draw_photos, views_within
from potstill.training import losses
from potstill.training.loop import Callbacks, Schedule, Task, fit
from potstill.training.ranks import ALONE, Part, Ranks

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Pixels (B, 3, S, S) → features (B, D) and logits (B, C)."""

EVALUATIONS = 10
"""Times that val is measured while a student trains."""

CROPS = (1.0, 0.875)
"""Shares of the center square's side to choose from: all of it, and what ImageNet's models are usually shown. Objects
look larger in training views than in plain photos (Touvron et al. 2019, arXiv:1906.06423, section 3)."""

LAST_LR_FACTOR = 0.1
"""Learning rate of the last stage, as a share of the student's."""
LAST_CHECKPOINT = "last-checkpoint.safetensors"

UNSURE_SHARE = 0.05
"""The threshold of "not one of these classes" is the top probability that this share of val photos falls below."""


class Batch(NamedTuple):
    """What one step of student or twin is trained on."""

    pixels: Tensor
    """(B, S, S, 3) uint8."""
    targets: Tensor
    """(B, C), see `PixelStore.targets`: zero rows, or NaN, for unlabeled photos."""
    teacher_logits: Tensor
    """(B, C)."""
    teacher_features: Tensor
    """(B, D) standardized; empty without feature loss."""


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of the classes in what a model learns from, (C,) each, above 0."""

    labels: Tensor
    teacher: Tensor
    """In the teacher's probabilities."""

    @classmethod
    def of(cls, job: Job, soft: SoftLabels, labels: np.ndarray) -> "Shares":
        """Of the photos that the job learns from.

        Args:
            labels: (N,) of all photos of the soft labels; -1 for those without.
        """
        learned = np.flatnonzero(shown_views(job, soft, labels)[:, 0] >= 0)
        classes = soft.logits.shape[-1]
        given = labels[learned]
        counts = np.bincount(given[given >= 0], minlength=classes)
        first = soft.logits(learned, np.zeros(len(learned), int)).astype(np.float32)
        return cls(*(_shares(sums) for sums in (counts, metrics.softmax(first).sum(0))))

    def to(self, device: torch.device) -> "Shares":
        """The same on a device."""
        return Shares(self.labels.to(device), self.teacher.to(device))


def _shares(sums: np.ndarray) -> Tensor:
    """(C,) of sum 1; a class without any counts as half a photo."""
    sums = np.maximum(sums, 0.5)
    return torch.from_numpy((sums / sums.sum()).astype(np.float32))


def train_job(job: Job, run: Run, device: str, update: Callable[[int], None], ranks: Ranks = ALONE) -> None:
    """Train the job's model and write `model.safetensors`, `model.json`, `metrics.jsonl`, `val_predictions.npz`.

    Args:
        device: as torch names it.
        update: gets the number of finished steps.
        ranks: the processes that train it together; each calls this.
    Raises:
        PotstillError: the loss is not finite, the memory of the GPU is too small, or another process is gone.
    """
    started = time.monotonic()
    try:
        training = _Training.start(job, run, device, ranks)
        training.fit(update)
        training.learn_labels()
        val_logits = training.select_crop(training.val.crops)
    except torch.OutOfMemoryError as error:
        raise PotstillError(
            f"The memory of the GPU is too small: {str(error).splitlines()[0]}\n"
            "  Train fewer models at the same time (--machine.jobs), or lower --student.batch-size."
        ) from None
    if not ranks.is_first:
        return
    facts = training.save(val_logits)
    for leftover in ("checkpoint.safetensors", LAST_CHECKPOINT, "step.txt"):
        (job.folder / leftover).unlink(missing_ok=True)
    Stage(job.folder, job.folder.name).finish(**facts, seconds=round(time.monotonic() - started, 1))


def learned_from(job: Job, run: Run) -> tuple[PixelStore, SoftLabels]:
    """The photos with their labels and the soft labels that the job learns from: the run's, or the job's own."""
    store, folder = PixelStore(run.images), run.path / job.targets
    if not job.targets:
        return store, SoftLabels.open(run)
    if (folder / "labels.npy").is_file():
        return store.relabeled(np.load(folder / "labels.npy", allow_pickle=False)), SoftLabels.open(run)
    return store, SoftLabels.open(run, folder)


@dataclass(frozen=True, slots=True)
class _Val:
    """The val photos: those that this process measures, rendered once for all measurements."""

    labels: np.ndarray
    """(n,) of all."""
    mine: np.ndarray
    """(m,) positions among all; whole batches, so that they are those of one process."""
    rows: np.ndarray
    """(m,) in the store."""
    pixels: np.ndarray
    """(m, S, S, 3) uint8, at the first of `crops`."""
    crops: tuple[float, ...]
    """Candidates of `crop_pct`."""

    @classmethod
    def of(cls, store: PixelStore, crops: tuple[float, ...], size: int, ranks: Ranks) -> "_Val":
        rows = store.rows("val")
        batches = ranks.part_of(-(-len(rows) // BATCH))
        mine = np.arange(len(rows))[batches.start * BATCH : batches.stop * BATCH]
        return cls(store.labels(rows), mine, rows[mine], plain_pixels(store, rows[mine], size, crops[0]), crops)


@dataclass(frozen=True)
class _Training:
    """A model while it is trained, with all that a step needs."""

    job: Job
    run: Run
    store: PixelStore
    soft: SoftLabels
    trained: nn.ModuleDict
    """`model`, and `projector` where there is a feature loss."""
    val: _Val
    precision: Precision
    metric: Metric
    """What is chosen by on val."""
    shares: Shares | None
    """Where the loss makes up for classes of unequal size."""
    ranks: Ranks

    @classmethod
    def start(cls, job: Job, run: Run, device: str, ranks: Ranks) -> "_Training":
        """The model with its starting weights, which depend on the seed only, and the projector of the feature loss."""
        (store, soft), recipe = learned_from(job, run), job.recipe
        precision = Precision(torch.device(device), getattr(torch, recipe.dtype))
        torch.manual_seed(job.seed)
        info = describe(job.model, run.classes(), size=job.size, several_labels=store.several_labels)
        model = _starting_model(job, info).to(precision.device)
        model.to(memory_format=torch.channels_last)
        trained = nn.ModuleDict({"model": model})
        if recipe.feature_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(job.seed)  # after the model, so that the twin starts from the same weights
                trained["projector"] = nn.Linear(model.num_features, soft.features.shape[-1]).to(precision.device)
        crops = CROPS if recipe.crop_pct == "auto" else (recipe.crop_pct,)
        shares = None
        if recipe.class_balance != "none":
            shares = Shares.of(job, soft, store.labels(soft.photos)).to(precision.device)
        val, metric = _Val.of(store, crops, info.size, ranks), Metric.of(recipe.metric, info.classes)
        return cls(job, run, store, soft, trained, val, precision, metric, shares, ranks)

    @property
    def model(self) -> Classifier:
        model = self.trained["model"]
        assert isinstance(model, Classifier)
        return model

    @property
    def threads(self) -> int:
        """That render views."""
        return torch.get_num_threads() if leaves_cores_free(self.precision.device) else 1

    @property
    def kind(self) -> Classification:
        return Classification.of(self.store.several_labels)

    @property
    def steps(self) -> int:
        return self.job.recipe.steps(len(self.soft.photos))

    def fit(self, update: Callable[[int], None]) -> None:
        """Train, measuring val at regular steps."""
        recipe, steps = self.job.recipe, self.steps
        log = _Log(self.job.folder)
        part = Part(self.ranks, photos_per_step(self.job, self.store, self.soft))
        batch = batches(self.job, self.run, self.store, self.soft, threads=self.threads, rows=part.rows)

        # Of training only: val is measured by the plain model.
        compiled = recipe.compile and self.ranks.count == 1
        forward: Forward = torch.compile(self.model.both) if compiled else self.model.both

        def loss(data: Batch) -> Tensor:
            terms = loss_terms(data, recipe, self.trained, forward, self.shares, part)
            log.count(terms)
            return _total(terms)

        def after_step(step: int, loss: float) -> None:
            log.losses.append(loss)
            if self.ranks.is_first:
                update(step)

        def evaluate(step: int) -> None:
            logits = self._val_logits()
            means = log.means(part)
            if not self.ranks.is_first:
                return
            log.add(
                step=step,
                epoch=round(step / steps * recipe.epochs, 2),
                **means,
                **{f"val_{self.kind.score_title}": self.kind.score(logits, self.val.labels)},
                val_nll=self.kind.nll(logits, self.val.labels),
            )

        fit(
            Task(trained=self.trained, batch=batch, loss=loss, part=part),
            Schedule(steps=steps, lr=recipe.lr, weight_decay=recipe.weight_decay, ema=recipe.ema),
            self.precision,
            checkpoint=self.job.folder / "checkpoint.safetensors",
            callbacks=Callbacks(
                after_step=after_step,
                evaluate=evaluate,
                evaluate_at=frozenset(round(steps * (k + 1) / EVALUATIONS) for k in range(EVALUATIONS)),
            ),
        )
        if self.ranks.is_first:
            log.close()

    def learn_labels(self) -> None:
        """A last stage on the labeled photos only; undone where the loss on val is not lower for it."""
        recipe, model = self.job.recipe, self.model
        if not recipe.last_epochs:
            return
        views = LabeledViews.of(self.job, self.soft, self.store)
        if not len(views):
            return
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        loss_before = self.metric.loss(self._val_logits(), self.val.labels)
        pixels = pixels_of(self.job, self.run, self.store, self.soft, self.threads)
        per_epoch = max(1, len(views) // recipe.batch_size)
        part = Part(self.ranks, min(recipe.batch_size, len(views)))

        def batch(step: int) -> tuple[Tensor, Tensor]:
            photo, view, labels = (values[part.rows] for values in views.of_step(step, recipe.batch_size))
            return torch.from_numpy(pixels(photo, view)), torch.from_numpy(labels)

        def loss(data: tuple[Tensor, Tensor]) -> Tensor:
            pixels, labels = data
            logits = model(normalize(pixels, model.info)).float()
            if self.kind.several_labels:
                return losses.multilabel_task_loss(logits, labels.float())
            if self.shares is None:
                return nn.functional.cross_entropy(logits, labels, reduction="none")
            targets = nn.functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
            return balanced_task_loss(logits, targets, recipe, self.shares.labels)

        fit(
            Task(
                trained=nn.ModuleDict({"model": model}),
                batch=batch,
                loss=loss,
                frozen=[module for module in model.modules() if isinstance(module, nn.BatchNorm2d)],
                part=part,
            ),
            Schedule(
                steps=recipe.last_epochs * per_epoch, lr=LAST_LR_FACTOR * recipe.lr, weight_decay=recipe.weight_decay
            ),
            self.precision,
            checkpoint=self.job.folder / LAST_CHECKPOINT,
        )
        if self.metric.loss(self._val_logits(), self.val.labels) >= loss_before:
            model.load_state_dict(before)

    def select_crop(self, crops: tuple[float, ...]) -> np.ndarray:
        """Give the model the crop with the lowest loss on val, the first of equals.

        Returns:
            (n, C) val logits at this crop.
        """
        model, labels = self.model, self.val.labels
        found = {crops[0]: self._val_logits()}
        for crop in crops[1:]:
            model.info = replace(model.info, crop_pct=crop)
            logits = plain_outputs(model, self.store, self.val.rows, self.precision, threads=self.threads)[1]
            found[crop] = self._of_all_val(logits)
        best = min(found, key=lambda crop: self.metric.loss(found[crop], labels))
        model.info = replace(model.info, crop_pct=best)
        return found[best]

    def save(self, val_logits: np.ndarray) -> dict[str, Any]:
        """Write the model and its val predictions. Returns what the stage keeps of them."""
        folder, labels, metric = self.job.folder, self.val.labels, self.metric
        temperature = metric.temperature(val_logits, labels)
        scaled = val_logits / temperature
        probabilities = self.kind.probabilities(scaled)
        several = self.kind.several_labels
        save_arrays(folder / "val_predictions.npz", logits=val_logits, labels=labels)
        trained = Trained(
            role="student",
            arm=self.job.arm,
            seed=self.job.seed,
            recipe=asdict(self.job.recipe),
            temperature=temperature,
            gray_levels=self.run.gray_levels(),
            threshold=float(np.quantile(self.kind.certainty(probabilities), UNSURE_SHARE)),
            thresholds=multilabel.place_thresholds(probabilities, labels) if several else (),
            operating_point=operating_point_of(
                self.job.recipe.operating_point, probabilities, labels, self.model.info.classes
            ),
        )
        save(self.model, folder, trained)
        facts: dict[str, Any] = {
            "val_accuracy": self.kind.accuracy(val_logits, labels),
            "val_nll_scaled": self.kind.nll(scaled, labels),
            "steps": self.steps,
        }
        if metric.kind == "accuracy":
            return facts
        if several:
            facts["several_labels"] = True
        return {**facts, "val_metric": metric.value(val_logits, labels), "val_loss": metric.loss(val_logits, labels)}

    def _val_logits(self) -> np.ndarray:
        """(n, C) at the first crop."""
        blocks = [self.val.pixels[i : i + BATCH] for i in range(0, len(self.val.pixels), BATCH)]
        found = [outputs(self.model, block, self.precision)[1] for block in blocks]
        return self._of_all_val(np.concatenate([np.empty((0, len(self.model.info.classes)), np.float32), *found]))

    def _of_all_val(self, logits: np.ndarray) -> np.ndarray:
        """(n, C) of all val photos, from those (m, C) of each process."""
        every = torch.zeros(len(self.val.labels), logits.shape[1])
        every[self.val.mine] = torch.from_numpy(logits).to(every.dtype)
        return self.ranks.sum(every).numpy()


def _starting_model(job: Job, info: ModelInfo) -> Classifier:
    """The model before its first step: with its starting weights and a new head, or as an earlier run trained it."""
    if not job.start:
        return build(info, weights=job.weights, role="student", seed=job.seed)
    earlier = load(Path(job.start))
    model = build(info)
    if earlier.info.classes != info.classes or earlier.info.arguments != info.arguments:
        raise ModelError(f"{job.start} is another model than {info.name}, or has other classes.")
    model.net.load_state_dict(earlier.net.state_dict())
    model.info = replace(model.info, weights=earlier.info.weights)
    return model.train()


@dataclass(frozen=True, slots=True)
class LabeledViews:
    """The stored views of labeled photos that are not blended with another photo."""

    photo: np.ndarray
    """(M,) positions."""
    view: np.ndarray
    """(M,) the view of each."""
    label: np.ndarray
    """(M,), or (M, C) where a photo may have several."""
    photos: int
    """How many photos they are of; an epoch has one view of each."""
    seed: int

    @classmethod
    def of(cls, job: Job, soft: SoftLabels, store: PixelStore) -> "LabeledViews":
        labels = store.labels(soft.photos)
        learned = (shown_views(job, soft, labels)[:, 0] >= 0) & store.is_labeled(soft.photos)
        photo, view = np.nonzero(learned[:, None] & (soft.views["partner"] < 0))
        return cls(photo, view, labels[photo], len(np.unique(photo)), job.seed)

    def __len__(self) -> int:
        return self.photos

    def of_step(self, step: int, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Photos, views and labels (B,) of a step."""
        drawn = np.random.default_rng([self.seed, 7, step]).integers(len(self.photo), size=min(batch_size, self.photos))
        return self.photo[drawn], self.view[drawn], self.label[drawn]


def copy_job(first: Job, job: Job) -> None:
    """Write what training the job would write: `first` is finished, and is the same training."""
    for name in ("model.safetensors", "metrics.jsonl", "val_predictions.npz"):
        with replacing(job.folder / name) as temporary:
            shutil.copyfile(first.folder / name, temporary)
    described = read_json(first.folder / "model.json")
    described["trained"]["arm"] = job.arm
    write_json(job.folder / "model.json", described)
    facts = Stage(first.folder, first.folder.name).facts()
    del facts["inputs"], facts["files"]
    Stage(job.folder, job.folder.name).finish(**facts)


Pixels = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Photos (B,) by position and the view of each (B,) → (B, S, S, 3) uint8."""


def pixels_of(job: Job, run: Run, store: PixelStore, soft: SoftLabels, threads: int = 1) -> Pixels:
    """The stored views at the student's size: rendered before, or now, by so many threads."""
    size = describe(job.model, run.classes(), size=job.size).size
    rendered = views_path(run, size)
    if rendered.is_file():
        return RowReader(rendered, leading=2)
    return Renderer(store, soft.photos, soft.views, size, threads=threads)


def shown_views(job: Job, soft: SoftLabels, labels: np.ndarray) -> np.ndarray:
    """(N, V) which view of each photo is shown in each epoch, in turn; -1 for photos that it does not learn from."""
    if job.learns_from_all:
        return np.broadcast_to(np.arange(soft.views.shape[1]), soft.views.shape)
    chosen = draw_photos(labels, job.labeled_share, job.unlabeled_share, job.seed)
    return views_within(soft.views, soft.photos, chosen)


def _learned_photos(job: Job, store: PixelStore, shown: np.ndarray, photos: np.ndarray) -> np.ndarray:
    """(n,) positions of the photos that it learns from, among the `photos` of the soft labels."""
    # The twin has labels only. Where there are unlabeled photos, it gets more passes over the labeled ones instead.
    return np.flatnonzero((shown[:, 0] >= 0) & ((job.recipe.arm == "distilled") | store.is_labeled(photos)))


def photos_per_step(job: Job, store: PixelStore, soft: SoftLabels) -> int:
    """Photos in every batch of a training."""
    shown = shown_views(job, soft, store.labels(soft.photos))
    return min(job.recipe.batch_size, len(_learned_photos(job, store, shown, soft.photos)))


def batches(
    job: Job, run: Run, store: PixelStore, soft: SoftLabels, *, threads: int = 1, rows: slice = slice(None)
) -> Callable[[int], Batch]:
    """The batch of each step. The order of photos depends on seed and epoch only, so student and twin share it.

    Args:
        threads: that render views.
        rows: of each batch, to make these only.
    """
    recipe = job.recipe
    count = soft.views.shape[1]
    labels = store.labels(soft.photos)
    shown = shown_views(job, soft, labels)
    mine = _learned_photos(job, store, shown, soft.photos)
    per_epoch = max(1, len(mine) // recipe.batch_size)
    pixels = pixels_of(job, run, store, soft, threads)
    classes = soft.logits.shape[-1]
    mean, std = soft.feature_mean, soft.feature_std

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([job.seed, epoch]).permutation(mine)

    def batch(step: int) -> Batch:
        epoch, position = divmod(step, per_epoch)
        photo = order(epoch)[position * recipe.batch_size :][: recipe.batch_size][rows]
        view = shown[photo, epoch % count]
        features = np.empty((len(photo), 0), np.float32)
        if recipe.feature_weight:
            features = (soft.features(photo, view).astype(np.float32) - mean) / std
        targets = mixed_labels(store, soft.photos[photo], np.asarray(soft.views[photo, view])[:, None], classes)[:, 0]
        return Batch(
            torch.from_numpy(pixels(photo, view)),
            torch.from_numpy(targets.astype(np.float32)),
            torch.from_numpy(soft.logits(photo, view).astype(np.float32)),
            torch.from_numpy(features),
        )

    return batch


def loss_terms(
    batch: Batch,
    recipe: Recipe,
    trained: nn.ModuleDict,
    forward: Forward,
    shares: Shares | None = None,
    part: Part | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of the loss by name, (B,) each: labels, distillation, features; those with weight 0 are not
    computed.

    Args:
        batch: on the device.
        trained: `model`, and `projector` where there is a feature loss.
        forward: the model's `both`, perhaps compiled.
        shares: of the classes, unless `recipe.class_balance` is "none".
        part: of which the batch is, where other processes have the rest.
    """
    model = trained["model"]
    assert isinstance(model, Classifier)
    features, logits = forward(normalize(batch.pixels, model.info))
    logits = logits.float()
    terms: dict[str, Tensor] = {}
    if recipe.task_weight:
        if shares is None:
            task_loss = losses.task_loss_of(model.info.several_labels)
            task = task_loss(logits, batch.targets, label_smoothing=recipe.label_smoothing)
        else:
            task = balanced_task_loss(logits, batch.targets, recipe, shares.labels)
        terms["labels"] = recipe.task_weight * task
    if recipe.distill_weight:
        distill = functools.partial(_distillation, recipe, model.info.several_labels, shares)
        if part is not None and losses.find_method(recipe.method).needs_whole_batch:
            logits, teacher_logits, targets = map(part.whole, (logits, batch.teacher_logits, batch.targets))
            distilled = distill(logits, teacher_logits, targets)[part.rows]
        else:
            distilled = distill(logits, batch.teacher_logits, batch.targets)
        terms["distillation"] = recipe.distill_weight * distilled
    if recipe.feature_weight:
        projected = trained["projector"](features).float()
        terms["features"] = recipe.feature_weight * losses.feature_loss(projected, batch.teacher_features)
    return terms


def loss_of(batch: Batch, recipe: Recipe, trained: nn.ModuleDict) -> Tensor:
    """(B,) the weighted sum of the loss terms."""
    model = trained["model"]
    assert isinstance(model, Classifier)
    return _total(loss_terms(batch, recipe, trained, model.both))


def _total(terms: dict[str, Tensor]) -> Tensor:
    return functools.reduce(torch.add, terms.values())


def _distillation(
    recipe: Recipe,
    several_labels: bool,
    shares: Shares | None,
    logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
) -> Tensor:
    """(B,) the distillation loss that the recipe names, for the kind of labels that there are."""
    if several_labels:
        several = losses.find_method(recipe.method).several_labels
        assert several is not None
        return several(logits, teacher_logits, recipe.temperature)
    if shares is None:
        return _distill(recipe, logits, teacher_logits, targets)
    return _balanced_distill(recipe, logits, teacher_logits, targets, shares.teacher)


def _distill(recipe: Recipe, logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
    labels = torch.where(targets.sum(-1) > 0, targets.argmax(-1), -1)
    return losses.find_method(recipe.method).loss(logits, teacher_logits, labels, recipe.temperature)


def balanced_task_loss(logits: Tensor, targets: Tensor, recipe: Recipe, shares: Tensor) -> Tensor:
    """(B,) the task loss as `recipe.class_balance` says, for labels with these shares (C,) of the classes."""
    smoothing = recipe.label_smoothing
    if recipe.class_balance == "logit-adjusted":
        return losses.task_loss(losses.adjusted(logits, shares), targets, label_smoothing=smoothing)
    return losses.weights_of(targets, shares) * losses.task_loss(logits, targets, label_smoothing=smoothing)


def _balanced_distill(
    recipe: Recipe, logits: Tensor, teacher_logits: Tensor, targets: Tensor, shares: Tensor
) -> Tensor:
    """The same for distillation: the teacher's probabilities, at the shares that the classes have, are the targets."""
    if recipe.class_balance == "logit-adjusted":
        return _distill(recipe, losses.adjusted(logits, shares), teacher_logits, targets)
    weights = losses.weights_of(teacher_logits.softmax(-1), shares)
    return weights * _distill(recipe, logits, teacher_logits, targets)


class _Log:
    """`metrics.jsonl`, one line per measurement. A resumed training measures some steps twice: the later counts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self.losses: list[float] = []
        """Of the steps since the last line."""
        self._terms: dict[str, list[Tensor]] = {}

    def count(self, terms: dict[str, Tensor]) -> None:
        """Take the loss terms of a step. They stay on their device, so that no step waits for them."""
        for name, values in terms.items():
            self._terms.setdefault(name, []).append(values.detach().mean())

    def means(self, part: Part) -> dict[str, float | None]:
        """The mean loss since the last line, and that of each term; counting starts again."""
        found: dict[str, float | None] = {"loss": float(np.mean(self.losses)) if self.losses else None}
        for name, values in self._terms.items():
            found[f"loss/{name}"] = float(part.ranks.sum(torch.stack(values).mean() * part.share))
        self.losses.clear()
        self._terms.clear()
        return found

    def add(self, **values: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        lines = {json.loads(line)["step"]: line for line in self.path.read_text("utf-8").splitlines()}
        write_text(self.path, "".join(lines[step] + "\n" for step in sorted(lines)))
