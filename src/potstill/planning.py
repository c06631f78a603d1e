"""The plan of a run: everything "auto" that needs no measurement, decided once and in one place.

`make_plan` is called twice with the same rules: from the file names, before anything long starts, for the estimate and
`--dry-run`; and with the number of photos that were really packed, for the stages. Choices that need a measurement
(arithmetic, threads, compilation) are left to the stages and stored in `precision.json`.
"""

from dataclasses import dataclass, replace

import numpy as np

from potstill.comparison.plan import ComparisonPlan
from potstill.config.load import from_mapping
from potstill.config.metric import label_of, metric_of, parse_operating_point
from potstill.config.schema import Config
from potstill.data.splits import Split
from potstill.errors import ConfigError, WeightsError
from potstill.images.folder import Folder
from potstill.images.plan import ImagesPlan
from potstill.metrics.choice import Metric, class_balances
from potstill.models.classifier import describe, feature_widths
from potstill.run.folder import Run
from potstill.run.layout import ARMS, is_trained, model_folder, usable_students
from potstill.soft_labels.plan import SoftLabelsPlan
from potstill.students.budget import candidates, is_set
from potstill.students.plan import StudentPlan, StudentsPlan
from potstill.students.recipe import Recipe
from potstill.teacher.external import ExternalTeacher, open_external
from potstill.teacher.plan import TeacherPlan
from potstill.training.losses import check_method
from potstill.wording import counted, from_here

DEFAULT_STUDENT = "mobilenetv3_small_100"

VIEWS_SEEN = 60_000
"""Views that a student with "auto" epochs is trained on: from pretrained weights, with unlabeled photos among them."""

LONGER_FROM_SCRATCH = 2
"""Times as many for a student that starts from random weights."""

LONGER_WITH_LABELS = 3
"""Times as many for a pretrained student where all photos are labeled. There, a student with a teacher gains from a
longer training, and its twin does not (docs/LOG.md, 2026-11-28)."""

MANY_PHOTOS = 2500
"""From here on the number of views grows with the square root of the number of photos: more photos deserve a longer
training, and each of them fewer looks."""

MAX_STORED_VIEWS, MIN_STORED_VIEWS = 24, 4

AUTO = ("temperature", "distill_weight", "feature_weight", "task_weight", "last_epochs")
"""Settings of the student that may be "auto" and depend on the soft labels."""

MIN_BATCH = 8
"""A batch has at most an eighth of the training photos, but no fewer than this: small sets would have too few steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What each stage will do."""

    config: Config
    """The settings that it was made from."""
    train_photos: int
    """Photos to train on, labeled or not; expected from the file names until they have been packed."""
    labeled_photos: int
    """Those of them that have labels, as far as file names tell."""
    has_unlabeled: bool
    """Whether some of them have none, as far as file names tell. The number of packed photos does not tell: some could
    not be used, and of each class a whole number was drawn for val."""
    images: ImagesPlan
    teacher: TeacherPlan
    soft_labels: SoftLabelsPlan
    students: StudentsPlan
    comparison: ComparisonPlan
    disk: dict[str, float]
    """Bytes by what they are for."""

    def for_photos(self, train_photos: int) -> "Plan":
        """The plan by the same rules, for the number of photos that can be trained on."""
        return make_plan(
            self.images.folder,
            self.config,
            train_photos=train_photos,
            twins=self.students.twins,
            external=self.teacher.external,
        )

    def changes(self, before: "Plan") -> list[str]:
        """The lines of soft labels and students that differ from those of another plan."""
        known = before.lines()
        return [line for line in self.lines()[2:] if line not in known]

    def _with_labels(self) -> str:
        return f" ({self.labeled_photos:,} with a label)" if self.has_unlabeled else ""

    def lines(self) -> list[str]:
        """The plan as lines to print."""
        teachers = ", ".join(
            f"{name} at {size} px" if size else name
            for name, size in zip(self.teacher.config.names, self.teacher.sizes, strict=True)
        )
        earlier = self.images.folder.earlier
        before = f"those of {from_here(earlier.run)} and " if earlier else ""
        lines = [
            f"Photos: {before}{counted(len(self.images.folder.files), 'file')} in "
            f"{counted(len(self.images.folder.classes), 'class')}, about {self.train_photos:,} to train on"
            f"{self._with_labels()}, packed with a short side of {self.images.short_side} px",
            f"Teacher: {teachers}, {_teacher_training(self.teacher)}",
            f"Soft labels: {counted(self.soft_labels.num_views, 'view')} of each photo",
        ]
        for student in self.students.students:
            recipe = student.shared
            start = "from scratch" if student.weights == "none" else "pretrained"
            if student.start and earlier:
                start = f"from that of {from_here(earlier.run)}"
            pilots = f"{counted(student.num_pilots, 'pilot')}, then trained " if student.num_pilots else ""
            arms = f"distilled and alone{_lengths(student)}" if self.students.twins else "distilled, without its twin"
            lines.append(
                f"Student: {student.model} at {student.input_size} px, {start}, {counted(recipe.epochs, 'epoch')} in "
                f"batches of {recipe.batch_size}, {pilots}with {counted(self.students.seeds, 'seed')}, {arms}"
            )
        return lines


def _teacher_training(plan: TeacherPlan) -> str:
    config = plan.config
    if plan.external is not None:
        return "used as is"
    probe, tuned = (f", {folds} folds" if folds > 1 else "" for folds in (config.folds, config.finetune_folds))
    ways = {
        "probe": f"linear probe{probe}",
        "finetune": f"fine-tuned{tuned}",
        "auto": f"linear probe{probe}; fine-tuned if that is better",
    }
    return ways[config.train]


def _lengths(student: StudentPlan) -> str:
    """Of the twin, where it is not just as long as the student's."""
    *others, last = [recipe.epochs for recipe in student.lengths(student.shared)]
    if others:
        return f" (alone for {', '.join(map(str, others))} or {last} epochs, chosen on val)"
    return "" if last == student.shared.epochs else f" (alone for {counted(last, 'epoch')})"


def make_plan(
    folder: Folder,
    config: Config,
    *,
    train_photos: int | None = None,
    twins: bool = True,
    external: ExternalTeacher | None = None,
) -> Plan:
    """Decide everything that needs no measurement.

    Args:
        folder: the photos by name.
        train_photos: how many photos there are to train on, labeled or not; expected from the names when None.
        twins: whether the twins are trained, too.
        external: the file that is the teacher, where it was read before; read when None.
    Raises:
        ConfigError: a student's name is malformed, a setting names a class that there is not, or it does not work with
            so many classes.
        ModelError: no such model, or a teacher's file that cannot be used.
    """
    several = folder.several_labels
    metric = metric_of(config.metric, several_labels=several)
    Metric.of(metric, folder.classes)
    if several:
        _require_for_several_labels(config)
    if target := parse_operating_point(config.operating_point):
        label_of(target.class_name, folder.classes, "operating_point")
    labeled, expected = expected_labeled_photos(folder, config), expected_train_photos(folder, config)
    photos = train_photos if train_photos is not None else expected
    has_unlabeled = labeled < expected
    if external is None and config.teacher.external:
        external = open_external(config, folder.classes, _paths(folder), several_labels=several)
    sizes = (external.size,) if external else _checked_teacher_sizes(config, folder)
    students = StudentsPlan(
        students=tuple(
            _student(spec, config, photos, folder, twins, has_unlabeled=has_unlabeled)
            for spec in parse_students(config)
        ),
        seeds=config.seeds,
        twins=twins,
        cache_gb=config.machine.cache_gb,
    )
    largest = max([*sizes, *(student.input_size for student in students.students)])
    if folder.earlier and largest > folder.earlier.short_side:
        raise ConfigError(
            f"The photos of {folder.earlier.run} are packed for models of up to {folder.earlier.short_side} px, and "
            f"these need {largest} px. Choose smaller sizes, or train on all photos with `potstill distill`."
        )
    plan = Plan(
        config=config,
        train_photos=photos,
        labeled_photos=labeled,
        has_unlabeled=has_unlabeled,
        images=ImagesPlan(folder, config.images, largest),
        teacher=TeacherPlan(config.teacher, config.views, sizes, metric, config.class_balance, external),
        soft_labels=SoftLabelsPlan(config.teacher.names, config.views, num_views(config, photos)),
        students=students,
        comparison=ComparisonPlan(
            config.teacher.names,
            config.seeds,
            config.comparison,
            metric=metric,
            class_balance=config.class_balance,
            operating_point=config.operating_point,
            earlier=folder.earlier.run if folder.earlier else None,
            warm=folder.earlier is not None and config.update.start == "students",
        ),
        disk={},
    )
    return replace(plan, disk=_disk(plan))


def with_students(config: Config, folder: Folder) -> Config:
    """The config with its students named: as given, by the budget, or the default one."""
    if config.student.models:
        return config
    _checked_teacher_sizes(config, folder)  # a typo is reported before candidates are timed
    names = candidates(config, len(folder.classes)) if is_set(config.budget) else (DEFAULT_STUDENT,)
    return from_mapping({"student.models": names}, base=config)


def _paths(folder: Folder) -> list[str]:
    """Of all photos, as images.csv of a run has them."""
    return [folder.listed(file) for file in folder.files]


def _checked_teacher_sizes(config: Config, folder: Folder) -> tuple[int, ...]:
    """Input sides of the teacher's models; none where it is a file. Raises for what names alone can show to be wrong,
    as `make_plan` does."""
    check_method(config.student.method, len(folder.classes), several_labels=folder.several_labels)
    if config.teacher.external:
        return ()
    size = None if config.teacher.size == "auto" else config.teacher.size
    return tuple(describe(name, (), size=size).size for name in config.teacher.model)


def expected_train_photos(folder: Folder, config: Config) -> int:
    """Photos to train on, labeled or not, as far as file names tell."""
    by_split = folder.by_split()
    unlabeled = by_split["unlabeled"] + _before(folder, "unlabeled")
    if config.images.per_class and config.images.rest == "out":
        return expected_labeled_photos(folder, config) + unlabeled
    return int(_before(folder, "train") + _train_files(folder, config) + unlabeled)


def expected_labeled_photos(folder: Folder, config: Config) -> int:
    """Photos to train on that have labels, as far as file names tell."""
    photos = _train_files(folder, config)
    most = config.images.per_class * len(folder.classes)
    return _before(folder, "train") + int(min(photos, most) if most else photos)


def expected_test_photos(folder: Folder, config: Config) -> int:
    """Photos to test on, as far as file names tell."""
    by_split = folder.by_split()
    drawn = round((by_split[None] + by_split["train"]) * _test_share(folder, config))
    return _before(folder, "test") + (by_split["test"] or drawn)


def _before(folder: Folder, split: Split) -> int:
    """Photos of the run that others are added to."""
    return folder.earlier.counts.get(split, 0) if folder.earlier else 0


def _test_share(folder: Folder, config: Config) -> float:
    """Share of photos without a split of their own that goes to test."""
    return folder.earlier.test_share if folder.earlier else config.images.test_share


def _train_files(folder: Folder, config: Config) -> float:
    by_split = folder.by_split()
    test_share = _test_share(folder, config)
    learning = by_split[None] * (1 - test_share)
    learning += by_split["train"] * (1 if by_split["test"] else 1 - test_share)
    return learning if by_split["val"] else learning * (1 - config.images.val_share)


@dataclass(frozen=True, slots=True)
class StudentSpec:
    """One student as the user asked for it."""

    name: str
    """Name of its folder."""
    model: str
    size: int | None
    weights: str

    @property
    def from_scratch(self) -> bool:
        return self.weights == "none"


def parse_students(config: Config) -> tuple[StudentSpec, ...]:
    """`student.models` as specs. Raises ConfigError for what is not `NAME`, `NAME@SIZE`, `NAME=FILE`."""
    specs = []
    for text in config.student.models:
        head, _, weights = text.partition("=")
        model, _, size_text = head.partition("@")
        if not model or (size_text and not size_text.isdecimal()):
            raise ConfigError(f"student.models: {text!r} is not NAME, NAME@SIZE, NAME=FILE or NAME@SIZE=FILE.")
        size = int(size_text) if size_text else None if config.student.size == "auto" else config.student.size
        # The same words give the same folder in every command of a run, whatever other students it names.
        name = model.replace("/", "-") + (f"-{size}px" if size else "")
        specs.append(StudentSpec(name, model, size, weights or config.student.weights))
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise ConfigError("student.models names the same student at the same size twice.")
    return tuple(specs)


def _require_for_several_labels(config: Config) -> None:
    """Raise ConfigError for settings that have no meaning where photos may have several labels."""
    for name, value, allowed in (
        ("operating_point", config.operating_point, ("",)),
        ("class_balance", config.class_balance, ("auto", "none")),
    ):
        if value not in allowed:
            raise ConfigError(
                f"{name} {value!r} is for photos with one label each; here they may have several. Leave it out: each "
                "class gets a threshold of its own, chosen on val."
            )


def _student(
    spec: StudentSpec, config: Config, photos: int, folder: Folder, twins: bool, *, has_unlabeled: bool
) -> StudentPlan:
    student, classes = config.student, len(folder.classes)
    metric = metric_of(config.metric, several_labels=folder.several_labels)
    start = _start(spec, config, folder, twins)
    length = config.update.length if start else 1.0
    short = num_epochs(spec, config, photos, all_labeled=False)  # what pilots are a share of
    epochs = num_epochs(spec, config, photos, all_labeled=not has_unlabeled)
    lr = student.lr if student.lr != "auto" else 1e-2 if spec.from_scratch else 3e-3
    shared = Recipe(
        epochs=max(1, round(length * epochs)),
        batch_size=batch_size(spec, config, photos),
        lr=lr,
        weight_decay=student.weight_decay,
        ema=student.ema,
        crop_pct=student.crop_pct,
        dtype="float32",
        soft_labels="",
        metric=metric,
        operating_point=config.operating_point,
    )
    # A class that is absent from most photos makes a teacher of several labels sure, and says nothing of saturation.
    auto = frozenset(
        name
        for name in AUTO
        if getattr(student, name) == "auto" and not (name == "temperature" and folder.several_labels)
    )
    by_classes = 1.0 if classes <= 10 else 0.5 if classes <= 50 else 0.25
    distillation = replace(
        shared,
        method=student.method,
        temperature=1.0 if student.temperature == "auto" else student.temperature,
        distill_weight=1.0 if student.distill_weight == "auto" else student.distill_weight,
        feature_weight=by_classes if student.feature_weight == "auto" else student.feature_weight,
        task_weight=0.3 if student.task_weight == "auto" else student.task_weight,
        last_epochs=0 if student.last_epochs == "auto" else student.last_epochs,
    )
    return StudentPlan(
        name=spec.name,
        model=spec.model,
        size=spec.size,
        input_size=describe(spec.model, (), size=spec.size).size,
        weights=spec.weights,
        shared=shared,
        distillation=distillation,
        auto=auto,
        lr_factors=student.lr_factors,
        label_smoothing=config.twin.label_smoothing,
        length_shares=config.twin.length_shares,
        search_weights=student.search == "weights",
        class_balances=class_balances(metric, config.class_balance),
        pilot_epochs=max(1, round(student.pilot_share * length * short)) if student.pilot_share else 0,
        start=start,
    )


def _start(spec: StudentSpec, config: Config, folder: Folder, twins: bool) -> str:
    """The folder of the earlier run's student that trainings start from; "" where they start from starting weights.

    Raises:
        ConfigError: the run has no such student, or not with all seeds, or no twin of it.
        WeightsError: weights of it were removed.
    """
    if folder.earlier is None or config.update.start == "weights":
        return ""
    run, arms = Run(folder.earlier.run), ARMS if twins else ARMS[:1]
    if is_trained(run, spec.name, config.seeds, arms):
        folders = (model_folder(run, spec.name, seed, arm) for seed in range(config.seeds) for arm in arms)
        for weights in (folder / "model.safetensors" for folder in folders):
            if not weights.is_file():
                raise WeightsError(f"{weights} is missing. With --from-scratch, it is not needed.")
        return str(run.students / spec.name)
    names = usable_students(run)
    if spec.name not in names:
        what = f"no student {spec.name} to start from. It has: {', '.join(names) or 'none'}"
    else:
        what = f"not {counted(config.seeds, 'seed')} of {spec.name}{' and its twin' if twins else ''} to start from"
    raise ConfigError(
        f"{run.path} has {what}.\n  With --from-scratch, training starts from the original starting weights instead."
    )


def batch_size(spec: StudentSpec, config: Config, photos: int) -> int:
    """Photos per step: as set, or 64, or 16 from scratch, where batches of 64 would leave too few steps to learn from.

    "dist" compares photos within a batch, so it keeps 64.
    """
    size = config.student.batch_size
    if size == "auto":
        size = 16 if spec.from_scratch and config.student.method != "dist" else 64
    return min(size, max(MIN_BATCH, photos // 8))


def num_epochs(spec: StudentSpec, config: Config, photos: int, *, all_labeled: bool) -> int:
    """The number of epochs: as set, or by the rule of `student.epochs`. `photos` counts the unlabeled ones too."""
    longer = LONGER_FROM_SCRATCH if spec.from_scratch else LONGER_WITH_LABELS if all_labeled else 1
    return _epochs(config, photos, longer * VIEWS_SEEN)


def num_views(config: Config, photos: int) -> int:
    """The number of stored views per photo: as set, or one per epoch of a pretrained student, up to 24, or up to what
    makes 60,000 of all photos together, but 4 at least.

    It does not depend on the student: all share one store, those of later commands too.
    """
    if config.views.count != "auto":
        return config.views.count
    most = np.clip(round(VIEWS_SEEN / max(photos, 1)), MIN_STORED_VIEWS, MAX_STORED_VIEWS)
    return int(min(_epochs(config, photos, VIEWS_SEEN), most))


def _epochs(config: Config, photos: int, views: int) -> int:
    student = config.student
    if student.epochs != "auto":
        return student.epochs
    longer = np.sqrt(max(photos, MANY_PHOTOS) / MANY_PHOTOS)
    epochs = np.clip(round(views * longer / max(photos, 1)), 10, 200)
    return int(max(1, round(student.patience * epochs)))


def _disk(plan: Plan) -> dict[str, float]:
    """Bytes by what they are for."""
    config, photos, views = plan.teacher.config, plan.train_photos, plan.soft_labels.num_views
    classes = plan.images.folder.classes
    widths = []
    if plan.teacher.external is None:
        widths = [
            feature_widths(describe(name, classes, size=size, feature_stages=config.feature_stages))
            for name, size in zip(config.model, plan.teacher.sizes, strict=True)
        ]
    rendered = max(photos * views * student.input_size**2 * 3.0 for student in plan.students.students)
    return {
        "photos": plan.images.bytes(),
        "teacher's features": 2.0 * photos * plan.teacher.stored_views * sum(width for width, _ in widths),
        "soft labels": 4.0 * photos * views * (sum(last for _, last in widths) + len(classes)),
        "rendered views": rendered if rendered <= plan.students.cache_gb * 1e9 else 0.0,
    }
