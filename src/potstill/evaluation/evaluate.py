"""Scoring a finished model on new photos, against its own test photos."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill import metrics
from potstill.check.inspect import Inspected, inspect_all
from potstill.config.load import from_mapping
from potstill.config.schema import ImagesConfig
from potstill.deploy.batches import Model, probabilities_of_each
from potstill.deploy.predictor import require_one_label as require_model_of_one_label
from potstill.errors import ConfigError, DataError, did_you_mean
from potstill.evaluation.baseline import (
    UNKNOWN,
    UNLABELED,
    Outputs,
    confidence_of,
    run_of,
    seen_before,
    test_outputs,
)
from potstill.evaluation.result import ClassScore, Drift, Evaluation, Score
from potstill.export.load import ExportedPredictor, open_predictor
from potstill.images.class_folders import shown
from potstill.images.folder import plain_name
from potstill.images.new_photos import NewPhotos, read_new_photos
from potstill.metrics import Interval
from potstill.monitoring.progress import Reporter
from potstill.run.layout import require_one_label

_TINY = 1e-12
"""A probability of 0 has no logarithm."""

NO_RUN = "The run of this model is not known: photos that it learned from are not noticed."


def evaluate(
    model: Path | str,
    photos: Path | str,
    *,
    student: str | None = None,
    arm: str = "distilled",
    seed: int | None = None,
    labels: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a finished model on new photos, and compare with its own test photos.

    Nothing is chosen by it, and nothing is written. Photos that show the same picture as one that the model learned
    from are left out, where its run is known: a run folder, or a model or an exported file that lies in one.

    Args:
        model: a run folder, a folder with model.json, or an exported file such as student.onnx.
        photos: a photo folder, a table of labels or an archive, as for `distill`. Photos without labels tell of drift.
        student, arm, seed: which model of a run, as in `load`.
        labels: a table with the labels, short for the setting `images.labels`.
        settings: other settings of `images` by dotted name, such as `{"images.label_column": "kind"}`.
        reporter: where progress is printed.
    Raises:
        DataError: no photos, none of the model's classes, or none that can be read.
        ConfigError: a setting that is not one of `images`.
        ModelError, ExportError: there is no such model.
    """
    path, reporter = Path(model), reporter or Reporter()
    if (run := run_of(path)) is not None:
        require_one_label(run, "`potstill evaluate`")
    new = read_new_photos(Path(photos), _images(labels, settings or {}))
    predictor = open_predictor(path, student=student, arm=arm, seed=seed)
    require_model_of_one_label(predictor, "`potstill evaluate`")
    classes = predictor.classes
    _require_known_class(new, classes)
    inspected = _inspected(new, reporter)
    seen = seen_before(run, inspected)
    sample = _predicted(predictor, new, seen.learned_from, reporter)
    test = test_outputs(run, predictor)
    confidence = confidence_of(run)
    outputs = sample.outputs.of_known_classes()
    top = sample.outputs.probabilities.max(-1)
    predicted = Counter(classes[i] for i in sample.outputs.probabilities.argmax(-1).tolist())
    return Evaluation(
        model=str(predictor.path if isinstance(predictor, ExportedPredictor) else predictor.folder),
        data=str(photos),
        confidence=confidence,
        score=_score(outputs, confidence),
        test=_score(test, confidence) if test else None,
        difference=_difference(outputs, test, confidence) if test else None,
        per_class=_per_class(outputs, test, classes, confidence),
        unlabeled=int(np.sum(sample.outputs.labels == UNLABELED)),
        unsure=float(np.mean(top < predictor.threshold)) if predictor.threshold > 0 else None,
        predicted={name: predicted[name] for name in classes},
        drift=_drift(sample.outputs, test, predictor.threshold, confidence) if test else None,
        lacking=tuple(name for i, name in enumerate(classes) if i not in outputs.labels),
        unknown=dict(Counter(label for _, label in new.files if label and label not in classes)),
        learned_from=tuple(plain_name(new.files[i][0]) for i in sorted(seen.learned_from)),
        in_test=len(seen.in_test),
        failed=sample.failed,
        notes=(*new.notes, *_spellings(new, classes), *([] if run else [NO_RUN])),
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """What the model predicts for the photos that are used, and why others could not be read."""

    outputs: Outputs
    failed: dict[str, str]


def _images(labels: Path | str | None, settings: Mapping[str, Any]) -> ImagesConfig:
    """How photos are read. Raises ConfigError for other settings: they would have no effect."""
    if others := [name for name in settings if not name.startswith("images.")]:
        raise ConfigError(f"evaluate() trains nothing, so the setting {others[0]!r} has no effect. Leave it out.")
    return from_mapping({**settings, **({"images.labels": str(labels)} if labels else {})}).images


def _require_known_class(new: NewPhotos, classes: Sequence[str]) -> None:
    if new.classes and not set(new.classes) & set(classes):
        raise DataError(
            f"{new.root} has none of the model's classes. It has: {shown(new.classes)}. The model has: "
            f"{shown(classes)}.{did_you_mean(new.classes[0], classes)}\n  Name the folders, or the labels in the "
            "table, as the classes are called."
        )


def _spellings(new: NewPhotos, classes: Sequence[str]) -> Iterator[str]:
    """A hint for classes that are probably one of the model's, spelled otherwise."""
    for name in new.classes:
        if name not in classes and (near := did_you_mean(name, [c for c in classes if c not in new.classes])):
            yield f"The model has no class {name!r}.{near}"


def _inspected(new: NewPhotos, reporter: Reporter) -> list[Inspected]:
    found: list[Inspected] = []
    with reporter.bar("Looking at the photos", len(new.files), unit="photo") as update:
        for photo in inspect_all([path for path, _ in new.files], min_side=1):
            found.append(photo)
            update(len(found))
    return found


def _predicted(model: Model, new: NewPhotos, left_out: Collection[int], reporter: Reporter) -> _Sample:
    """Run the model on all new photos but those that are left out.

    Raises:
        DataError: no photo can be used.
    """
    used = [i for i in range(len(new.files)) if i not in left_out]
    index = {name: number for number, name in enumerate(model.classes)} | {"": UNLABELED}
    labels, probabilities, failed = [], [], {}
    with reporter.bar("Classifying photos", len(used), unit="photo") as update:
        photos = ((i, new.files[i][0]) for i in used)
        for done, (i, found) in enumerate(probabilities_of_each(model, photos, count=len(used)), 1):
            path, name = new.files[i]
            if isinstance(found, DataError):
                failed[plain_name(path)] = str(found)
            else:
                labels.append(index.get(name, UNKNOWN))
                probabilities.append(found)
            update(done)
    if not probabilities:
        why = next(iter(failed.values()), "The model learned from all of them, or from copies of them.")
        raise DataError(f"No photo of {new.root} can be used. {why}")
    return _Sample(Outputs(np.array(labels), np.stack(probabilities)), failed)


def _score(outputs: Outputs, confidence: float) -> Score | None:
    photos = len(outputs.labels)
    if not photos:
        return None
    logits = np.log(np.maximum(outputs.probabilities, _TINY))
    correct = int(np.sum(outputs.correct))
    return Score(
        photos=photos,
        accuracy=Interval(correct / photos, *metrics.wilson_interval(correct, photos, confidence)),
        balanced_accuracy=metrics.balanced_accuracy(logits, outputs.labels),
        nll=metrics.nll(logits, outputs.labels),
        ece=metrics.ece(logits, outputs.labels),
    )


def _difference(new: Outputs, test: Outputs, confidence: float) -> Interval | None:
    """Accuracy on new photos minus that on test, both in the new photos' mix of classes."""
    total, test_total = new.counts(), test.counts()
    both = (total > 0) & (test_total > 0)
    if not both.any():
        return None
    right, test_right = new.counts(new.correct), test.counts(test.correct)
    return metrics.difference_of_shares(right[both], total[both], test_right[both], test_total[both], confidence)


def _per_class(
    outputs: Outputs, test: Outputs | None, classes: Sequence[str], confidence: float
) -> tuple[ClassScore, ...]:
    """Of the classes that have new photos."""
    predicted, found = outputs.probabilities.argmax(-1), []
    for label, name in enumerate(classes):
        mine = outputs.labels == label
        photos = int(mine.sum())
        if not photos:
            continue
        correct = int(np.sum(predicted[mine] == label))
        wrong = np.bincount(predicted[mine & (predicted != label)], minlength=len(classes))
        own = test.correct[test.labels == label] if test is not None else np.empty(0)
        found.append(
            ClassScore(
                name=name,
                photos=photos,
                accuracy=Interval(correct / photos, *metrics.wilson_interval(correct, photos, confidence)),
                test_photos=None if test is None else len(own),
                test_accuracy=float(own.mean()) if len(own) else None,
                mostly_taken_for=classes[int(wrong.argmax())] if wrong.any() else "",
            )
        )
    return tuple(found)


def _drift(outputs: Outputs, test_outputs: Outputs, threshold: float, confidence: float) -> Drift:
    """Compare the probabilities, whatever the photos show."""
    new, test = outputs.probabilities, test_outputs.probabilities
    unsure, test_unsure = (np.array([np.sum(values.max(-1) < threshold)]) for values in (new, test))
    tests = [metrics.kolmogorov_smirnov(new[:, label], test[:, label]) for label in range(new.shape[1])]
    distance, p = max(tests)
    return Drift(
        unsure=Interval(float(unsure[0] / len(new)), *metrics.wilson_interval(int(unsure[0]), len(new), confidence)),
        test_unsure=float(test_unsure[0] / len(test)),
        more_unsure=metrics.difference_of_shares(
            unsure, np.array([len(new)]), test_unsure, np.array([len(test)]), confidence
        ),
        distance=distance,
        p=min(1.0, p * len(tests)),
    )
