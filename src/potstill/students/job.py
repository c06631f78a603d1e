"""One training of one student: distilled or alone, one seed.

Every term of the loss is logged by name in `metrics.jsonl`: `loss/distillation`, `loss/features` and `loss/labels`,
weighted, so that they sum to `loss`.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill.compute.inference import BATCH, leaves_cores_free, outputs, plain_outputs
from potstill.compute.precision import Precision
from potstill.data.arrays import save_arrays
from potstill.data.pixels import PixelStore
from potstill.data.soft_labels import SoftLabels
from potstill.data.views import plain_pixels
from potstill.errors import ModelError, PotstillError
from potstill.metrics import multilabel
from potstill.metrics.choice import Metric
from potstill.metrics.classification import Classification
from potstill.models.classifier import Classifier, ModelInfo, build, describe, load, normalize, save
from potstill.run.files import read_json, replacing, write_json, write_text
from potstill.run.folder import Run, Stage
from potstill.run.trained import Trained
from potstill.students.batches import Batch, LabeledViews, batches, learned_from, photos_per_step, pixels_of
from potstill.students.loss import Forward, Shares, balanced_task_loss, loss_terms, total
from potstill.students.operating_point import operating_point_of
from potstill.students.recipe import Job
from potstill.training import losses
from potstill.training.loop import Callbacks, Schedule, Task, fit
from potstill.training.ranks import ALONE, Part, Ranks

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
            return total(terms)

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
