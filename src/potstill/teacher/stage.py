"""Stage 2: transfer learning. A dense head on stored features of a frozen backbone, and fine-tuning where it pays.

For every photo the backbone's features of the plain view and of a few random views are stored once
(`features.npy`); the head is trained on them in seconds. With `teacher.folds`, further heads are each trained without
one fold of the photos, to label that fold: a head is far too confident on photos that it was trained on.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from potstill import metrics
from potstill.compute.backends import (
    BACKENDS,
    fall_back_to_float32,
    inference_model,
    install_hint,
    measure_inference,
    title_of,
)
from potstill.compute.fold_batchnorm import MIN_AGREEMENT, agreement
from potstill.compute.inference import photos_per_batch, plain_outputs, store_features
from potstill.compute.measured import Measured
from potstill.compute.precision import Precision
from potstill.config.schema import TeacherConfig
from potstill.context import Context
from potstill.data.arrays import RowReader, RowWriter, open_arrays, save_array
from potstill.data.label_errors import FILE as OUT_OF_FOLD
from potstill.data.label_errors import NOISY, label_noise
from potstill.data.pixels import PixelStore
from potstill.data.splits import Split
from potstill.data.unlike import used_rows
from potstill.data.views import Renderer, draw_views, plain_views
from potstill.metrics.choice import Metric, adjustment, class_balances
from potstill.metrics.classification import Classification
from potstill.models.classifier import Classifier, build, describe, save
from potstill.run.files import check_space, is_sealed, read_json, remove_sealed, write_json, write_text
from potstill.run.layout import member_folders, networks_of, unlike_path
from potstill.run.trained import Trained
from potstill.shards import write_in_shards
from potstill.teacher.external import ExternalTeacher
from potstill.teacher.finetune import FineTuned, FineTuning, remove_tuned
from potstill.teacher.heads import apply_head, put_head
from potstill.teacher.learned import require_learned, score_on_val
from potstill.teacher.plan import TeacherPlan
from potstill.teacher.probe import FoldHeads, Probe, save_out_of_fold
from potstill.teacher.unlike import leave_out_unlike
from potstill.wording import counted

FEW_ERRORS = 0.03
"""A probe that is wrong on no more of the val photos is not the limit: no student comes near it."""

CLEARLY = 0.97
"""Share of the probe's val NLL that the first fine-tuned network, alone or together with the probe, must stay below for
the others to be trained."""

MORE_L2 = 5, 25
"""Factors of `head_l2` that are tried where many labels are wrong: a head that fits them is too free."""

TITLES = {"probe": "linear probe", "finetune": "fine-tuned", "probe+finetune": "both together"}

AGREEMENT_PHOTOS = 256
"""Val photos on which faster arithmetic must agree with float32."""


def train_teacher(plan: TeacherPlan, context: Context) -> None:
    """Train every model of the teacher and write them to `2_teacher/`; a teacher that is a file is taken as it is.

    Raises:
        WeightsError: starting weights are not available.
        TeacherError: a teacher knows hardly more of the classes than how frequent they are.
    """
    if plan.external is not None:
        _take(plan.external, plan.config, context)
        return
    run, config = context.run, plan.config
    stage = run.stage("2_teacher")
    kind = {name: value for name, value in asdict(plan.views).items() if name != "count"}
    inputs = {"images": run.stage("1_images").digest(), "teacher": asdict(config), "views": kind}
    if balances := _chosen_by(plan):
        inputs |= {"metric": plan.metric, "class_balance": balances}
    if not stage.begin(inputs):
        return
    facts = {}
    folders = member_folders(run.teacher, config.model)
    for name, size, folder in zip(config.model, plan.sizes, folders, strict=True):
        folder.mkdir(exist_ok=True)
        if not (folder / "facts.json").is_file() or not networks_of(folder):
            member = _Member.start(name, size, folder, plan, context)
            write_json(folder / "facts.json", member.train())
        facts[name] = read_json(folder / "facts.json")
    passing = [backend.file for backend in BACKENDS.values()]  # removed when the soft labels are stored
    stage.finish(passing=passing, models=list(config.model), **facts)


def _take(teacher: ExternalTeacher, config: TeacherConfig, context: Context) -> None:
    """Stage 2 of a teacher that is a file: store it, and measure it on val."""
    run, stage = context.run, context.run.stage("2_teacher")
    inputs = {"images": run.stage("1_images").digest(), "external": teacher.identity(), "min_gain": config.min_gain}
    if not stage.begin(inputs):
        return
    for line in teacher.lines():
        context.reporter.info(f"Teacher {line}")
    store = PixelStore(run.images)
    labels = store.labels(store.rows("val"))
    logits, facts = teacher.take(context)
    kind = Classification.of(store.several_labels)
    context.reporter.info(f"Teacher {teacher.name}: {score_on_val(logits, labels, kind)}")
    facts["val_accuracy"] = require_learned(teacher.name, logits, labels, kind, config)
    facts["val_temperature"] = kind.fit_temperature(logits, labels)
    stage.finish(models=[teacher.name], **{teacher.name: facts})


def _chosen_by(plan: TeacherPlan) -> list[str]:
    """How the teacher may make up for classes of unequal size; empty where it is trained and chosen without regard to
    them, as all were before there was a choice."""
    balances = class_balances(plan.metric, plan.class_balance)
    return [] if plan.metric == "accuracy" and balances == ("none",) else list(balances)


@dataclass(frozen=True, slots=True)
class _Checked:
    """A probe whose labels were checked."""

    probe: Probe
    folds: FoldHeads | None = None
    """Its heads of labels alone, each trained without a fold, if that was needed."""
    head: nn.Module | None = None
    """Its head of labels alone, if that was needed."""


@dataclass(frozen=True, slots=True)
class _Probed:
    """A trained probe."""

    probe: Probe
    folds: FoldHeads | None
    """As in `_Checked`; None where they are not those that label, since all photos took part."""
    val_logits: np.ndarray
    from_all: bool
    """Whether the photos without labels took part."""
    shares: np.ndarray
    """(C,) of the classes in what it learned from, and fine-tuned networks after it."""


@dataclass(frozen=True)
class _Member:
    """One of the teacher's models, while it is trained."""

    name: str
    model: Classifier
    folder: Path
    plan: TeacherPlan
    context: Context
    store: PixelStore
    log: list[dict[str, Any]] = field(default_factory=list)
    """Lines of metrics.jsonl."""

    @classmethod
    def start(cls, name: str, size: int, folder: Path, plan: TeacherPlan, context: Context) -> "_Member":
        """Build the model from its starting weights."""
        config, store = plan.config, PixelStore(context.run.images)
        info = describe(
            name,
            context.run.classes(),
            size=size,
            head_width=config.head_width,
            feature_stages=config.feature_stages,
            several_labels=store.several_labels,
        )
        model = build(info, weights=config.weights, dropout=config.dropout).to(context.machine.device).eval()
        model.to(memory_format=torch.channels_last)
        return cls(name, model, folder, plan, context, store)

    @property
    def config(self) -> TeacherConfig:
        return self.plan.config

    @cached_property
    def photos(self) -> np.ndarray:
        """(N,) rows of the store: train, then those without labels where they take part. In the order of the soft
        labels, which then reuse the features that are stored here. Known once the unlike photos are left out."""
        used = used_rows(self.context.run, self.store)
        return used if self._propagates else self.store.rows("train")

    @property
    def _propagates(self) -> bool:
        """Whether photos without labels take part. The graph passes on shares of one label, so not with several."""
        return self.config.unlabeled == "propagate" and not self.store.several_labels

    @property
    def kind(self) -> Classification:
        return Classification.of(self.store.several_labels)

    @property
    def val_labels(self) -> np.ndarray:
        return self.store.labels(self.store.rows("val"))

    @cached_property
    def metric(self) -> Metric:
        """What is chosen by on val."""
        return Metric.of(self.plan.metric, self.model.info.classes)

    @cached_property
    def label_shares(self) -> np.ndarray:
        """(C,) of the classes in the labels, above 0."""
        targets = self.store.targets(self.store.rows("train"), len(self.model.info.classes))
        counts = targets.sum(0, dtype=np.float64)
        return np.maximum(counts, 0.5) / np.maximum(counts, 0.5).sum()

    def _adjusted(self, logits: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Logits (n, C) on val as the teacher would predict classes from them, the best of the ways that there are.

        Args:
            shares: (C,) of the classes in what it learned from.
        """
        tried = {"none": logits, "logit-adjusted": logits + adjustment(shares)}
        balances = class_balances(self.plan.metric, self.plan.class_balance)
        ways = list(dict.fromkeys("none" if balance == "none" else "logit-adjusted" for balance in balances))
        return tried[min(ways, key=lambda way: self.metric.loss(tried[way], self.val_labels))]

    def _loss(self, logits: np.ndarray, shares: np.ndarray) -> float:
        """By what ways of training are chosen; arguments as for `_adjusted`."""
        return self.metric.loss(self._adjusted(logits, shares), self.val_labels)

    def train(self) -> dict[str, Any]:
        """Train, keep the better of probe and fine-tuning, and save. Returns facts for the stage."""
        measured = self._measure()
        self._leave_out_unlike(measured)
        probed = self._probe(measured)
        if not self._agrees(probed.val_logits, measured):
            measured = fall_back_to_float32(self.folder, measured)
            remove_sealed(self.folder / "features.npy")
            probed = self._probe(measured)
        self._report(f"{self._on_val(probed.val_logits)} (linear probe)")
        tuned = self._fine_tune(probed, measured)
        method, val_logits = self._choose(probed, tuned)
        accuracy = require_learned(self.name, val_logits, self.val_labels, self.kind, self.config)
        if "probe" in method:
            self._save_probe(probed, measured)
        if tuned and "finetune" in method:
            self._save_out_of_fold(tuned)
        else:
            remove_tuned(self.folder)
        write_text(self.folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.log))
        facts = {"class_shares": probed.shares.tolist()} if _chosen_by(self.plan) else {}
        return {
            **facts,
            "method": method,
            "val_accuracy": accuracy,
            "val_temperature": self.kind.fit_temperature(val_logits, self.val_labels),
            "photos_per_second": measured.photos_per_second,
        }

    def _measure(self) -> Measured:
        """How this model is run here, by timing."""
        self.context.reporter.begin("measure teacher", f"Teacher: timing {self.name} to choose how to run it here")
        splits: tuple[Split, ...] = ("train", "unlabeled") if self._propagates else ("train",)
        num_views = len(self.store.rows(*splits)) * self.plan.stored_views
        measured = measure_inference(self.model, self.folder, self.context.machine, num_views=num_views)
        title = title_of(measured.precision(self.context.machine.device))
        self._report(
            f"{self.model.info.size} px, weights from {self.model.info.weights['source']}, {title}, "
            f"about {measured.speed:.0f} photos/s"
        )
        if hint := install_hint(self.context.machine, num_views / measured.speed):
            self.context.reporter.info(f"Hint: {hint}")
        return measured

    def _leave_out_unlike(self, measured: Measured) -> None:
        """Decide, by the first of the teacher's models, which photos without labels are used by all."""
        decided = is_sealed(unlike_path(self.context.run))
        if self.config.unlike == "leave_out" and not decided and len(self.store.rows("unlabeled")):
            precision = measured.precision(self.context.machine.device)
            backbone = inference_model(self.model, precision, self.folder, threads=self.context.machine.cores)
            leave_out_unlike(backbone, self.folder, precision, self.context)

    def _probe(self, measured: Measured) -> _Probed:
        """Store features, train the head on them, and put it on the model."""
        precision, threads = measured.precision(self.context.machine.device), self.context.machine.cores
        drawn = draw_views(self.store, self.photos, self.config.probe_views, self.plan.views)
        backbone = inference_model(self.model, precision, self.folder, threads=threads)
        features = self._stored_features(backbone, drawn, precision)
        val_features, _ = plain_outputs(backbone, self.store, self.store.rows("val"), precision, threads=threads)
        probe = Probe(
            model=self.model,
            folder=self.folder,
            config=self.config,
            store=self.store,
            photos=self.photos,
            features=features,
            views=drawn,
            targets=self.store.targets(self.photos, len(self.model.info.classes)),
            suspect=np.zeros(len(self.photos), bool),
            log=self.log,
        )
        checked = self._checked(probe, val_features)
        head, val_logits, from_all = self._train_head(checked, val_features)
        put_head(self.model, head)
        shares = checked.probe.shares(head) if from_all else self.label_shares
        return _Probed(checked.probe, None if from_all else checked.folds, val_logits, from_all, shares)

    def _checked(self, probe: Probe, val_features: np.ndarray) -> _Checked:
        """The probe or, where many labels seem to be wrong, one with corrected labels, if that lowers val's loss."""
        if self.store.several_labels or not self.plan.checks_labels(int(probe.known.sum())):
            return _Checked(probe)
        reporter, given = self.context.reporter, probe.labels[probe.known]
        folds = probe.learn_folds(reporter)
        noise = label_noise(metrics.softmax(folds.logits), given)
        if noise < NOISY:
            return _Checked(probe, folds)
        tried = [(probe, folds)]
        for factor in MORE_L2:
            regular = replace(probe, config=replace(self.config, head_l2=factor * self.config.head_l2))
            tried.append((regular, regular.learn_folds(reporter)))
        best, found = min(tried, key=lambda pair: self.metric.loss(pair[1].logits, given))
        corrected = best.corrected(found.logits)
        heads = [each.learn("head", each.known) for each in (probe, corrected)]
        before, after = (self._loss(apply_head(head, val_features), self.label_shares) for head in heads)
        helps = after < before
        self._report(
            f"About {noise:.0%} of the labels seem to be wrong. Replacing "
            f"{counted(int(corrected.suspect.sum()), 'label')} by out-of-fold predictions "
            f"{'helps' if helps else 'does not help'}: val {self.metric.loss_title} {after:.3f} with them, "
            f"{before:.3f} without"
        )
        return _Checked(corrected, head=heads[1]) if helps else _Checked(probe, folds, heads[0])

    def _stored_features(self, backbone: Classifier, drawn: np.ndarray, precision: Precision) -> RowReader:
        """`features.npy` (N, 1 + probe_views, D) float16: the plain view first."""
        path = self.folder / "features.npy"
        if not is_sealed(path):
            views = np.concatenate([plain_views(self.store, self.photos)[:, None], drawn], axis=1)
            width = self.model.num_features
            check_space(self.folder, 2.0 * views.size * width, "The teacher's features")
            writer = RowWriter(path, (*views.shape, width), np.float16)
            label = f"Teacher: what {self.name} sees in every photo"
            if self.context.engine.has_one_device:
                threads = self.context.machine.cores
                renderer = Renderer(self.store, self.photos, views, self.model.info.size, threads=threads)
                with self.context.reporter.bar(label, len(self.photos), unit="photo", part="features") as update:
                    store_features(backbone, renderer, writer, precision, update)
                writer.close()
            else:
                self._store_in_shards(writer, views, precision, label)
        return RowReader(path, leading=2)

    def _store_in_shards(self, writer: RowWriter, views: np.ndarray, precision: Precision, label: str) -> None:
        """The same by the tasks of the engine, which find the model and the views in a folder of their own."""
        folder = self.folder / "features.work"
        save(self.model, folder)
        for name, array in (("photos", self.photos), ("views", views)):
            save_array(folder / f"{name}.npy", array)
        values = {
            "folder": str(folder),
            "dtype": precision.name,
            "runtime": precision.runtime,
            "batch": precision.batch,
        }
        batch = photos_per_batch(precision, views.shape[1])
        write_in_shards(
            writer, "potstill.teacher.worker", values, self.context, batch=batch, label=label, part="features"
        )
        shutil.rmtree(folder)

    def _train_head(self, checked: _Checked, val_features: np.ndarray) -> tuple[nn.Module, np.ndarray, bool]:
        """The head, its logits on val, and whether photos without labels took part: where they lower val's loss."""
        self.context.reporter.begin("head", f"Teacher: training a head for {self.name} on your classes")
        probe = checked.probe
        head = checked.head or probe.learn("head", probe.known)
        logits = apply_head(head, val_features)
        if probe.known.all():
            return head, logits, False
        wider = probe.learn_from_all("head", probe.known, head)
        wider_logits = apply_head(wider, val_features)
        before, after = self._loss(logits, self.label_shares), self._loss(wider_logits, probe.shares(wider))
        helps = after < before
        self._report(
            f"Learning from {counted(int((~probe.known).sum()), 'photo')} without labels "
            f"{'helps' if helps else 'does not help'}: "
            f"val {self.metric.loss_title} {after:.3f} with them, {before:.3f} without"
        )
        return (wider, wider_logits, True) if helps else (head, logits, False)

    def _agrees(self, fast_logits: np.ndarray, measured: Measured) -> bool:
        """Whether float32 gives the same classes on a sample of val. An arithmetic that the user set is not checked."""
        machine = self.context.machine
        precision = measured.precision(machine.device)
        if precision.dtype == torch.float32 or machine.requested.precision != "auto":
            return True
        sample = self.store.rows("val")[:AGREEMENT_PHOTOS]
        exact_precision = Precision(precision.device)
        _, exact = plain_outputs(self.model, self.store, sample, exact_precision, threads=machine.cores)
        share = agreement(exact, fast_logits[: len(sample)], several_labels=self.store.several_labels)
        agrees = share >= MIN_AGREEMENT
        self._report(
            f"{precision.name} agrees with float32 on {share:.2%} of {counted(len(sample), 'val photo')}"
            + ("" if agrees else f", less than {MIN_AGREEMENT:.1%}: falling back to float32")
        )
        return agrees

    def _fine_tune(self, probed: _Probed, measured: Measured) -> FineTuned | None:
        """Fine-tuned networks; None where there is no need for them, or the first one shows that they do not help."""
        config, labels, probe_logits = self.config, self.val_labels, probed.val_logits
        right = self.metric.value(self._adjusted(probe_logits, probed.shares), labels)
        # Where train has wrong labels, val may have as many, and they are no errors of the probe.
        wrong = label_noise(metrics.softmax(probe_logits), labels) if probed.probe.suspect.any() else 0.0
        few_errors = right >= 1 - FEW_ERRORS - wrong
        if config.train == "probe" or (config.train == "auto" and few_errors):
            return None
        to_beat = np.inf if config.train == "finetune" else CLEARLY * self._loss(probe_logits, probed.shares)
        positions = self._tuned_on(probed)
        tuning = FineTuning(
            name=self.name,
            size=self.plan.finetune_size(self.model.info.size),
            folder=self.folder,
            plan=self.plan,
            context=self.context,
            store=self.store,
            photos=self.photos[positions],
            beliefs=probed.probe.beliefs(self.model.head)[positions],
            measured=measured,
            log=self.log,
        )

        def worthwhile(val_logits: np.ndarray) -> bool:
            self._report(f"{self._on_val(val_logits)} (fine-tuned, first network)")
            both = self.kind.mean_logits([probe_logits, val_logits])
            return min(self._loss(logits, probed.shares) for logits in (val_logits, both)) < to_beat

        tuned = tuning.run(worthwhile)
        if tuned is None:
            self._report("fine-tuning does not help; the linear probe is used")
        return tuned

    def _tuned_on(self, probed: _Probed) -> np.ndarray:
        """(n,) positions of the photos to fine-tune on: those with labels and, where the probe learned from the others,
        as many of these as the plan allows."""
        known = int(probed.probe.known.sum())
        others = len(self.photos) - known if probed.from_all else 0
        return probed.probe.sample(known + self.plan.finetune_unlabeled(known, others))

    def _choose(self, probed: _Probed, tuned: FineTuned | None) -> tuple[str, np.ndarray]:
        """The way of training with the lowest loss on val, and its val logits. The mean of both is a third candidate:
        probe and fine-tuned networks err on different photos."""
        if tuned is None:
            return "probe", probed.val_logits
        both = self.kind.mean_logits([probed.val_logits, tuned.val_logits])
        ways = {"finetune": tuned.val_logits}
        if self.config.train == "auto":
            ways |= {"probe+finetune": both, "probe": probed.val_logits}
        for way, logits in ways.items():
            self._report(f"{self._on_val(logits)} ({TITLES[way]})")
        best = min(ways, key=lambda way: self._loss(ways[way], probed.shares))
        return best, ways[best]

    def _on_val(self, logits: np.ndarray) -> str:
        return score_on_val(logits, self.val_labels, self.kind)

    def _save_out_of_fold(self, tuned: FineTuned) -> None:
        """What is predicted for the train photos out of fold, together with the probe where it takes part, too."""
        if not tuned.out_of_fold or self.store.several_labels:
            return
        rows, logits, path = tuned.out_of_fold["row"], tuned.out_of_fold["logits"], self.folder / OUT_OF_FOLD
        if path.is_file():
            with open_arrays(path) as stored:
                assert np.array_equal(stored["row"], rows)
                logits = metrics.mean_probability_logits([stored["logits"], logits])
        save_out_of_fold(self.folder, rows, logits, self.store.labels(rows))

    def _save_probe(self, probed: _Probed, measured: Measured) -> None:
        if self.config.folds > 1:
            probe, reporter = probed.probe, self.context.reporter
            probe.save_folds(probed.folds or probe.learn_folds(reporter, from_all=probed.from_all), reporter)
        facts = Trained(
            role="teacher",
            method="probe",
            temperature=self.kind.fit_temperature(probed.val_logits, self.val_labels),
            precision=measured.dtype,
            gray_levels=self.context.run.gray_levels(),
            runtime=measured.runtime,
            batch=measured.batch,
        )
        save(self.model, self.folder, facts)

    def _report(self, text: str) -> None:
        self.context.reporter.info(f"Teacher {self.name}: {text}")
