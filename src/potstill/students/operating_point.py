"""Operating points of trained students: thresholds placed on val, stored in `model.json`.

A threshold changes nothing of a training. So a finished training gets another one in place, where the setting is
another one than when it was trained.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from potstill import metrics
from potstill.config.metric import Target, label_of, parse_operating_point
from potstill.data.arrays import open_arrays
from potstill.data.pixels import PixelStore
from potstill.errors import DataError
from potstill.metrics.operating_point import highest_recall, least_photos, place_threshold
from potstill.run.files import read_json, write_json
from potstill.run.folder import Run
from potstill.run.integrity import file_facts
from potstill.run.layout import ARMS, model_folder
from potstill.run.trained import OperatingPoint, read_trained
from potstill.students.plan import StudentsPlan
from potstill.wording import counted


def operating_point_of(
    setting: str, probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> OperatingPoint | None:
    """The operating point that the setting asks for; None where it asks for none.

    Args:
        probabilities: (n, C) of the val photos.
        labels: (n,) of them.
    Raises:
        DataError: val has too few photos of the class.
    """
    target = parse_operating_point(setting)
    if target is None:
        return None
    label = label_of(target.class_name, classes, "operating_point")
    own = probabilities[labels == label, label]
    require_enough(target, len(own))
    return OperatingPoint(
        class_name=target.class_name, recall=target.recall, threshold=place_threshold(own, target.recall)
    )


def require_val_photos(setting: str, store: PixelStore, classes: Sequence[str]) -> None:
    """Raise DataError where val has too few photos of the class that the setting `operating_point` names."""
    if target := parse_operating_point(setting):
        label = label_of(target.class_name, classes, "operating_point")
        require_enough(target, int(np.sum(store.labels(store.rows("val")) == label)))


def require_enough(target: Target, photos: int) -> None:
    """Raise DataError where so many val photos of a class are too few for its threshold."""
    least = least_photos(target.recall)
    if photos >= least:
        return
    most = f"or ask for less: so many can place one for {highest_recall(photos):g}" if photos > 1 else "or leave it out"
    raise DataError(
        f"val has {counted(photos, 'photo')} of {target.class_name}. A threshold that finds "
        f"{target.recall:g} of them is placed by the least probable ones, which takes {least} or more; with fewer it "
        "could find any share of new photos.\n"
        f"  Add val photos of {target.class_name} (--images.val-share, or a folder val/), {most} (--operating-point)."
    )


def place_operating_points(run: Run, names: Iterable[str], plan: StudentsPlan) -> None:
    """Give every trained model of these students the operating point of the plan, where it has another one."""
    setting = plan.students[0].shared.operating_point
    for name in dict.fromkeys(names):
        for folder in (model_folder(run, name, seed, arm) for seed in range(plan.seeds) for arm in ARMS):
            if (folder / "done.json").is_file() and not _is_placed(folder, setting):
                _place(folder, setting, run.classes())


def _is_placed(folder: Path, setting: str) -> bool:
    """Whether a finished training has the operating point that the setting asks for, wholly written."""
    vouched = "model.json" in read_json(folder / "done.json").get("files", {})
    return vouched and _is_at(read_trained(folder).operating_point, setting)


def _is_at(point: OperatingPoint | None, setting: str) -> bool:
    """Whether a model has the operating point that the setting asks for."""
    target = parse_operating_point(setting)
    if point is None or target is None:
        return point is None and target is None
    return (point.class_name, point.recall) == (target.class_name, target.recall)


def _place(folder: Path, setting: str, classes: Sequence[str]) -> None:
    """Put another operating point into the model.json of a finished training. Killed at any moment, it leaves the
    training finished, and the next command does it again."""
    with open_arrays(folder / "val_predictions.npz") as stored:
        logits, labels = stored["logits"], stored["labels"]
    described, done = read_json(folder / "model.json"), read_json(folder / "done.json")
    probabilities = metrics.softmax(logits / described["trained"]["temperature"])
    point = operating_point_of(setting, probabilities, labels, classes)
    described["trained"]["operating_point"] = asdict(point) if point else None
    described["trained"]["recipe"]["operating_point"] = setting
    others = {name: facts for name, facts in done.get("files", {}).items() if name != "model.json"}
    write_json(folder / "done.json", {**done, "files": others})  # while it is written, nothing vouches for model.json
    write_json(folder / "model.json", described)
    write_json(folder / "done.json", {**done, "files": file_facts(folder)})
