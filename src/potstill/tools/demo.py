"""The built-in example: is a solar cell functional or defective?

2,624 photos of cells from 44 photovoltaic modules, taken by the light that the cells give off under current
(electroluminescence), with a defect probability that experts agreed on and the cell type. They ship as the package
`elpv-dataset`. Published accuracy on this task, on another 75/25 split: support vector machine 82.4 %, VGG-19 88.4 %
(Deitsch et al. 2019, Solar Energy 185, "Automatic classification of defective photovoltaic module cells in
electroluminescence images").
"""

import csv
import hashlib
import importlib.util
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.config.load import from_mapping
from potstill.config.quick import QUICK
from potstill.errors import DataError
from potstill.monitoring.progress import Reporter
from potstill.pipeline import Result, distill

CLASSES = ("functional", "defective")
TEST_SHARE = 0.25
LICENSE = """The demo's photos: "A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence
Imagery" (Buerhop-Lutz et al. 2018), license CC BY-NC-SA 4.0: with attribution, not for commercial use."""
PUBLISHED = {"SVM": 0.824, "VGG-19": 0.884}

SETTINGS: dict[str, Any] = {
    "teacher.model": ["efficientnet_lite0"],
    "teacher.weights": "package",
    "teacher.size": 160,
    "teacher.train": "probe",
    "teacher.probe_views": 2,
    "views.count": 8,
    "views.flip": "both",
    "student.models": ["mobilenetv1_025@96"],
    "student.weights": "none",
    "student.epochs": 24,
    "student.distill_weight": 1.0,
    "student.feature_weight": 1.0,
    "student.pilot_share": 0.15,
    "seeds": 3,
    "operating_point": "recall:defective=0.8",
}
"""Chosen so that two slow cores need 10 to 20 minutes. A cell has no upright, so views are mirrored both ways. The
loss weights are set, so that the demo shows a distilled student even where val favors none. An inspector asks how many
false alarms it takes to find the defective cells. With so few labels, finding 90 % of them would take false alarms for
most of the others; 80 % is where models differ."""

LABELS_PER_CLASS = 50
"""Photos of cells are cheap, an expert's opinion of each is not: the other training photos are used without labels."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One photo of the data set."""

    path: Path
    probability: float
    """Of a defect: 0, 1/3, 2/3 or 1."""
    kind: str
    """mono or poly: the crystal."""


def read_cells() -> list[Cell]:
    """The photos of the installed package, in its order, without running its code.

    Raises:
        DataError: the package is not installed; the message has the install line.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError("The demo's photos are not installed. Install them: pip install 'potstill[demo]'")
    folder = Path(spec.origin).parent / "data"
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter=" ", skipinitialspace=True))
    return [Cell(folder / path, float(probability), kind.strip()) for path, probability, kind in rows]


def make_folder(target: Path) -> Path:
    """Copy the photos to `target/{train,test}/{functional,defective}/`. A quarter of each stratum is for the test.

    The strata are crystal × defect probability; within each, photos are ordered by the hash of their name, so the split
    is the same everywhere and for ever. Cells that experts gave a probability of 2/3 or 1 count as defective.
    """
    strata: dict[tuple[str, float], list[Cell]] = defaultdict(list)
    for cell in read_cells():
        strata[cell.kind, cell.probability].append(cell)
    for cells in strata.values():
        cells.sort(key=lambda cell: hashlib.sha256(cell.path.name.encode()).hexdigest())
        for position, cell in enumerate(cells):
            split = "test" if position < round(TEST_SHARE * len(cells)) else "train"
            place = target / split / CLASSES[cell.probability > 0.5]
            place.mkdir(parents=True, exist_ok=True)
            copy = place / cell.path.name
            if not copy.is_file() or copy.stat().st_size != cell.path.stat().st_size:
                shutil.copy2(cell.path, copy)
    return target


def run_demo(
    *, quick: bool = False, all_labels: bool = False, runs: Path = Path("runs"), reporter: Reporter | None = None
) -> Result:
    """The whole job on the solar cells, in `runs/demo`, `demo-quick`, `demo-all-labels` or `demo-all-labels-quick`.

    Args:
        all_labels: use the labels of all training photos, not of `LABELS_PER_CLASS` per class.

    Raises:
        DataError, WeightsError: the packages of `potstill[demo]` are not installed.
    """
    reporter = reporter or Reporter()
    reporter.info(LICENSE)
    photos = make_folder(runs / "demo-photos")
    labels = {} if all_labels else {"images.per_class": LABELS_PER_CLASS}
    config = from_mapping({**SETTINGS, **labels, **(QUICK if quick else {})})
    name = "demo" + ("-all-labels" if all_labels else "") + ("-quick" if quick else "")
    return distill(photos, config=config, run=runs / name, reporter=reporter)


def beside_published(result: Result) -> str:
    """The teacher's test accuracy beside the published ones."""
    teacher = result.comparison.teacher.accuracy
    published = ", ".join(f"{name} {value:.1%}" for name, value in PUBLISHED.items())
    return (
        f"Teacher {teacher.value:.1%} ({teacher.low:.1%} to {teacher.high:.1%}) on this split; published on "
        f"this task, on another 75/25 split: {published} (Deitsch et al. 2019)."
    )
