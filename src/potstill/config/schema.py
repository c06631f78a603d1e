"""Every setting of a run, once. The text under each field is its help, on the command line and in the reference.

A value "auto" is decided by a rule or a measurement; what was decided stands in each model's model.json.
Settings come from the defaults here, then a TOML recipe, then flags; later wins (`potstill.config.load`).
"""

from dataclasses import dataclass, field
from typing import Literal

from potstill.errors import ConfigError

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """Which photos take part, how they are split, and how they are packed."""

    classes: tuple[str, ...] = ()
    """Take only these classes. Empty: all class folders."""
    val_share: float = 0.15
    """Share of the training photos that is kept for choosing (val), where the folder has no val/. In (0, 0.5]."""
    test_share: float = 0.25
    """Share of a flat folder's photos that is kept for the final numbers (test). In (0, 0.9]."""
    split_seed: int = 0
    """Another number gives another val (and, for flat folders, test) split."""
    min_side: int = 32
    """Photos with a shorter side below this many pixels are rejected."""
    duplicate_bits: int = 10
    """Photos of train and val whose 64-bit picture hash is this near to a test photo's, and whose thumbnails agree,
    are left out. -1 keeps them."""
    per_class: int = 0
    """Take the labels of this many training photos per class only, the first by hash. 0: of all."""
    rest: Literal["unlabeled", "out"] = "unlabeled"
    """What becomes of the other training photos under per_class: the teacher labels them, or they are left out."""
    margin: float = 1.15
    """Photos are packed with a short side of this many times the largest input size of the run."""
    max_gb: float = 40.0
    """Where raw pixels would take more disk than this, the store holds JPEG instead."""

    def __post_init__(self) -> None:
        _between("images.val_share", self.val_share, 0, 0.5, open_low=True)
        _between("images.test_share", self.test_share, 0, 0.9, open_low=True)
        _between("images.margin", self.margin, 1, 4)
        _between("images.per_class", self.per_class, 0, 1e9)
        _between("images.duplicate_bits", self.duplicate_bits, -1, 20)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsConfig:
    """Which views (crop, flip, color, mix-up) of each photo the teacher labels and the student learns from."""

    count: int | Auto = "auto"
    """Views per photo, V. Epoch e uses view e modulo V. "auto": one per epoch, at most 24."""
    min_scale: float = 0.25
    """Smallest share of the photo's area that a crop shows. In (0, 1]."""
    max_aspect: float = 1.33
    """Largest stretch of a crop: the ratio of its sides lies between 1/this and this."""
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    """Mirror half of the views left to right; "both" also upside down (photos without a natural upright)."""
    color: float = 0.3
    """Strength of random brightness, contrast and saturation: each factor lies in 1 ± this. 0 turns it off."""
    mix: float = 0.5
    """Share of views that are blended with another photo (mix-up). The teacher labels the blend itself."""
    ops: float = 0.0
    """Share of views that get two stronger changes more: turn, shear, gamma, blur or tint (after RandAugment). The
    teacher labels the changed picture."""
    op_strength: float = 0.7
    """How strong those may be. In (0, 1]: at 1, turns by up to 30 degrees."""
    seed: int = 0
    """Another number draws other views."""

    def __post_init__(self) -> None:
        if self.count != "auto" and self.count < 1:
            raise ConfigError(f"views.count must be at least 1, got {self.count}.")
        _between("views.min_scale", self.min_scale, 0, 1, open_low=True)
        _between("views.max_aspect", self.max_aspect, 1, 4)
        _between("views.color", self.color, 0, 0.9)
        _between("views.mix", self.mix, 0, 1)
        _between("views.ops", self.ops, 0, 1)
        _between("views.op_strength", self.op_strength, 0, 1, open_low=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """The large model: which, from what weights, and how it learns the classes."""

    model: tuple[str, ...] = ("densenet201",)
    """A preset (`potstill models`), or any name in timm.list_models(). Several names: their answers are averaged."""
    weights: str = "auto"
    """"auto": a weight package where one is installed, else the model hub. "package", "hub", "none" (random), or a
    .safetensors or .pth file."""
    train: Literal["probe", "finetune", "auto"] = "probe"
    """"probe": the backbone stays as it is, a dense head learns on its stored features. "finetune": the backbone
    learns too, after the probe; its norms keep their statistics. "auto": both, and the better on val stays."""
    size: int | Auto = "auto"
    """Input side in pixels. "auto": the size the weights were trained for."""
    levels: int = 4
    """Stages of the backbone that the head sees beside its last features: mean and deviation of every channel. 0: the
    last features alone."""
    head_width: int = 0
    """Neurons of the head's hidden layer. 0: none, the head is one linear layer."""
    dropout: float = 0.0
    """Dropout before the head's last layer, while it learns. Beside the penalty it gains nothing, and drawing what is
    dropped takes most of the time."""
    probe_views: int = 4
    """Views per training photo whose features the head learns on, beside the plain photo."""
    probe_epochs: int = 60
    """Passes of the head over the stored features."""
    probe_lr: float = 3e-3
    """Learning rate of the head (Adam, cosine to 0)."""
    probe_penalty: float = 0.02
    """The loss of the head grows by this times the sum of its squared weights, of standardized features."""
    weight_decay: float = 0.01
    """Weight decay of fine-tuning."""
    finetune_epochs: int = 6
    """Passes over the photos when the backbone learns too."""
    finetune_lr: float = 1e-4
    """Learning rate of the backbone in fine-tuning; the head's is ten times as large."""
    unlabeled: Literal["propagate", "ignore"] = "propagate"
    """Photos without labels. "propagate": they get soft labels from the photos that look like them, the head learns
    on these too, and stays if val agrees. "ignore": the head learns on labeled photos only."""
    folds: int = 5
    """Out-of-fold soft labels: the training photos are cut into this many folds, and each fold is labeled by a head
    that never saw it. 0 or 1: one head labels all, and is too sure of photos that it learned by heart."""
    min_gain: float = 0.1
    """The run stops when the teacher's val accuracy is not this share of the way from always saying the most common
    class to being always right."""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("teacher.model is empty; name at least one model.")
        _between("teacher.dropout", self.dropout, 0, 0.95)
        _between("teacher.min_gain", self.min_gain, 0, 1)
        for name in ("probe_epochs", "finetune_epochs", "probe_views", "levels", "head_width", "folds"):
            if getattr(self, name) < 0:
                raise ConfigError(f"teacher.{name} must not be negative, got {getattr(self, name)}.")
        for name in ("probe_lr", "finetune_lr"):
            _between(f"teacher.{name}", getattr(self, name), 0, 1, open_low=True)
        _between("teacher.probe_penalty", self.probe_penalty, 0, 10)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """The small models: which, at what size, and how they learn from the soft labels."""

    models: tuple[str, ...] = ()
    """Names in timm.list_models(), or Potstill's for the small classics (`mobilenetv1_025`, `_050`, `_075`). `NAME@128`
    sets one student's input size, `NAME=FILE` its weights; both together: `NAME@128=FILE`. Empty: what fits the budget,
    or `mobilenetv3_small_100` without one."""
    weights: str = "auto"
    """As teacher.weights, for students that do not name their own. "none" trains from scratch."""
    size: int | Auto = "auto"
    """Input side in pixels for students that do not name their own. "auto": what the weights were trained for."""
    crop: float | Auto = "auto"
    """Share of the center square's side that the trained student looks at, in [0.5, 1]. Training views zoom in; a plain
    photo whose margin is cut shows things as large. "auto": 1 or 0.875, each model what val is surer of."""
    epochs: int | Auto = "auto"
    """Passes over the photos. "auto": such that about 60,000 views are seen, from scratch 120,000, between 10
    and 200 passes."""
    batch_size: int | Auto = "auto"
    """Photos per step; an eighth of all photos where there are fewer than eight times as many. "auto": 64, and 16 from
    scratch (but not with "dist"), where many steps are worth more than steady ones."""
    lr: float | Auto = "auto"
    """Highest learning rate (AdamW, 5 % warm-up, cosine to 0). "auto": 3e-3, and 1e-2 from scratch."""
    weight_decay: float = 0.02
    """Weight decay of all weight matrices; biases and norms have none."""
    ema: float = 0.998
    """Averaging of the weights over the steps: the kept model is the average. 0 turns it off."""
    method: Literal["kl", "logit_mse", "dist", "dkd"] = "kl"
    """The distillation loss. "kl": softened probabilities (Hinton 2015). "logit_mse": centered logits (Ba and Caruana
    2014). "dist": correlations (Huang 2022). "dkd": decoupled (Zhao 2022), for 5 classes and more."""
    temperature: float | Auto = "auto"
    """Softmax temperature T > 0 of "kl" and "dkd". "auto": by how saturated the teacher is on train."""
    distill_weight: float | Auto = "auto"
    """Weight of the distillation loss."""
    feature_weight: float | Auto = "auto"
    """Weight of 1 − cosine between the projected student features and the teacher's. It carries most where there are
    few classes."""
    task_weight: float | Auto = "auto"
    """Weight of the cross-entropy with the given label."""
    lr_factors: tuple[float, ...] = (1.0, 0.33)
    """Learning rates that student and twin choose from on val, each for itself, as factors of `lr`."""
    search: Literal["lr", "weights"] = "lr"
    """What the student's pilots choose among: the learning rates, or also a temperature twice as high and no feature
    loss. Where loss weights are "auto", "no distillation" stands among them: the twin's best pilot."""
    pilot_share: float = 0.3
    """Share of the epochs that each candidate of student and twin trains before one is chosen on val. 0: the first of
    each, no pilot."""

    def __post_init__(self) -> None:
        if self.epochs != "auto" and self.epochs < 1:
            raise ConfigError(f"student.epochs must be at least 1, got {self.epochs}.")
        if self.batch_size != "auto" and self.batch_size < 2:
            raise ConfigError(f"student.batch_size must be at least 2, got {self.batch_size}.")
        if self.temperature != "auto" and not self.temperature > 0:
            raise ConfigError(f"student.temperature must be above 0, got {self.temperature}. Use 1 for no softening.")
        if self.crop != "auto":
            _between("student.crop", self.crop, 0.5, 1)
        if self.lr != "auto":
            _between("student.lr", self.lr, 0, 1, open_low=True)
        _between("student.ema", self.ema, 0, 0.99999)
        _between("student.pilot_share", self.pilot_share, 0, 1)
        if not self.lr_factors:
            raise ConfigError("student.lr_factors is empty; name at least one factor, such as 1.")
        for value in self.lr_factors:
            _between("student.lr_factors", value, 0, 100, open_low=True)
        for name in ("distill_weight", "feature_weight", "task_weight"):
            value = getattr(self, name)
            if value != "auto" and not value >= 0:
                raise ConfigError(f"student.{name} must not be negative, got {value}.")
        if self.task_weight == self.distill_weight == self.feature_weight == 0:
            raise ConfigError("All three loss weights of the student are 0; nothing would be learned.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TwinConfig:
    """The same student without a teacher. It gets the same photos, views, steps and starting weights, and the best
    of these settings and of student.lr_factors, chosen on val."""

    label_smoothing: tuple[float, ...] = (0.0, 0.1)
    """Label smoothing values to choose from."""

    def __post_init__(self) -> None:
        if not self.label_smoothing:
            raise ConfigError("twin.label_smoothing is empty; name at least one value, such as 0.")
        for value in self.label_smoothing:
            _between("twin.label_smoothing", value, 0, 0.9)


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """Limits of the student to find. With any of them and no student.models, candidates come from a ladder."""

    max_megabytes: float = 0.0
    """Largest float32 file, in MB. 0: no limit. Short: --max-size 3MB."""
    max_mmacs: float = 0.0
    """Most multiply-accumulates per photo, in millions. 0: no limit. Short: --max-macs 50M."""
    max_milliseconds: float = 0.0
    """Longest time per photo in torch on one thread of this machine. 0: no limit. Short: --max-latency 5ms."""
    candidates: int = 3
    """Students to train; the one to deploy is chosen among them on val."""

    def __post_init__(self) -> None:
        for name in ("max_megabytes", "max_mmacs", "max_milliseconds"):
            _between(f"budget.{name}", getattr(self, name), 0, 1e9)
        if self.candidates < 1:
            raise ConfigError(f"budget.candidates must be at least 1, got {self.candidates}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonConfig:
    """How the numbers are made."""

    confidence: float = 0.95
    """Of all intervals."""
    resamples: int = 10_000
    """Bootstrap resamples of test photos and seeds."""

    def __post_init__(self) -> None:
        _between("comparison.confidence", self.confidence, 0.5, 0.999)
        _between("comparison.resamples", self.resamples, 100, 1_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineConfig:
    """How the machine is used. "auto" values are measured in the first seconds and written to environment.json."""

    device: str = "auto"
    """"cpu", "cuda", "cuda:1", "mps". "auto": the first that is there of cuda, mps, cpu."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of training and labeling."""
    runtime: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What runs the teacher while it labels. "auto": ONNX Runtime on CPUs where it is installed (extra "export") and
    faster; its features are checked against torch's."""
    compile: Literal["auto", "on", "off"] = "auto"
    """`torch.compile` of students. "auto": tried where one training takes longer than a quarter of an hour, and used if
    it is a tenth faster, saves more than compiling costs, and a few steps lose the same."""
    label_batch: int | Auto = "auto"
    """Photos that the teacher looks at in one go. "auto": 32, or 16 or 64 where that is a tenth faster. Not the batch
    of training, which changes results and is no question of speed."""
    jobs: int | Auto = "auto"
    """Students trained at the same time. "auto": one per core on CPU, 1 on a GPU."""
    threads: int | Auto = "auto"
    """Threads of each of these trainings, on CPU. "auto": one; where there are more cores than trainings as many as
    make it a tenth faster, by timing. Another number adds up in another order: the same student but for rounding."""
    cache_gb: float = 8.0
    """Disk for views rendered at a student's size, so that twin, seeds and epochs render them once. 0: render again
    each time."""

    def __post_init__(self) -> None:
        if self.jobs != "auto" and self.jobs < 1:
            raise ConfigError(f"machine.jobs must be at least 1, got {self.jobs}.")
        if self.threads != "auto" and self.threads < 1:
            raise ConfigError(f"machine.threads must be at least 1, got {self.threads}.")
        if self.label_batch != "auto" and self.label_batch < 1:
            raise ConfigError(f"machine.label_batch must be at least 1, got {self.label_batch}.")
        _between("machine.cache_gb", self.cache_gb, 0, 1e6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Every setting of a run."""

    seeds: int = 3
    """Each student and its twin are trained this many times, from different random numbers."""
    images: ImagesConfig = field(default_factory=ImagesConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    twin: TwinConfig = field(default_factory=TwinConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    comparison: ComparisonConfig = field(default_factory=ComparisonConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds must be at least 1, got {self.seeds}.")


def _between(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not (low < value if open_low else low <= value) or not value <= high:
        bracket = "(" if open_low else "["
        raise ConfigError(f"{name} must lie in {bracket}{low:g}, {high:g}], got {value!r}.")
