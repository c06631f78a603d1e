"""Where the files of a run are: the one place that knows."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from potstill.errors import DataError
from potstill.run.files import read_toml_text
from potstill.run.folder import Run

ARMS = ("distilled", "alone")
"""How a student was trained: from the teacher's soft labels, or as the twin, from the given labels only."""

LABELS = "labels.npy"
"""In `1_images/` where photos may have several labels: see `potstill.data.pixels`."""


def member_folders(teacher: Path, models: tuple[str, ...]) -> list[Path]:
    """Where each of the teacher's models is stored: the stage folder itself when there is only one."""
    if len(models) == 1:
        return [teacher]
    return [teacher / f"{number}_{name.replace('/', '-')}" for number, name in enumerate(models, 1)]


def fold_folder(member: Path, fold: int) -> Path:
    """Where the model that was fine-tuned without a fold is stored, in the folder of one of the teacher's models."""
    return member / f"fold-{fold + 1}"


def tuned_on_path(member: Path) -> Path:
    """Rows (n,) of the pixel store: the photos without labels that the models of the folds learned from. There is no
    such file where they learned from labeled photos only."""
    return member / "tuned_on.npy"


def teacher_networks(teacher: Path, models: tuple[str, ...]) -> list[list[Path]]:
    """Where the networks of a finished teacher are stored, in groups whose mean predictions count alike: of each model
    the linear probe, those that were fine-tuned, one per fold, or both."""
    return [group for member in member_folders(teacher, models) for group in networks_of(member)]


def networks_of(member: Path) -> list[list[Path]]:
    """The groups of networks of one of the teacher's models."""
    probe = [member] if (member / "model.json").is_file() else []
    tuned = sorted((path.parent for path in member.glob("fold-*/model.json")), key=lambda path: int(path.name[5:]))
    return [group for group in (probe, tuned) if group]


def given_path(run: Run) -> Path:
    """Where soft labels that came from a file are stored: logits (n, C) of every row of the pixel store."""
    return run.teacher / "given.npy"


def weights_path(folder: Path) -> Path:
    """The file with the weights of a stored model."""
    onnx = folder / "model.onnx"
    return onnx if onnx.is_file() else folder / "model.safetensors"


def external_inputs(run: Run) -> dict[str, str]:
    """What else a stage depends on where the teacher is a file: how its outputs are understood. Empty where it is
    trained: there its weights are all."""
    stage = run.stage("2_teacher")
    is_external = stage.is_done and "external" in stage.facts()["inputs"]
    return {"external": stage.digest()} if is_external else {}


def unlike_path(run: Run) -> Path:
    """The list of photos without labels that resemble none of the labeled photos, and are left out."""
    return run.teacher / "unlike.csv"


def model_folder(run: Run, name: str, seed: int, arm: str) -> Path:
    """Where a trained student or twin is stored."""
    return run.students / name / f"seed-{seed}" / arm


def views_path(run: Run, size: int) -> Path:
    """Where the views rendered at a size are kept while students train."""
    return run.students / f"views-{size}px.npy"


def student_names(run: Run) -> list[str]:
    """The finished students of a run, in the order of its settings."""
    return list(run.stage("4_students").facts()["inputs"]["students"])


def usable_students(run: Run) -> list[str]:
    """The students that are trained with all seeds, also while twins and others are still being trained: those of the
    stage first, then the others in the order of their names."""
    names = student_names(run) if run.stage("4_students").is_done else []
    seeds = num_seeds(run)
    folders = sorted(path.name for path in run.students.glob("*") if path.is_dir() and path.name not in names)
    return [*names, *(name for name in folders if is_trained(run, name, seeds, ARMS[:1]))]


def num_seeds(run: Run) -> int:
    """How many seeds the run trains every student with."""
    return int(tomllib.loads(read_toml_text(run.path / "config.toml"))["seeds"])


def is_trained(run: Run, name: str, seeds: int, arms: Sequence[str] = ARMS) -> bool:
    """Whether a student and its twin, or one of them, are trained with all of so many seeds."""
    return all((model_folder(run, name, seed, arm) / "done.json").is_file() for seed in range(seeds) for arm in arms)


def progress_path(run: Path) -> Path:
    """Where a command says how far it is, for `potstill status`."""
    return run / "progress.json"


def control_folder(run: Run, name: str, seed: int, control: str) -> Path:
    """Where a control of a student is stored: "labeled-twin" or "self-taught"."""
    return run.path / "controls" / name / f"seed-{seed}" / control


def controls_path(run: Run) -> Path:
    """Where the numbers of the controls are stored."""
    return run.path / "controls" / "controls.json"


def require_one_label(run: Run, what: str) -> None:
    """Raise DataError for a run whose photos may have several labels, with which `what` cannot be done."""
    if (run.images / LABELS).is_file():
        raise DataError(
            f"The photos of {run.path} may have several labels, and {what} is for photos with one label each. What "
            "there is for several: `potstill open`, `predict`, `evaluate`, `suggest`, `serve` and `export`."
        )


def comparison_path(run: Run) -> Path:
    """Where the numbers of the comparison are stored."""
    return run.comparison / "comparison.json"


def suggest_folder(run: Run) -> Path:
    """Where `potstill suggest` writes its list of photos to label."""
    return run.path / "suggest"


def journal_path(run: Run) -> Path:
    """The labels that the page of `potstill suggest --label` has given."""
    return suggest_folder(run) / "labels.jsonl"
