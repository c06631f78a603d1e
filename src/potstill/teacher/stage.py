"""Stage 2: transfer learning. A dense head on stored features of a frozen backbone, and fine-tuning if asked for.

For every photo the backbone's features of the plain view and of a few random views are stored once
(`features.npy`); the head learns on them in seconds. With `teacher.folds`, further heads each learn without one fold
of the photos, to label that fold: a head is far too sure of photos that it learned by heart.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from potstill import metrics
from potstill.compute.device import Machine
from potstill.compute.fold_batchnorm import MIN_AGREEMENT, agreement
from potstill.compute.inference import plain_answers, store_features
from potstill.compute.onnx_backbone import advice, choose_precision, form_for, keep_exact
from potstill.compute.precision import Precision
from potstill.config.schema import TeacherConfig, ViewsConfig
from potstill.data.arrays import RowReader, RowWriter
from potstill.data.pixels import PixelStore
from potstill.data.views import Renderer, draw_views, mixed_labels, plain_views
from potstill.errors import TeacherError
from potstill.models.classifier import Classifier, build, describe, normalize, save
from potstill.monitoring.progress import Reporter
from potstill.run.files import check_space, write_json, write_text
from potstill.run.folder import Run
from potstill.run.layout import member_folders
from potstill.teacher.heads import apply_head, put_head
from potstill.teacher.probe import Probe
from potstill.training.loop import Schedule, fit

FINETUNE_BATCH = 32

AGREEMENT_PHOTOS = 256
"""Val photos on which faster arithmetic must agree with float32."""


def train_teacher(
    config: TeacherConfig, views: ViewsConfig, store: PixelStore, run: Run, machine: Machine, reporter: Reporter
) -> None:
    """Train every model of the teacher and write them to `2_teacher/`.

    Raises:
        WeightsError: starting weights cannot be had.
        TeacherError: a teacher is not clearly better than always saying the most common class.
    """
    stage = run.stage("2_teacher")
    kind = {name: value for name, value in asdict(views).items() if name != "count"}
    inputs = {"images": run.stage("1_images").digest(), "teacher": asdict(config), "views": kind}
    if not stage.begin(inputs):
        return
    facts = {}
    for name, folder in zip(config.model, member_folders(run.teacher, config.model), strict=True):
        folder.mkdir(exist_ok=True)
        if not (folder / "model.json").is_file():
            facts[name] = _train_member(name, folder, config, views, store, run.classes(), machine, reporter)
            write_json(folder / "facts.json", facts[name])
        facts[name] = json.loads((folder / "facts.json").read_text())
    stage.finish(models=list(config.model), **facts)


def _train_member(
    name: str,
    folder: Path,
    config: TeacherConfig,
    views: ViewsConfig,
    store: PixelStore,
    classes: list[str],
    machine: Machine,
    reporter: Reporter,
) -> dict[str, Any]:
    size = None if config.size == "auto" else config.size
    info = describe(name, classes, size=size, head_width=config.head_width, levels=config.levels)
    model = build(info, weights=config.weights, dropout=config.dropout).to(machine.torch_device()).eval()
    model.to(memory_format=torch.channels_last)
    train, val = store.rows("train"), store.rows("val")
    # In the order of the soft labels, which need not compute these features again then.
    photos = np.concatenate([train, store.rows("unlabeled")]) if config.unlabeled == "propagate" else train
    looks = len(photos) * (1 + config.probe_views)
    precision, speeds = choose_precision(model, folder, machine, looks=looks)
    speed = f"{precision.title}, about {speeds[precision.timed_as]:.0f} photos/s"
    reporter.info(f"Teacher {name}: {info.size} px, weights from {model.info.weights['source']}, {speed}")
    if hint := advice(machine, looks / speeds[precision.timed_as]):
        reporter.info(f"Hint: {hint}")
    drawn = draw_views(store, photos, config.probe_views, views)
    log: list[dict[str, Any]] = []

    def probe(precision: Precision) -> tuple[Probe, np.ndarray, bool]:
        form = form_for(model, precision, folder, threads=machine.cores)
        features = _store_features(form, folder, store, photos, drawn, precision, machine, reporter)
        val_features, _ = plain_answers(form, store, val, precision, threads=machine.cores)
        probe = Probe(model, folder, config, store, photos, features, drawn, log)
        head, val_logits, from_all = _learn_head(probe, val_features, store.labels(val), reporter)
        put_head(model, head)
        return probe, val_logits, from_all

    heads, val_logits, from_all = probe(precision)
    if not _agrees(model, val_logits, precision, store, val, machine, reporter):
        precision = keep_exact(folder, speeds, precision)
        (folder / "features.npy").unlink()
        heads, val_logits, from_all = probe(precision)
    accuracy = _require_learned(name, val_logits, store.labels(val), config)
    reporter.info(f"Teacher {name}: {accuracy:.1%} right on {len(val)} val photos (linear probe)")
    method = "probe"
    if config.train != "probe":
        probed = {n: t.clone() for n, t in model.state_dict().items()}
        _fine_tune(model, config, views, store, train, precision, folder, log, reporter)
        form = form_for(model, precision, folder, threads=machine.cores)
        _, tuned_logits = plain_answers(form, store, val, precision, threads=machine.cores)
        tuned = metrics.accuracy(tuned_logits, store.labels(val))
        reporter.info(f"Teacher {name}: {tuned:.1%} right on val (fine-tuned)")
        if config.train == "finetune" or tuned > accuracy:
            method, accuracy, val_logits = "finetune", tuned, tuned_logits
            if not _agrees(model, val_logits, precision, store, val, machine, reporter):
                precision = keep_exact(folder, speeds, precision)
        else:
            model.load_state_dict(probed)
    if method == "probe" and config.folds > 1:
        heads.learn_folds(reporter, from_all=from_all)
    temperature = metrics.fit_temperature(val_logits, store.labels(val))
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    facts = {"method": method, "val_accuracy": accuracy, "val_temperature": temperature, "photos_per_second": speeds}
    arithmetic = {"precision": precision.name, "runtime": precision.runtime, "batch": precision.batch}
    save(model, folder, role="teacher", method=method, temperature=temperature, **arithmetic)
    return facts


def _agrees(
    model: Classifier,
    quick: np.ndarray,
    precision: Precision,
    store: PixelStore,
    val: np.ndarray,
    machine: Machine,
    reporter: Reporter,
) -> bool:
    """Whether the teacher says the same in float32, on a sample of val. What the user has set is not questioned."""
    if precision.dtype == torch.float32 or machine.precision != "auto":
        return True
    sample = val[:AGREEMENT_PHOTOS]
    _, exact = plain_answers(model, store, sample, Precision(precision.device), threads=machine.cores)
    share = agreement(exact, quick[: len(sample)])
    told = f"{precision.name} agrees with float32 on {share:.2%} of {len(sample)} val photos"
    agrees = share >= MIN_AGREEMENT
    reporter.info(
        f"Teacher {model.info.name}: {told}" + ("" if agrees else f", less than {MIN_AGREEMENT:.1%}: float32 now")
    )
    return agrees


def _store_features(
    model: Classifier,
    folder: Path,
    store: PixelStore,
    photos: np.ndarray,
    drawn: np.ndarray,
    precision: Precision,
    machine: Machine,
    reporter: Reporter,
) -> RowReader:
    """`features.npy` (N, 1 + probe_views, D) float16: the plain view first."""
    path = folder / "features.npy"
    if not path.is_file():
        rows = np.concatenate([plain_views(store, photos)[:, None], drawn], axis=1)
        check_space(folder, 2.0 * rows.size * model.num_features, "The teacher's features")
        writer = RowWriter(path, (*rows.shape, model.num_features), np.float16)
        renderer = Renderer(store, photos, rows, model.info.size, threads=machine.cores)
        with reporter.bar("Teacher's features", len(photos), unit="photos") as update:
            store_features(model, renderer, writer, precision, update)
        writer.close()
    return RowReader(path, leading=2)


def _learn_head(
    probe: Probe, val_features: np.ndarray, val_labels: np.ndarray, reporter: Reporter
) -> tuple[nn.Module, np.ndarray, bool]:
    """The head, its logits on val, and whether it learned from the photos without labels, too: if val is surer then."""
    head = probe.learn("head", probe.known)
    logits = apply_head(head, val_features)
    if probe.known.all():
        return head, logits, False
    wider = probe.learn_from_all("head", probe.known, head)
    wider_logits = apply_head(wider, val_features)
    before, after = (
        metrics.nll(z / metrics.fit_temperature(z, val_labels), val_labels) for z in (logits, wider_logits)
    )
    reporter.info(
        f"Teacher {probe.model.info.name}: {int((~probe.known).sum()):,} photos without labels "
        f"{'help' if after < before else 'do not help'}, NLL on val {after:.3f} with them, {before:.3f} without"
    )
    return (wider, wider_logits, True) if after < before else (head, logits, False)


def _require_learned(name: str, logits: np.ndarray, labels: np.ndarray, config: TeacherConfig) -> float:
    """The val accuracy; TeacherError when it is hardly above always saying the most common class."""
    accuracy = metrics.accuracy(logits, labels)
    majority = float(np.bincount(labels).max() / len(labels))
    if accuracy < majority + config.min_gain * (1 - majority):
        raise TeacherError(
            f"The teacher {name} is right on {accuracy:.1%} of {len(labels)} val photos; always saying the most common "
            f"class is right on {majority:.1%}. It has nothing to teach.\n"
            "  Are the photos in the right class folders (potstill check)? Do the weights belong to the model "
            "(--teacher.weights)?\n"
            "  Would fine-tuning help (--teacher.train finetune)? teacher.min_gain sets this limit."
        )
    return accuracy


def _fine_tune(
    model: Classifier,
    config: TeacherConfig,
    views: ViewsConfig,
    store: PixelStore,
    train: np.ndarray,
    precision: Precision,
    folder: Path,
    log: list[dict[str, Any]],
    reporter: Reporter,
) -> None:
    """Train backbone and head on the photos, with the views that students will see.

    Norms keep the statistics they came with. The head has learned on features made with these; with those of a batch,
    of photos unlike ImageNet's, the first loss is a hundred times as large and what the head knew is lost.
    """
    drawn = draw_views(store, train, config.finetune_epochs, views)
    renderer = Renderer(store, train, drawn, model.info.size)
    per_epoch = max(1, len(train) // FINETUNE_BATCH)
    targets = mixed_labels(store, train, drawn, len(model.info.classes))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        epoch = step // per_epoch
        order = np.random.default_rng([3, epoch]).permutation(len(train))
        photo = order[step % per_epoch * FINETUNE_BATCH :][:FINETUNE_BATCH]
        view = np.full(len(photo), epoch)
        return torch.from_numpy(renderer(photo, view)), torch.from_numpy(targets[photo, view])

    def loss(data: tuple[Tensor, Tensor]) -> Tensor:
        pixels, target = (part.to(precision.device) for part in data)
        return nn.functional.cross_entropy(model(normalize(pixels, model.info)).float(), target, reduction="none")

    steps = config.finetune_epochs * per_epoch
    with reporter.bar("Fine-tuning the teacher", steps, unit="steps") as update:
        fit(
            nn.ModuleDict({"model": model}),
            batch,
            loss,
            Schedule(
                steps=steps,
                lr=config.finetune_lr,
                weight_decay=config.weight_decay,
                lr_factors={f"model.net.{model._head_name}": 10.0},
            ),
            precision,
            checkpoint=folder / "finetune.checkpoint",
            frozen=[module for module in model.modules() if isinstance(module, nn.BatchNorm2d)],
            after_step=_logged(log, "finetune", update),
        )
    (folder / "finetune.checkpoint").unlink(missing_ok=True)


def _logged(log: list[dict[str, Any]], phase: str, update: Callable[[int], None]) -> Callable[[int, float], None]:
    def after_step(step: int, loss: float) -> None:
        log.append({"phase": phase, "step": step, "loss": round(loss, 5)})
        update(step)

    return after_step
