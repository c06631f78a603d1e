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
from safetensors.torch import save_file
from torch import Tensor, nn

from potstill import metrics
from potstill.arrays import RowReader, RowWriter
from potstill.config import TeacherConfig, ViewsConfig
from potstill.errors import TeacherError
from potstill.fused import MIN_AGREEMENT, agreement, fused
from potstill.heads import apply_head, fit_head, fold_of, put_head
from potstill.images.pixels import PixelStore
from potstill.inference import plain_answers, store_features
from potstill.machine import Machine, fastest_precision
from potstill.models import Classifier, build, describe, normalise, save
from potstill.progress import Reporter
from potstill.run import Run, read_json, replacing, write_json, write_text
from potstill.stored import member_folders
from potstill.training import Precision, Schedule, fit
from potstill.views import Renderer, draw_views, mixed_labels, one_hot, plain_views

FINETUNE_BATCH = 32

AGREEMENT_PHOTOS = 256
"""Val photos on which faster arithmetic must agree with float32."""


def train_teacher(
    config: TeacherConfig, views: ViewsConfig, store: PixelStore, run: Run, machine: Machine, tell: Reporter
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
            facts[name] = _train_member(name, folder, config, views, store, run.classes(), machine, tell)
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
    tell: Reporter,
) -> dict[str, Any]:
    info = describe(name, classes, size=None if config.size == "auto" else config.size, head_width=config.head_width)
    model = build(info, weights=config.weights, dropout=config.dropout).to(machine.torch_device()).eval()
    model.to(memory_format=torch.channels_last)
    precision, speeds = _precision(model, folder, machine)
    tell.say(
        f"Teacher {name}: {info.size} px, weights from {model.info.weights['source']}, {_speed(precision, speeds)}"
    )
    train, val = store.rows("train"), store.rows("val")
    targets = _targets(views, config, store, train, len(classes))
    log: list[dict[str, Any]] = []

    def probe(precision: Precision) -> tuple[RowReader, np.ndarray]:
        form = fused(model, precision)
        features = _store_features(form, folder, config, views, store, train, precision, machine, tell)
        val_features, _ = plain_answers(form, store, val, precision, threads=machine.cores)
        head = fit_head(model, features, targets, np.ones(len(train), bool), config, folder / "head", log)
        put_head(model, head)
        return features, apply_head(model.head, val_features)

    features, val_logits = probe(precision)
    if not _agrees(model, val_logits, precision, store, val, machine, tell):
        precision = Precision(precision.device)
        (folder / "features.npy").unlink()
        write_json(folder / "precision.json", {"dtype": "float32", "photos_per_second": speeds})
        features, val_logits = probe(precision)
    accuracy = _require_learned(name, val_logits, store.labels(val), config)
    tell.say(f"Teacher {name}: {accuracy:.1%} right on {len(val)} val photos (linear probe)")
    method = "probe"
    if config.train != "probe":
        probed = {n: t.clone() for n, t in model.state_dict().items()}
        _fine_tune(model, config, views, store, train, precision, folder, log, tell)
        _, tuned_logits = plain_answers(fused(model, precision), store, val, precision, threads=machine.cores)
        tuned = metrics.accuracy(tuned_logits, store.labels(val))
        tell.say(f"Teacher {name}: {tuned:.1%} right on val (fine-tuned)")
        if config.train == "finetune" or tuned > accuracy:
            method, accuracy, val_logits = "finetune", tuned, tuned_logits
            if not _agrees(model, val_logits, precision, store, val, machine, tell):
                precision = Precision(precision.device)
        else:
            model.load_state_dict(probed)
    if method == "probe" and config.folds > 1:
        _fold_heads(model, features, targets, store, train, config, folder, log, tell)
    temperature = metrics.fit_temperature(val_logits, store.labels(val))
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    facts = {"method": method, "val_accuracy": accuracy, "val_temperature": temperature, "photos_per_second": speeds}
    save(model, folder, role="teacher", method=method, temperature=temperature, precision=str(precision.dtype)[6:])
    return facts


def _precision(model: Classifier, folder: Path, machine: Machine) -> tuple[Precision, dict[str, float]]:
    """The arithmetic to answer in, chosen by timing once, and the photos per second of each."""
    path = folder / "precision.json"
    if not path.is_file():
        form = fused(model, Precision(machine.torch_device()))
        precision, speeds = fastest_precision(form, model.info.size, machine, training=False)
        write_json(path, {"dtype": str(precision.dtype)[6:], "photos_per_second": speeds})
    facts = read_json(path)
    return Precision(machine.torch_device(), getattr(torch, facts["dtype"])), facts["photos_per_second"]


def _agrees(
    model: Classifier,
    quick: np.ndarray,
    precision: Precision,
    store: PixelStore,
    val: np.ndarray,
    machine: Machine,
    tell: Reporter,
) -> bool:
    """Whether the teacher says the same in float32, on a sample of val. What the user has set is not questioned."""
    if precision.dtype == torch.float32 or machine.precision != "auto":
        return True
    sample = val[:AGREEMENT_PHOTOS]
    _, exact = plain_answers(model, store, sample, Precision(precision.device), threads=machine.cores)
    share = agreement(exact, quick[: len(sample)])
    told = f"{str(precision.dtype)[6:]} agrees with float32 on {share:.2%} of {len(sample)} val photos"
    agrees = share >= MIN_AGREEMENT
    tell.say(f"Teacher {model.info.name}: {told}" + ("" if agrees else f", less than {MIN_AGREEMENT:.1%}: float32 now"))
    return agrees


def _store_features(
    model: Classifier,
    folder: Path,
    config: TeacherConfig,
    views: ViewsConfig,
    store: PixelStore,
    train: np.ndarray,
    precision: Precision,
    machine: Machine,
    tell: Reporter,
) -> RowReader:
    """`features.npy` (N, 1 + probe_views, D) float16: the plain view first."""
    path = folder / "features.npy"
    if not path.is_file():
        plain = plain_views(store, train)[:, None]
        rows = np.concatenate([plain, draw_views(store, train, config.probe_views, views)], axis=1)
        writer = RowWriter(path, (*rows.shape, model.num_features), np.float16)
        renderer = Renderer(store, train, rows, model.info.size, threads=machine.cores)
        with tell.bar("Teacher's features", len(train), unit="photos") as update:
            store_features(model, renderer, writer, precision, update)
        writer.close()
    return RowReader(path, leading=2)


def _targets(
    views: ViewsConfig, config: TeacherConfig, store: PixelStore, train: np.ndarray, classes: int
) -> np.ndarray:
    """(N, 1 + probe_views, C) float32: one-hot labels, blended as the view is."""
    drawn = draw_views(store, train, config.probe_views, views)
    return np.concatenate(
        [one_hot(store.labels(train), classes)[:, None], mixed_labels(store, train, drawn, classes)], 1
    )


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


def _fold_heads(
    model: Classifier,
    features: RowReader,
    targets: np.ndarray,
    store: PixelStore,
    train: np.ndarray,
    config: TeacherConfig,
    folder: Path,
    log: list[dict[str, Any]],
    tell: Reporter,
) -> None:
    """`fold_heads.safetensors` (`FOLD.LAYER.weight`) and `out_of_fold.npz`: what they say of the plain photos."""
    folds = fold_of(store, train, config.folds)
    plain = np.concatenate([features(np.array([n]), np.array([0])) for n in range(len(train))])
    logits = np.zeros((len(train), targets.shape[-1]), np.float32)
    tensors: dict[str, Tensor] = {}
    with tell.bar("Out-of-fold heads", config.folds, unit="folds") as update:
        for fold in range(config.folds):
            head = fit_head(model, features, targets, folds != fold, config, folder / f"fold-{fold}", log)
            logits[folds == fold] = apply_head(head, plain[folds == fold])
            linear = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
            tensors |= {f"{fold}.{n}.{k}": t for n, layer in enumerate(linear) for k, t in layer.state_dict().items()}
            update(fold + 1)
    with replacing(folder / "fold_heads.safetensors") as temporary:
        save_file(tensors, temporary)
    labels = store.labels(train)
    with replacing(folder / "out_of_fold.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, row=train, logits=logits, labels=labels)
    tell.say(f"Teacher, out of fold: {metrics.accuracy(logits, labels):.1%} right on {len(train)} train photos")


def _fine_tune(
    model: Classifier,
    config: TeacherConfig,
    views: ViewsConfig,
    store: PixelStore,
    train: np.ndarray,
    precision: Precision,
    folder: Path,
    log: list[dict[str, Any]],
    tell: Reporter,
) -> None:
    """Train backbone and head on the photos, with the views that students will see."""
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
        return nn.functional.cross_entropy(model(normalise(pixels, model.info)).float(), target, reduction="none")

    steps = config.finetune_epochs * per_epoch
    with tell.bar("Fine-tuning the teacher", steps, unit="steps") as update:
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
            after_step=_logged(log, "finetune", update),
        )
    (folder / "finetune.checkpoint").unlink(missing_ok=True)


def _logged(log: list[dict[str, Any]], phase: str, update: Callable[[int], None]) -> Callable[[int, float], None]:
    def after_step(step: int, loss: float) -> None:
        log.append({"phase": phase, "step": step, "loss": round(loss, 5)})
        update(step)

    return after_step


def _speed(precision: Precision, speeds: dict[str, float]) -> str:
    name = str(precision.dtype)[6:]
    return f"{name}, about {speeds[name]:.0f} photos/s"
