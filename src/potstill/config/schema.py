"""Every setting of a run, once. The text under each field is its help, on the command line and in the reference.

A value "auto" is decided by a rule or a measurement; what was decided stands in each model's model.json.
Settings come from the defaults here, then a TOML recipe, then flags; later wins (`potstill.config.load`).
"""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from potstill.config.external import External, parse_external
from potstill.config.metric import parse_metric, parse_operating_point
from potstill.errors import ConfigError
from potstill.wording import counted

Auto = Literal["auto"]
ClassesFrom = Literal["folders", "top", "deepest", "names"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in 0…1."""


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a field may have; of a list, each of them. Both ends belong to it unless `open_low`."""

    low: float
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high and not (self.open_low and value == self.low)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        return f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"


def range_of(annotation: Any) -> Range | None:
    """The range in a field's annotation."""
    return next((item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Range)), None)


def _check_ranges(section: Any, prefix: str) -> None:
    for item in fields(section):
        allowed, value = range_of(item.type), getattr(section, item.name)
        for number in value if isinstance(value, tuple) else (value,):
            if allowed is not None and number != "auto" and number not in allowed:
                raise ConfigError(f"{prefix}{item.name} must be {allowed}, got {number!r}.")


LABEL_SETTINGS = (
    *("labels", "path_column", "label_column", "split_column", "group_column", "group_pattern"),
    *("labels_per_photo", "without_label"),
)
"""Settings of `images` that say where labels, splits and groups are, and nothing of what they are."""


def _check_pattern(pattern: str) -> None:
    if len(pattern) > 200:  # file names have 255 characters at most, so what remains slow is short enough to see why
        raise ConfigError("images.group_pattern is longer than 200 characters.")
    try:
        groups = re.compile(pattern).groups if pattern else 1
    except re.error as error:
        raise ConfigError(f"images.group_pattern {pattern!r} is not a regular expression: {error}.") from None
    if groups != 1:
        raise ConfigError(
            f"images.group_pattern {pattern!r} has {counted(groups, 'group')} in parentheses; it needs exactly one, "
            "such as '^([^_]+)_'. Write (?:…) for the others."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """Which photos are used, how they are split, and how they are stored."""

    classes: tuple[str, ...] = ()
    """Use only these classes. Empty: all class folders."""
    classes_from: ClassesFrom = "folders"
    """Where class names come from. "folders": the folders in the photo folder, or in its train folder; if these are
    grouped, the innermost ones; ambiguous layouts are an error. "top": always the outer folders, with everything in
    them. "deepest": always the innermost folders that contain photos. "names": the beginning of each file name, up to
    the first digit (cat.1.jpg, great_dane_12.jpg), or its first word."""
    val_share: Annotated[float, Range(0, 0.5, open_low=True)] = 0.15
    """Share of the training photos set aside for validation if the folder has no val/."""
    test_share: Annotated[float, Range(0, 0.9, open_low=True)] = 0.25
    """Share of the photos set aside for the final test if the folder has no test/."""
    split_seed: Annotated[int, Range(0)] = 0
    """Random seed of the validation split, and of the test split if the folder has no test/."""
    min_side: Annotated[int, Range(1)] = 32
    """Reject photos whose shorter side has fewer pixels than this."""
    duplicate_bits: Annotated[int, Range(-1, 20)] = 10
    """Leave out training and validation photos that look like a test photo: 64-bit perceptual hashes that differ in at
    most this many bits, confirmed by comparing thumbnails. -1: keep them."""
    per_class: Annotated[int, Range(0)] = 0
    """Use the labels of only this many training photos per class, in the order of their hashes. 0: use all labels."""
    rest: Literal["unlabeled", "out"] = "unlabeled"
    """What to do with the remaining training photos if per_class is set. "unlabeled": use them without their labels.
    "out": leave them out."""
    margin: Annotated[float, Range(1, 4)] = 1.15
    """Store photos with a shorter side of this many times the largest input size of any model in the run."""
    max_gb: Annotated[float, Range(0)] = 40.0
    """Store photos as JPEG if their raw pixels would take more disk space than this, in GB."""
    labels: str = ""
    """A table (.csv, .tsv, .jsonl, .parquet) with a row for each photo: its path, its class, and optionally its split
    and group. Empty: class folders, or a table in the photo folder with a usual name, such as labels.csv or
    metadata.csv. Short form: --labels labels.csv."""
    path_column: str = ""
    """The column of the table with the paths of the photos. Empty: the one with a usual name, such as path, file_name
    or id. For parquet files that contain the photos themselves: the column with their bytes."""
    label_column: str = ""
    """The column of the table with the classes. Empty: the one with a usual name, such as label, class or target, or
    the only remaining column. Also for parquet files of photos, and for KEY.json in tar shards."""
    labels_per_photo: Literal["auto", "one", "several"] = "auto"
    """How many classes a photo may have. "one": exactly one. "several": any number (multi-label classification), given
    in a table as a list per row separated by ; or |, as several rows per photo, or as 0/1 columns. "auto": several if
    the table contains lists or is Roboflow's _classes.csv, otherwise one."""
    without_label: Literal["refuse", "none", "unlabeled"] = "refuse"
    """With several labels per photo: the meaning of a row without a label. "none": the photo shows none of the classes.
    "unlabeled": its labels are unknown, so the teacher labels it. "refuse": stop, because it could mean either."""
    split_column: str = ""
    """The column of the table with the splits: train, val, test or unlabeled. Empty: the one with a usual name, such as
    split, if there is one. "none": no column."""
    group_column: str = ""
    """The column of the table with the group of each photo, such as a person, a patient or an object. All photos of a
    group are kept in the same split and in the same fold. Empty: the column group, group_id, patient_id or subject_id,
    if there is one. "none": no column."""
    group_pattern: str = ""
    """Groups from file names: a regular expression with one capturing group, such as "^([^_]+)_" for the part before
    the first underscore."""

    def __post_init__(self) -> None:
        _check_ranges(self, "images.")
        _check_pattern(self.group_pattern)
        if self.group_pattern and self.group_column not in ("", "none"):
            raise ConfigError("images.group_column and images.group_pattern both define groups; choose one of them.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsConfig:
    """The augmented views of each photo (crop, flip, color, mix-up) that the teacher labels and the student learns
    from."""

    count: Annotated[int | Auto, Range(1)] = "auto"
    """Stored views per photo. Epoch e uses view e modulo this number. "auto": one per epoch, at most 24, and fewer
    with more than 2,500 photos: as many as make 60,000 views in total, but at least 4."""
    min_scale: Annotated[float, Range(0, 1, open_low=True)] = 0.25
    """Smallest area of a random crop, as a share of the photo's area."""
    max_aspect: Annotated[float, Range(1, 4)] = 1.33
    """Largest aspect ratio of a random crop. Ratios are drawn between 1/max_aspect and max_aspect."""
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    """"horizontal": flip half of the views left to right. "both": also flip half of them upside down, for photos
    without a natural orientation."""
    color: Annotated[float, Range(0, 0.9)] = 0.3
    """Strength of the color jitter: factors for brightness, contrast and saturation are drawn from 1 ± this value. 0:
    no color jitter."""
    mix: Annotated[float, Range(0, 1)] = 0.5
    """Share of views that are blended with another photo (mix-up). The teacher labels the blended image."""
    ops: Annotated[float, Range(0, 1)] = 0.0
    """Share of views that get two additional strong augmentations, chosen from rotation, shear, gamma, blur and tint
    (after RandAugment). The teacher labels the augmented image."""
    op_strength: Annotated[float, Range(0, 1, open_low=True)] = 0.7
    """Strength of these augmentations. At 1, rotations go up to 30 degrees."""
    seed: Annotated[int, Range(0)] = 0
    """Random seed of the views."""

    def __post_init__(self) -> None:
        _check_ranges(self, "views.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """The large model: its architecture, its starting weights, and how it is trained on your classes."""

    model: tuple[str, ...] = ("densenet201",)
    """A preset (see `potstill models`) or any name in timm.list_models(). Several names form an ensemble: their
        predictions are averaged. "onnx:FILE": an existing ONNX classifier. "file:FILE": soft labels from a .csv or .npy
    file. The latter two are configured in [external]; of [teacher], only size and min_gain apply to them."""
    weights: str = "auto"
    """Starting weights. "auto": from an installed weight package if there is one, otherwise from the model hub.
    "package", "hub", "none" (random initialization), or a .safetensors or .pth file."""
    train: Literal["auto", "probe", "finetune"] = "auto"
    """"probe": train only a new head on features of the frozen backbone, which is fast. "finetune": train the whole
    network, once per fold (finetune_folds). "auto": probe first; if it is wrong on more than 3 % of the validation
    photos, fine-tune as well and keep whichever has the lower validation loss."""
    size: Annotated[int | Auto, Range(1)] = "auto"
    """Input size in pixels. "auto": the size the weights were trained with."""
    feature_stages: Annotated[int, Range(0)] = 4
    """Number of backbone stages whose features the head uses in addition to the final features: the mean and standard
    deviation of every channel. 0: the final features only."""
    head_width: Annotated[int, Range(0)] = 0
    """Units in the head's hidden layer. 0: no hidden layer, a linear head."""
    dropout: Annotated[float, Range(0, 0.95)] = 0.0
    """Dropout before the head's last layer during training. In our experiments it added nothing to head_l2 and made
    training the head much slower."""
    probe_views: Annotated[int, Range(0)] = 4
    """Augmented views per training photo for training the head, in addition to the photo itself."""
    probe_epochs: Annotated[int, Range(0)] = 60
    """Epochs for training the head."""
    probe_min_steps: Annotated[int, Range(1)] = 500
    """Minimum number of training steps for the head. With 20 photos per class, 60 epochs would be only 120 steps."""
    probe_lr: Annotated[float, Range(0, 1, open_low=True)] = 3e-3
    """Learning rate for training the head (Adam with cosine decay to 0)."""
    head_l2: Annotated[float, Range(0, 10)] = 0.02
    """L2 regularization of the head: this factor times the sum of its squared weights is added to the loss. Features
    are standardized."""
    weight_decay: Annotated[float, Range(0)] = 0.01
    """Weight decay in fine-tuning."""
    finetune_epochs: Annotated[int | Auto, Range(1)] = "auto"
    """Epochs of fine-tuning. "auto": enough to see about 12,000 views, but between 8 and 40."""
    finetune_lr: Annotated[float, Range(0, 1, open_low=True)] = 1e-3
    """Peak learning rate of fine-tuning (AdamW, 5 % warmup, cosine decay to 0)."""
    finetune_size: Annotated[int | Auto, Range(1)] = "auto"
    """Input size in pixels of a fine-tuned teacher. "auto": teacher.size, but at most 160, where a training step takes
    half as long as at 224."""
    finetune_folds: Annotated[int, Range(1)] = 3
    """Number of networks to fine-tune, each without one fold of the training photos. Each labels its own fold, and
    their mean labels the photos that none of them learned from. 1: a single network learns from all photos, labels them
    itself, and is overconfident on them."""
    unlabeled: Literal["propagate", "ignore"] = "propagate"
    """How to use unlabeled photos. "propagate": give them soft labels by label propagation from similar photos, train
    a second head on all photos, and keep it if its validation loss is lower; fine-tuning, if any, then uses its
    predictions as labels for unlabeled photos, up to 3,000 photos in all. "ignore": train on labeled photos only, as is
    always done with several labels per photo."""
    unlike: Literal["leave_out", "keep"] = "leave_out"
    """What to do with unlabeled photos that resemble none of the labeled photos in the teacher's feature space.
    "leave_out": use them neither for the teacher nor for the students. "keep": use them like the others."""
    wrong_labels: Literal["correct", "keep"] = "correct"
    """What to do if an estimated 7 % or more of the training labels are wrong. "correct": replace those that are
    probably wrong by out-of-fold predictions, from heads with up to 25 times head_l2, and keep the result if its
    validation loss is lower. Needs one label per photo, at least 300 labeled photos, and folds. "keep": learn from the
    labels as they are."""
    folds: Annotated[int, Range(0)] = 5
    """Number of folds for out-of-fold soft labels: each fold is labeled by a head trained on the other folds. 0 or 1:
    one head labels all photos, and is overconfident on the photos it was trained on."""
    min_gain: Annotated[float, Range(0, 1)] = 0.1
    """Stop the run if the teacher closes less than this share of the gap between chance and perfection on the
    validation photos, both in mean per-class accuracy (from guessing to 100 %) and in NLL (from that of the class
    frequencies to 0). 0: never stop."""

    def __post_init__(self) -> None:
        _check_ranges(self, "teacher.")
        if not self.model:
            raise ConfigError("teacher.model is empty; name at least one model.")
        external = [name for name in self.model if parse_external(name)]
        if external and len(self.model) > 1:
            raise ConfigError(f"teacher.model: {external[0]!r} cannot be part of an ensemble. Name it alone.")

    @property
    def external(self) -> External | None:
        """The file that is the teacher; None where the teacher is trained here."""
        return parse_external(self.model[0])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the models, as logs and reports call them: of a file, without its folder."""
        return (self.external.name,) if self.external else self.model


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalConfig:
    """A teacher that is not trained here: teacher.model = "onnx:FILE", an ONNX classifier, or "file:FILE", soft labels
    from a file."""

    class_map: str = ""
    """A .csv, .toml or .json file that maps the teacher's classes to yours, one row "their class,my class" each, by
    name or index. Several can map to the same class: their probabilities are added. Classes that are not listed are
    dropped, and the remaining probabilities are renormalized. Empty: the teacher has the classes of the run."""
    output: Literal["auto", "logits", "probabilities"] = "auto"
    """What the teacher's outputs are. "auto": probabilities if every row lies in 0…1 and sums to 1, otherwise
    logits."""
    order: str = ""
    """For a .npy file: a text file with the photo path of each row, as printed by `potstill count PHOTOS --list`."""
    mean: Annotated[tuple[float, ...], Range(-1000, 1000)] = IMAGENET_MEAN
    """For an ONNX classifier: the values to subtract from red, green and blue, which are in 0…1. The default is
    ImageNet's."""
    std: Annotated[tuple[float, ...], Range(0, 1000, open_low=True)] = IMAGENET_STD
    """For an ONNX classifier: the values to then divide red, green and blue by. The default is ImageNet's."""
    input_range: Annotated[tuple[float, ...], Range(-1000, 1000)] = ()
    """For an ONNX classifier: the values of black and white, instead of mean and std, such as 0,1 or -1,1 or 0,255."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """For an ONNX classifier: the order of the color channels. mean and std are always given as red, green, blue."""
    crop_pct: Annotated[float, Range(0.5, 1)] = 1.0
    """For an ONNX classifier: side of the center crop of validation and test photos, as a share of the photo's shorter
    side (crop_pct in timm)."""

    def __post_init__(self) -> None:
        _check_ranges(self, "external.")
        for name, count in (("mean", 3), ("std", 3), ("input_range", 2)):
            values = getattr(self, name)
            if len(values) != count and (values or name != "input_range"):
                raise ConfigError(f"external.{name} must have {count} numbers, got {len(values)}.")
        if self.input_range:
            black, white = self.input_range
            if black >= white:
                raise ConfigError(f"external.input_range must be black, then white, got {black:g},{white:g}.")
            if (self.mean, self.std) != (IMAGENET_MEAN, IMAGENET_STD):
                raise ConfigError("external.input_range takes the place of mean and std; set one or the other.")

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of red, green and blue in 0…1 that give the inputs of an ONNX classifier."""
        if not self.input_range:
            return self.mean, self.std
        black, white = self.input_range
        return (-black / (white - black),) * 3, (1 / (white - black),) * 3


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """The small models: architectures, input size, and how they learn from the soft labels."""

    models: tuple[str, ...] = ()
    """Names in timm.list_models(), or Potstill's small MobileNets (`mobilenetv1_025`, `_050`, `_075`). `NAME@128` sets
    the input size of one student, `NAME=FILE` its weights, `NAME@128=FILE` both. Empty: models that fit the budget, or
    `mobilenetv3_small_100` without a budget."""
    weights: str = "auto"
    """Starting weights of students that do not set their own, as in teacher.weights. "none": train from scratch."""
    size: Annotated[int | Auto, Range(1)] = "auto"
    """Input size in pixels of students that do not set their own. "auto": the size the weights were trained with."""
    crop_pct: Annotated[float | Auto, Range(0.5, 1)] = "auto"
    """Side of the center crop that the trained student sees, as a share of the photo's shorter side (crop_pct in timm).
    Objects look larger in training crops than in whole photos, and a smaller center crop compensates for that. "auto":
    1 or 0.875, chosen for each model on the validation photos."""
    epochs: Annotated[int | Auto, Range(1)] = "auto"
    """Training epochs. "auto": enough to see about 180,000 views if all photos are labeled, 60,000 if some are not, and
    120,000 when training from scratch, but between 10 and 200 epochs; with more than 2,500 photos the number of views
    grows with the square root of the number of photos."""
    patience: Annotated[float, Range(0, 100, open_low=True)] = 1.0
    """Factor applied to epochs if that is "auto": 3 trains three times as long, 0.33 a third as long."""
    last_epochs: Annotated[int | Auto, Range(0)] = "auto"
    """Epochs of a final stage of the distilled student on the labeled photos only, without mix-up, at a tenth of the
    learning rate (after SSLD, Cui et al. 2021). The stage is undone if it does not lower the validation loss. "auto":
    6 if there are unlabeled photos and the labels are not noisy, otherwise 0."""
    batch_size: Annotated[int | Auto, Range(2)] = "auto"
    """Photos per training step, reduced to an eighth of the training photos in small datasets. "auto": 64, or 16 when
    training from scratch with a method other than "dist"."""
    lr: Annotated[float | Auto, Range(0, 1, open_low=True)] = "auto"
    """Peak learning rate (AdamW, 5 % warmup, cosine decay to 0). "auto": 3e-3, or 1e-2 when training from scratch."""
    weight_decay: Annotated[float, Range(0)] = 0.02
    """Weight decay, applied to weight matrices but not to biases and normalization layers."""
    ema: Annotated[float, Range(0, 0.99999)] = 0.998
    """Decay of the exponential moving average of the weights. The averaged weights are the final model. 0: no
    averaging."""
    method: str = "kl"
    """Distillation loss. "kl": KL divergence of softened probabilities (Hinton 2015). "logit_mse": squared error of
    centered logits (Ba and Caruana 2014). "dist": correlations (Huang 2022), for 3 or more classes. "dkd": decoupled
    distillation (Zhao 2022), for 5 or more classes. With several labels per photo, only "kl" works, per class."""
    temperature: Annotated[float | Auto, Range(0, open_low=True)] = "auto"
    """Softmax temperature of "kl" and "dkd". 1: no softening. "auto": 1, 2 or 4; the more confident the teacher is on
    the training photos, the higher. With several labels per photo: 1."""
    distill_weight: Annotated[float | Auto, Range(0)] = "auto"
    """Weight of the distillation loss. "auto": 1."""
    feature_weight: Annotated[float | Auto, Range(0)] = "auto"
    """Weight of the feature loss: 1 minus the cosine similarity of the projected student features and the teacher's.
    "auto": 1 up to 10 classes, 0.5 up to 50, otherwise 0.25."""
    task_weight: Annotated[float | Auto, Range(0)] = "auto"
    """Weight of the cross-entropy with the true labels. "auto": 0.3."""
    lr_factors: Annotated[tuple[float, ...], Range(0, 100, open_low=True)] = (1.0, 0.33)
    """Learning rates to try, as factors of `lr`. Student and twin each use the one that is best on the validation
    photos."""
    search: Literal["lr", "weights"] = "lr"
    """What to try in short pilot runs of the student. "lr": the learning rates. "weights": also a doubled temperature
    and no feature loss. With automatic loss weights, full-length trainings with the first seed then decide two more
    things: if all photos are labeled, whether to weight the labels more than the teacher (0.5 for the teacher's
    probabilities, 0 for its features, 1 for the labels); and, if the twin's pilot runs were better, whether to drop the
    teacher."""
    pilot_share: Annotated[float, Range(0, 1)] = 0.3
    """Length of the pilot runs, as a share of the epochs; if these are for 180,000 views, as a share of 60,000. 0: no
    pilot runs, use the first candidate, and try no other loss weights."""

    def __post_init__(self) -> None:
        _check_ranges(self, "student.")
        if not self.lr_factors:
            raise ConfigError("student.lr_factors is empty; name at least one factor, such as 1.")
        if self.task_weight == self.distill_weight == self.feature_weight == 0:
            raise ConfigError("All three loss weights of the student are 0; nothing would be learned.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TwinConfig:
    """The twin: the same student trained without a teacher, on the same photos and views, from the same starting
    weights. Its label smoothing, learning rate and training length are chosen on the validation photos."""

    label_smoothing: Annotated[tuple[float, ...], Range(0, 0.9)] = (0.0, 0.1)
    """Label smoothing values to try."""
    length_shares: Annotated[tuple[float, ...], Range(0, 1, open_low=True)] = (1.0, 0.33, 0.11, 0.04, 0.01)
    """Training lengths to try, as shares of the student's steps; the best on the validation photos is used. Each gets
    a full learning rate schedule. With a single length, nothing is tried."""

    def __post_init__(self) -> None:
        _check_ranges(self, "twin.")
        if not self.label_smoothing:
            raise ConfigError("twin.label_smoothing is empty; name at least one value, such as 0.")
        if not self.length_shares:
            raise ConfigError("twin.length_shares is empty; name at least one share, such as 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """Limits on the student. If any is set and student.models is empty, Potstill picks candidates that fit."""

    max_megabytes: Annotated[float, Range(0)] = 0.0
    """Maximum file size of the float32 model, in MB. 0: no limit. Short form: --max-size 3MB."""
    max_mmacs: Annotated[float, Range(0)] = 0.0
    """Maximum multiply-accumulates per photo, in millions. 0: no limit. Short form: --max-macs 50M."""
    max_milliseconds: Annotated[float, Range(0)] = 0.0
    """Maximum inference time per photo, in milliseconds, with torch on one CPU thread of this machine. 0: no limit.
    Short form: --max-latency 5ms."""
    candidates: Annotated[int, Range(1)] = 3
    """Number of students to train. The one to deploy is chosen among them on the validation photos."""

    def __post_init__(self) -> None:
        _check_ranges(self, "budget.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonConfig:
    """How the final numbers and their confidence intervals are computed."""

    confidence: Annotated[float, Range(0.5, 0.999)] = 0.95
    """Confidence level of all intervals."""
    resamples: Annotated[int, Range(100, 1_000_000)] = 10_000
    """Number of bootstrap resamples of test photos and seeds."""

    def __post_init__(self) -> None:
        _check_ranges(self, "comparison.")


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineConfig:
    """Devices, precision and parallelism. "auto" values are chosen by a rule or by timing, and recorded in the run
    folder."""

    device: str = "auto"
    """"cpu", "cuda", "cuda:1" or "mps". "auto": the first one available of cuda, mps and cpu."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Floating-point precision for training and labeling. "auto": bfloat16 if it is faster and agrees with float32,
    otherwise float32."""
    runtime: str = "auto"
    """Runtime for the teacher's labeling: "auto", "torch" or "onnxruntime". "auto": ONNX Runtime on CPUs if it is
    installed (extra "export"), faster, and gives the same features as torch, otherwise torch."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether to train students with `torch.compile`. "auto": try it if a training takes more than 15 minutes, and use
    it if it is at least 10 % faster, saves more time than compiling takes, and gives the same losses in a few steps."""
    label_batch: Annotated[int | Auto, Range(1)] = "auto"
    """Batch size for labeling with the teacher. "auto": 32, or another if that is at least 10 % faster: 16 or 64 on
    a CPU, 64 to 256 on a GPU. It affects only the speed."""
    jobs: Annotated[int | Auto, Range(1)] = "auto"
    """Number of models trained at the same time. "auto": one per core on a CPU, one per GPU. Small models do not fill a
    GPU: with more jobs than GPUs, several models share each GPU, as far as its memory allows."""
    processes_per_training: Annotated[int | Auto, Range(1)] = "auto"
    """Number of processes that train one model together, each on a part of every batch, with its own GPU or core
    (PyTorch's DistributedDataParallel). They run on one machine, or, if no node of a Ray cluster has room for that
    many, on several. Changing it changes results only by rounding. "auto": 1, or the number of GPUs of one node that
    `jobs` leaves for each model."""
    threads: Annotated[int | Auto, Range(1)] = "auto"
    """CPU threads per model. "auto": 1, or more, by timing, if there are more cores than models to train. Changing it
    changes results only by rounding."""
    reuse: Literal["on", "off"] = "on"
    """Whether a run reuses photos, teacher and soft labels of an earlier run beside it that were made from the same
    photos with the same settings, versions and machine. "off": recompute everything."""
    engine: Literal["local", "ray"] = "local"
    """Where to label and train: in processes on this machine, or on the nodes of a Ray cluster (extra "ray"), all of
    which must see the run folder under the same path."""
    ray_address: str = ""
    """Address of the Ray cluster, HOST:PORT. Empty: the environment variable RAY_ADDRESS, or a cluster started on this
    machine."""
    cache_gb: Annotated[float, Range(0, 1e6)] = 8.0
    """Disk space in GB for views rendered at a student's input size, so that they are rendered once for all seeds and
    epochs. 0: render them every time."""

    def __post_init__(self) -> None:
        _check_ranges(self, "machine.")


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateConfig:
    """How photos are added to a finished run (`potstill update`)."""

    run: str = ""
    """The run folder that the photos are added to, set by `potstill update`. Its photos stay packed and split as they
    are, so that both runs are tested on the same photos. Empty: an independent run."""
    start: Literal["students", "weights"] = "students"
    """Where training starts. "students": each student from the weights of the run's student with the same seed, and
    each twin from those of its twin. "weights": from the starting weights, as in an independent run. Short form for the
    latter: --from-scratch."""
    length: Annotated[float, Range(0, 4, open_low=True)] = 0.33
    """Training length when starting from the run's students, as a share of student.epochs."""
    test_share: Annotated[float, Range(0, 0.9)] = 0.0
    """Share of the added photos set aside for testing, in addition to the run's test photos. 0: none, unless they come
    with their own test folder. Short form: --test-share 0.2."""

    def __post_init__(self) -> None:
        _check_ranges(self, "update.")
        changed = [f.name for f in fields(self) if f.name != "run" and getattr(self, f.name) != f.default]
        if changed and not self.run:
            raise ConfigError(
                f"update.{changed[0]} has no effect without update.run. Add photos with `potstill update RUN PHOTOS`."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Every setting of a run."""

    seeds: Annotated[int, Range(1)] = 3
    """Number of training runs with different random seeds, for each student and its twin."""
    metric: str = "accuracy"
    """The metric for all choices on the validation photos: settings, training lengths, crops, seeds, how the teacher is
    trained, and the student to deploy. "accuracy", which is replaced by mAP with several labels per photo. "balanced":
    the mean recall of all classes, for imbalanced classes. "macro-f1": the mean F1 of all classes. "recall:CLASS":
    the mean of the recall of CLASS and that of all other classes taken together."""
    class_balance: Literal["auto", "none", "logit-adjusted", "weighted"] = "auto"
    """How training compensates for imbalanced classes, for teacher, student and twin alike. "logit-adjusted": log class
    priors are added to the logits in the loss (Menon et al. 2021), so that the model itself predicts as if all classes
    were equally frequent. "weighted": photos are weighted by inverse class frequency; a teacher is logit-adjusted
    instead, which leaves its soft labels unchanged. "none": neither. "auto": "none" if metric is "accuracy", otherwise
    "logit-adjusted" or "none", chosen on the validation photos."""
    operating_point: str = ""
    """The recall that one class must reach, such as "recall:defective=0.95": the threshold is chosen on the validation
    photos, stored in every model and exported file, and used for classification; the report states recall and false
    alarms on the test photos. It can be changed for a finished run without training again."""
    images: ImagesConfig = field(default_factory=ImagesConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    external: ExternalConfig = field(default_factory=ExternalConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    twin: TwinConfig = field(default_factory=TwinConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    comparison: ComparisonConfig = field(default_factory=ComparisonConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        _check_ranges(self, "")
        parse_metric(self.metric)
        parse_operating_point(self.operating_point)
        self._check_external()

    def _check_external(self) -> None:
        """Raise ConfigError for settings that would count for nothing with this teacher."""
        external, default = self.teacher.external, ExternalConfig()
        given = [
            item.name for item in fields(default) if getattr(self.external, item.name) != getattr(default, item.name)
        ]
        known = {None: (), "onnx": [item.name for item in fields(default) if item.name != "order"]}
        usable = known.get(external.kind if external else None, ("class_map", "output", "order"))
        for name in given:
            if name not in usable:
                raise ConfigError(
                    f"external.{name} has no effect with the teacher {', '.join(self.teacher.names)}. Leave it "
                    'out, or name a teacher of another kind: teacher.model = "onnx:FILE" or "file:FILE".'
                )
        if external and self.student.feature_weight not in ("auto", 0):
            raise ConfigError(
                f"student.feature_weight = {self.student.feature_weight:g} needs a teacher with features; of "
                f"{external.name} only the outputs are known. Leave it out."
            )
