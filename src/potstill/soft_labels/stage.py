"""Stage 3: the teacher's outputs are precomputed. Its logits and features for every view of every photo, stored.

    views.npy        (N, V) of VIEW: what each view is
    logits.npy       (N, V, C) float16, raw: temperature belongs to the loss
    features.npy     (N, V, D) float16, pooled: the backbone's last, whatever else the head sees
    photos.npy       (N,) rows of the pixel store: train, then unlabeled, but for those that the teacher left out
    val_logits.npy   (n, C) float32 of the plain val photos
    statistics.npz   feature mean and std (D,), for the feature loss
    meta.json        how many networks made them, how confident they are, and how many labels seem to be wrong

Photos that the teacher learned from are labeled by the head, or the fine-tuned network, that was trained without them;
others by the mean of all. With several teachers the logits are the logarithms of their mean probabilities, and the
features stand side by side.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from potstill.compute.backends import inference_model, remove_files
from potstill.compute.inference import photos_per_batch, plain_outputs, store_features
from potstill.compute.precision import Precision
from potstill.context import Context
from potstill.data.arrays import RowWriter, save_array, save_arrays
from potstill.data.folds import fold_of
from potstill.data.label_errors import estimated_label_noise
from potstill.data.pixels import PixelStore
from potstill.data.unlike import read_unlike, used_rows
from potstill.data.views import Renderer, draw_views
from potstill.metrics.classification import Classification
from potstill.models.classifier import Classifier, load
from potstill.models.fold_heads import load_fold_heads
from potstill.run.files import check_space, is_sealed, read_json, remove_sealed, sha256_of, write_json
from potstill.run.layout import external_inputs, given_path, teacher_networks, tuned_on_path, unlike_path, weights_path
from potstill.shards import RESULT, write_in_shards
from potstill.soft_labels.plan import SoftLabelsPlan
from potstill.wording import counted

_BLOCK = 256
_NONE = np.empty(0, int)


def store_soft_labels(plan: SoftLabelsPlan, context: Context) -> None:
    """Label the planned views of the photos to train on, and the plain val photos. Writes `3_soft_labels/`."""
    run = context.run
    stage, folder = run.stage("3_soft_labels"), run.soft_labels
    groups = teacher_networks(run.teacher, plan.teacher)
    networks = [network for group in groups for network in group]
    inputs: dict[str, Any] = {
        "images": run.stage("1_images").digest(),
        "teacher": [sha256_of(weights_path(network)) for network in networks],
        **external_inputs(run),
        "views": {**asdict(plan.views), "count": plan.num_views},
    }
    if read_unlike(run):
        inputs["unlike"] = sha256_of(unlike_path(run))
    if not stage.begin(inputs):
        return
    store = PixelStore(run.images)
    photos = used_rows(run, store)
    drawn = draw_views(store, photos, plan.num_views, plan.views)
    save_array(folder / "photos.npy", photos)
    save_array(folder / "views.npy", drawn)
    labeling = Labeling(store, photos, drawn, context, len(networks))
    kind = Classification.of(store.several_labels)
    outputs: list[_Group | _Given] = [
        labeling.outputs_of_all(group, folder / f"teacher-{number}") for number, group in enumerate(groups)
    ]
    if given_path(run).is_file():
        outputs = [_Given(labeling, np.load(given_path(run), mmap_mode="r", allow_pickle=False))]
    val_logits = kind.mean_logits([group.val_logits for group in outputs])
    save_array(folder / "val_logits.npy", val_logits)
    _merge(outputs, folder, len(photos), plan.num_views, kind)
    meta = {
        "networks": [len(group) for group in groups] or [1],
        "label_noise": estimated_label_noise(run),
        **_confidence_stats(folder, labeling, val_logits),
    }
    write_json(folder / "meta.json", meta)
    for leftover in folder.glob("teacher-*.npy"):
        remove_sealed(leftover)
    for network in networks:
        remove_files(network)
    stage.finish(photos=len(photos), views=plan.num_views)


@dataclass(frozen=True, slots=True)
class _FoldHeads:
    """The head of one of the teacher's models, or its out-of-fold heads, each applied to the fold it has not seen."""

    heads: list[nn.Module]
    """One, or one per fold."""
    folds: np.ndarray
    """(N,) of every photo; -1 for those without a label."""
    width: int
    """Number of features that students learn from: the backbone's last."""

    def __call__(self, features: np.ndarray, photos: np.ndarray) -> np.ndarray:
        """(n, V, D) features of the photos at the positions `photos` (n,) → (n, V, W + C): last features, logits."""
        values, folds = torch.from_numpy(features.astype(np.float32)), self.folds[photos]
        with torch.inference_mode():
            outputs = torch.stack([head(values) for head in self.heads])
            # No head was trained on the photos without labels by name: these get the mean of all heads.
            logits = outputs.mean(0)
            labeled = np.flatnonzero(folds >= 0)
            logits[labeled] = outputs[folds[labeled], labeled]
        return torch.cat([values[..., : self.width], logits], dim=-1).numpy()


@dataclass(frozen=True, slots=True)
class _Outputs:
    """The outputs of one network for all views of the photos that it may label: those that the teacher's stage stored,
    then the others."""

    heads: _FoldHeads
    stored: np.ndarray
    """(n, P, D) features of the first views, P ≥ 0."""
    labeled: np.ndarray
    """(n, V − P, W + C) last features and logits of the others."""
    place: np.ndarray
    """(N,) of every photo in both; -1 for those that the network learned from."""
    val_logits: np.ndarray

    def block(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Last features (n, V, W) and logits (n, V, C) of the photos at the positions (n,)."""
        place = self.place[photos]
        parts = [self.heads(self.stored[place], photos)] if self.stored.shape[1] else []
        parts += [self.labeled[place].astype(np.float32)] if self.labeled.shape[1] else []
        outputs = np.concatenate(parts, axis=1)
        return outputs[..., : self.heads.width], outputs[..., self.heads.width :]


@dataclass(frozen=True, slots=True)
class _Group:
    """Networks of one model: one, or one per fold."""

    networks: tuple[_Outputs, ...]
    kind: Classification

    @property
    def width(self) -> int:
        """Number of features."""
        return self.networks[0].heads.width

    @property
    def is_single(self) -> bool:
        """Whether its features all have the same meaning."""
        return len(self.networks) == 1

    @property
    def val_logits(self) -> np.ndarray:
        """(n, C)."""
        return self.kind.mean_logits([network.val_logits for network in self.networks])

    def block(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, V, W) and logits (n, V, C), the mean of the networks that have not learned from a photo."""
        if len(self.networks) == 1:
            return self.networks[0].block(photos)
        may = np.stack([network.place[photos] >= 0 for network in self.networks])
        total: list[np.ndarray] = []
        for network, mine in zip(self.networks, may, strict=True):
            features, logits = network.block(photos[mine])
            parts = [features, self.kind.probabilities(logits)]
            total = total or [np.zeros((len(photos), *part.shape[1:]), np.float32) for part in parts]
            for summed, part in zip(total, parts, strict=True):
                summed[mine] += part
        features, probabilities = (summed / may.sum(0)[:, None, None] for summed in total)
        if self.kind.several_labels:
            return features, np.log(probabilities + 1e-7) - np.log1p(1e-7 - probabilities)
        return features, np.log(probabilities + 1e-8)


@dataclass(frozen=True, slots=True)
class Labeling:
    """The photos and views to be labeled."""

    store: PixelStore
    photos: np.ndarray
    """(N,) rows of the store."""
    views: np.ndarray
    """(N, V) of VIEW."""
    context: Context
    networks: int
    """How many label them one after the other."""

    def outputs_of_all(self, folders: list[Path], target: Path) -> _Group:
        """Run a group of networks over the photos that they may label.

        Args:
            folders: of the networks; of several, each has learned from all train photos but those of its fold.
            target: name that the files with their outputs begin with.
        """
        return _Group(
            tuple(
                self._outputs_of(_Part(folder, number, len(folders)), target.with_name(f"{target.name}-{number}.npy"))
                for number, folder in enumerate(folders)
            ),
            Classification.of(self.store.several_labels),
        )

    def _outputs_of(self, part: "_Part", target: Path) -> _Outputs:
        """Run a network over all views, of the photos that it may label, that are not stored yet."""
        machine, chosen = self.context.machine, self.chosen(part)
        network = self.network(StoredNetwork.load(part.folder, machine.device, machine.cores))
        stored = self._stored_features(network.model, part.folder, len(chosen))
        done = stored.shape[1]
        labeled = np.empty((len(chosen), 0, network.width), np.float16)
        if done < self.views.shape[1]:
            if not is_sealed(target):
                self._label(network, part, done, target)
            labeled = np.load(target, mmap_mode="r", allow_pickle=False)
        place = np.full(len(self.photos), -1)
        place[chosen] = np.arange(len(chosen))
        val, threads = self.store.rows("val"), self.context.machine.cores
        _, val_logits = plain_outputs(network.backbone, self.store, val, network.precision, threads=threads)
        return _Outputs(network.heads, stored, labeled, place, val_logits)

    def network(self, stored: "StoredNetwork") -> "_Network":
        """A network, ready to label these photos."""
        heads, model = stored.heads, stored.model
        fold_heads = _FoldHeads(heads, self._folds(len(heads), _NONE), model.num_last_features)
        return _Network(model, stored.backbone, fold_heads, stored.precision)

    def chosen(self, part: "_Part") -> np.ndarray:
        """(n,) positions of the photos that a network may label."""
        if part.networks == 1:
            return np.arange(len(self.photos))
        tuned_on = tuned_on_path(part.folder.parent)
        unlabeled = np.load(tuned_on, allow_pickle=False) if tuned_on.is_file() else _NONE
        fold = self._folds(part.networks, unlabeled)
        return np.flatnonzero((fold == part.number) | (fold == -1))

    def _folds(self, count: int, unlabeled: np.ndarray) -> np.ndarray:
        """(N,) of every photo, one of so many; -1 for those without a label, except for `unlabeled` (n,) rows."""
        learned = self.store.is_labeled(self.photos) | np.isin(self.photos, unlabeled)
        return np.where(learned, fold_of(self.store, self.photos, count), -1)

    def renderer(self, network: "_Network", part: "_Part", done: int) -> Renderer:
        """Of the views that the network is to label: all but the first so many."""
        machine, size = self.context.machine, network.model.info.size
        every = Renderer(self.store, self.photos, self.views[:, done:], size, threads=machine.cores)
        return every.only(self.chosen(part))

    def label_shard(self, job: Path, load: Callable[[Path], "StoredNetwork"]) -> None:
        """Write the shard that a JSON file of `write_in_shards` asks for, beside it.

        Args:
            load: gives the network that is stored in a folder.
        """
        values = read_json(job)
        part = _Part(Path(values["folder"]), values["number"], values["networks"])
        network, photos = self.network(load(part.folder)), values["stop"] - values["start"]
        renderer = self.renderer(network, part, values["done"])
        writer = RowWriter(job.with_name(RESULT), (photos, renderer.shape[1], network.width), np.float16)
        network.label(renderer, writer, first=values["start"])
        writer.close()

    def _stored_features(self, model: Classifier, folder: Path, photos: int) -> np.ndarray:
        """(n, P, D) features of the first views that the teacher's stage stored, where they are still the model's own;
        else P = 0."""
        path = folder / "features.npy"
        if model.info.trained.method == "probe" and path.is_file():
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            if len(stored) == len(self.photos):  # photos without labels are not in it where the teacher ignored them
                return stored[:, 1 : 1 + self.views.shape[1]]
        return np.empty((photos, 0, model.num_features), np.float16)

    def _label(self, network: "_Network", part: "_Part", done: int, target: Path) -> None:
        """Write last features and logits of all views but the first so many to `target` (n, v, W + C)."""
        renderer = self.renderer(network, part, done)
        photos, views = renderer.shape
        check_space(target.parent, float(np.prod(self.views.shape)) * 4 * network.width, "Soft labels")
        writer = RowWriter(target, (photos, views, network.width), np.float16)
        what = counted(views, "more view" if done else "view")  # features of the first ones may be stored
        label = f"Soft labels: the teacher labels {what} of each photo"
        if not self.context.engine.has_one_device:
            batch = photos_per_batch(network.precision, views)
            values = {**part.to_json(), "done": done}
            module = "potstill.soft_labels.worker"
            write_in_shards(writer, module, values, self.context, batch=batch, label=label, part="soft labels")
            return
        of = (len(list(target.parent.glob("teacher-*.npy"))), self.networks)
        with self.context.reporter.bar(label, photos, unit="photo", part="soft labels", of=of) as update:
            network.label(renderer, writer, update)
        writer.close()


@dataclass(frozen=True, slots=True)
class StoredNetwork:
    """One of the teacher's networks as it is run here, whatever photos it is to label."""

    model: Classifier
    backbone: Classifier
    """The same, in the backend that it is run in."""
    heads: list[nn.Module]
    """One, or one per fold."""
    precision: Precision

    @classmethod
    def load(cls, folder: Path, device: str, threads: int) -> "StoredNetwork":
        model = load(folder).to(device)
        model.to(memory_format=torch.channels_last)
        trained = model.info.trained
        precision = Precision(torch.device(device), getattr(torch, trained.precision), trained.runtime, trained.batch)
        backbone = inference_model(model, precision, folder, threads=threads)
        return cls(model, backbone, load_fold_heads(folder) or [model.head.cpu()], precision)


@dataclass(frozen=True, slots=True)
class _Part:
    """One of a group of networks, each of which labels a part of the photos."""

    folder: Path
    number: int
    networks: int
    """In the group."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True, slots=True)
class _Network:
    """One of the teacher's networks, ready to label."""

    model: Classifier
    backbone: Classifier
    """The same, as it is run here."""
    heads: _FoldHeads
    precision: Precision

    @property
    def width(self) -> int:
        """W + C."""
        return self.heads.width + len(self.model.info.classes)

    def label(
        self,
        renderer: Renderer,
        writer: RowWriter,
        update: Callable[[int], None] = lambda photos: None,
        *,
        first: int = 0,
    ) -> None:
        """Write last features and logits of the renderer's views, of the photos from `first` on."""

        def outputs(features: np.ndarray, photos: np.ndarray) -> np.ndarray:
            return self.heads(features, renderer.chosen[photos])

        store_features(self.backbone, renderer, writer, self.precision, update, outputs, first=first)


@dataclass(frozen=True, slots=True)
class _Given:
    """Soft labels that came from a file, one for each photo: the same for all of its views, blended where they are."""

    labeling: Labeling
    logits: np.ndarray
    """(n, C) of every row of the store."""
    width: int = 0
    """Number of features: none are known."""
    is_single: bool = True

    @property
    def val_logits(self) -> np.ndarray:
        """(n, C)."""
        return np.array(self.logits[self.labeling.store.rows("val")])

    def block(self, photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, V, 0) and logits (n, V, C)."""
        rows, views = self.labeling.photos[photos], self.labeling.views[photos]
        kind = Classification.of(self.labeling.store.several_labels)
        own, partners = (
            kind.probabilities(np.asarray(self.logits[of], np.float64))
            for of in (rows, np.maximum(views["partner"], 0).ravel())
        )
        weight = views["weight"][..., None].astype(np.float64)
        found = weight * own[:, None] + (1 - weight) * partners.reshape(*views.shape, -1)
        return np.empty((*views.shape, 0), np.float32), kind.logits(found).astype(np.float32)


def _merge(groups: list[_Group | _Given], folder: Path, photos: int, count: int, kind: Classification) -> None:
    """`logits.npy`, `features.npy` and `statistics.npz` of all groups together, block by block.

    Features of networks that were tuned apart differ in their meaning, so they are stored only where there are no
    others.
    """
    single = [group.is_single for group in groups]
    shown = [alone or not any(single) for alone in single]
    width = sum(group.width for group, has in zip(groups, shown, strict=True) if has)
    classes = groups[0].val_logits.shape[-1]
    for growing in folder.glob("*.growing"):
        growing.unlink()
    features = RowWriter(folder / "features.npy", (photos, count, width), np.float16)
    logits = RowWriter(folder / "logits.npy", (photos, count, classes), np.float16)
    total, square, n = np.zeros(width), np.zeros(width), 0
    for start in range(0, photos, _BLOCK):
        positions = np.arange(start, min(start + _BLOCK, photos))
        outputs = [group.block(positions) for group in groups]
        values = np.concatenate([f for (f, _), has in zip(outputs, shown, strict=True) if has], axis=-1)
        features.write(values)
        logits.write(kind.mean_logits([z for _, z in outputs]))
        flat = values.reshape(len(positions) * count, width).astype(np.float64)
        total, square, n = total + flat.sum(0), square + np.square(flat).sum(0), n + len(flat)
    features.close()
    logits.close()
    mean = total / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0)) + 1e-3
    save_arrays(folder / "statistics.npz", mean=mean.astype(np.float32), std=std.astype(np.float32))


def _confidence_stats(folder: Path, labeling: Labeling, val_logits: np.ndarray) -> dict[str, Any]:
    """How saturated the teacher is: on unmixed train views, or val where there are none, and on val; and the
    temperatures that minimize the NLL."""
    store, photos = labeling.store, labeling.photos
    logits = np.load(folder / "logits.npy", mmap_mode="r", allow_pickle=False)
    views = np.load(folder / "views.npy", mmap_mode="r", allow_pickle=False)
    picked = np.random.default_rng(0).permutation(len(photos))[:2000]
    unmixed = views[picked]["partner"] < 0
    sample = logits[picked][unmixed].astype(np.float32)
    labels = np.repeat(store.labels(photos[picked])[:, None], views.shape[1], 1)[unmixed]
    known = np.repeat(store.is_labeled(photos[picked])[:, None], views.shape[1], 1)[unmixed]
    sample, labels = sample[known], labels[known]
    kind = Classification.of(store.several_labels)
    val_labels = store.labels(store.rows("val"))
    if not len(sample):  # with views.mix = 1 every view is a blend
        sample, labels = val_logits, val_labels
    return {
        "train_top_probability": float(kind.certainty(kind.probabilities(sample)).mean()),
        "train_accuracy": kind.accuracy(sample, labels),
        "train_temperature": kind.fit_temperature(sample, labels),
        "val_top_probability": float(kind.certainty(kind.probabilities(val_logits)).mean()),
        "val_accuracy": kind.accuracy(val_logits, val_labels),
        "val_temperature": kind.fit_temperature(val_logits, val_labels),
    }
